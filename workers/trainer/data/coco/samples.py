"""A folder in COCO's format as prompted samples: one prompt for each category that an image shows.

Deterministic by (split, index). An image belongs to one split, by its id alone. A category with a crowd or an object
without a mask is neither prompted for in that image nor absent from it; notices count what that leaves out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from experiments.spec import CocoData
from workers.protocol import Notice
from workers.trainer.data.coco import layout as coco_layout
from workers.trainer.data.coco import masks as coco_masks
from workers.trainer.data.coco.entries import Annotation
from workers.trainer.data.coco.file import Folder, read
from workers.trainer.data.errors import DataError
from workers.trainer.data.images import reader
from workers.trainer.data.images.lexicon import LENGTH, Lexicon
from workers.trainer.data.images.samples import Sample, Samples, Splits
from workers.trainer.data.notices import counted, notice

FEWEST = 3  # images that show something to prompt for: one for each split
SEEDS = {"train": 11, "val": 12, "test": 13}  # of the draws of absent prompts


@dataclass(frozen=True)
class ImageContents:
    """What an image shows, by category, and what not."""

    image: int
    prompted: dict[int, list[Annotation]]  # prompts may name these
    absent: list[int]
    crowds: dict[int, list[Annotation]]  # no prompt names these: one annotation is a crowd,
    maskless: dict[int, list[Annotation]]  # or has no mask


@dataclass(frozen=True)
class PromptQuery:
    """An image and the category of its prompt."""

    contents: ImageContents
    category: int

    @property
    def targets(self) -> list[Annotation]:
        """What the prompt names in the image; empty if the category is absent."""
        return self.contents.prompted.get(self.category, [])


def load(data: CocoData, queries: int | None = None) -> Splits:
    """Half of the held-out images are for validation, half for testing. `queries`, of the model, limits how many things
    it can find at once; a notice counts those beyond. Raises DataError that names the file."""
    folder = read(data.path)
    lexicon, contents = lexicon_of(folder), contents_of(folder)
    parts = _parts(folder, contents, data)
    made = {
        split: _samples(Maker(folder, lexicon, data.canvas), prompt_queries(part, data.absent, SEEDS[split]))
        for split, part in parts.items()
    }
    notices = (*folder.notices, *left_out(folder, contents, data.absent), *crowded(folder, contents, queries))
    return Splits(**made, lexicon=lexicon, notices=notices)


def lexicon_of(folder: Folder) -> Lexicon:
    """The words of the folder's category names, in the order of Unicode, whatever their order in the file."""
    words = sorted({word for name in folder.categories.values() for word in name.lower().split()})
    lexicon, known = Lexicon(("<pad>", "<unknown>", *words)), dict[tuple[int, ...], int]()
    for category, name in folder.categories.items():
        if not name.split():
            raise DataError(f"{folder.listing}: a category has an empty name; give it one")
        same = known.setdefault(tuple(lexicon.encode(name)), category)
        if same != category:
            raise DataError(
                f"{folder.listing}: categories {same} and {category} ({name}) have the same prompt "
                f"(its first {LENGTH} words count); rename one"
            )
    return lexicon


def contents_of(folder: Folder) -> list[ImageContents]:
    """Every image, in the order of ids."""
    by_image: dict[int, dict[int, list[Annotation]]] = {image: {} for image in sorted(folder.images)}
    for annotation in folder.annotations:
        by_image[annotation.image_id].setdefault(annotation.category_id, []).append(annotation)
    return [_contents(image, by_category, folder.categories) for image, by_category in by_image.items()]


def _contents(image: int, by_category: dict[int, list[Annotation]], categories: dict[int, str]) -> ImageContents:
    contents = ImageContents(image, {}, [category for category in categories if category not in by_category], {}, {})
    for category, group in sorted(by_category.items()):
        if any(annotation.iscrowd for annotation in group):
            contents.crowds[category] = group
        elif all(annotation.masked for annotation in group):
            contents.prompted[category] = group
        else:
            contents.maskless[category] = group
    return contents


def left_out(folder: Folder, images: list[ImageContents], absent: float) -> list[Notice]:
    """What no prompt names, and why."""
    notices: list[Notice] = []
    for field, why in (("crowds", "one of them is marked as a crowd"), ("maskless", "one of them has no mask")):
        groups = _groups(images, field)
        count = sum(len(group) for _, group in groups)
        text = (
            f"{count} of {counted(len(folder.annotations), 'annotation')} left out, in {counted(len(groups), 'pair')} "
            f"of an image and a category without a prompt: {why}"
        )
        notices += notice("left_out", text, [_pair(folder, image, group) for image, group in groups])
    if not absent:
        bare = [folder.images[each.image].file_name for each in images if not each.prompted]
        text = f"{len(bare)} of {counted(len(images), 'image')} left out: nothing to prompt for, and data.absent is 0"
        notices += notice("left_out", text, bare)
    return notices


def crowded(folder: Folder, images: list[ImageContents], queries: int | None) -> list[Notice]:
    """Prompts that name more things than the model has queries."""
    if queries is None:
        return []
    groups = [(image, group) for image, group in _groups(images, "prompted") if len(group) > queries]
    over, most = sum(len(group) - queries for _, group in groups), max((len(group) for _, group in groups), default=0)
    text = (
        f"{counted(len(groups), 'prompt')} with more objects than the model has queries ({queries}): a training step "
        f"matches at most {queries} of them and leaves {counted(over, 'object')} unmatched; scores count all. "
        f"With model.queries = {most} every object can be matched"
    )
    return notice("left_out", text, [_pair(folder, image, group) for image, group in groups])


def _groups(images: list[ImageContents], field: str) -> list[tuple[int, list[Annotation]]]:
    """Each image with the annotations of each of its categories in a field."""
    return [(each.image, group) for each in images for group in getattr(each, field).values()]


def _pair(folder: Folder, image: int, group: list[Annotation]) -> str:
    name = folder.images[image].file_name
    return f"{name}: {folder.categories[group[0].category_id]}, {counted(len(group), 'annotation')}"


def prompt_queries(part: list[ImageContents], absent: float, seed: int) -> list[PromptQuery]:
    """Each category of each image once, with absent prompts as the share `absent` of all, shuffled."""
    rng = np.random.default_rng(seed)
    queries = [PromptQuery(each, category) for each in part for category in each.prompted]
    empty = [each for each in part if each.absent]
    for _ in range(round(len(queries) * absent / (1 - absent)) if empty else 0):
        contents = empty[rng.integers(len(empty))]
        queries.append(PromptQuery(contents, contents.absent[rng.integers(len(contents.absent))]))
    return [queries[index] for index in rng.permutation(len(queries))]


@dataclass(frozen=True)
class Maker:
    """Makes the sample of a prompt query."""

    folder: Folder
    lexicon: Lexicon
    side: int

    def sample(self, query: PromptQuery) -> Sample:
        contents, names, targets = query.contents, self.folder.categories, query.targets
        masks = self._masks(contents.image, targets)
        others = [category for category in contents.prompted if category != query.category] if targets else []
        return Sample(
            self._image(contents.image),
            _labels(masks),
            tuple(range(1, len(masks) + 1)),
            names[query.category],
            names[others[0]] if others else "",
            category=query.category,
            lexicon=self.lexicon,
            packed=np.packbits(masks.reshape(len(masks), self.side**2), axis=1),
        )

    def _masks(self, image: int, targets: Iterable[Annotation]) -> NDArray[np.bool_]:
        """things, side, side: the largest first."""
        entry = self.folder.images[image]
        masks = [coco_masks.shrunk(coco_masks.decode(each, entry), self.side) for each in targets]
        ordered = sorted(masks, key=lambda mask: -int(mask.sum()))
        return np.array(ordered, np.bool_).reshape(len(ordered), self.side, self.side)

    def _image(self, image: int) -> NDArray[np.uint8]:
        entry = self.folder.images[image]
        path = f"{self.folder.name}/{coco_layout.IMAGES}/{entry.file_name}"
        try:
            pixels = reader.rgb(self.folder.files[image], self.folder.float_top)
        except reader.ImageProblem as error:
            raise DataError(f"{path}: {error}") from None
        if (hashed := self.folder.hashed.get(entry.file_name)) and not hashed.unchanged():
            raise DataError(f"{path}: the file has changed since this attempt began; restore it and retry")
        height, width = pixels.shape[:2]
        if (width, height) != (entry.width, entry.height):
            raise DataError(f"{path}: decoded, it has {width} × {height} pixels, not {entry.width} × {entry.height}")
        whole = Image.fromarray(pixels).resize((self.side, self.side), Image.Resampling.BILINEAR)
        return np.asarray(whole)


def _labels(masks: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """The number of the thing at each pixel; the smaller one if things overlap."""
    labels = np.zeros(masks.shape[1:], np.uint16)
    for label, mask in enumerate(masks, 1):
        labels[mask] = label
    return labels


def _samples(maker: Maker, queries: list[PromptQuery]) -> Samples:
    return Samples(lambda index: maker.sample(queries[index]), len(queries), lambda index: len(queries[index].targets))


def _parts(folder: Folder, images: list[ImageContents], data: CocoData) -> dict[str, list[ImageContents]]:
    """Images without a prompted category go to training, for absent prompts."""
    full = sorted((each for each in images if each.prompted), key=lambda each: _rank(each.image))
    if len(full) < FEWEST:
        raise DataError(
            f"{folder.listing}: {len(full)} images show something to prompt for, but {FEWEST} are needed: one a split"
        )
    if data.absent and not any(each.absent for each in images):
        text = "every image shows every category, so no prompt can be absent; set data.absent to 0"
        raise DataError(f"{folder.listing}: {text}", "spec")
    held = min(max(2, round(len(full) * data.val_share)), len(full) - 1)
    val, test, train = full[: held // 2], full[held // 2 : held], full[held:]
    return {"train": train + [each for each in images if not each.prompted], "val": val, "test": test}


def _rank(image: int) -> str:
    return hashlib.sha256(str(image).encode()).hexdigest()
