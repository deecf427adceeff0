"""A folder in COCO's format as prompted samples: each category that an image shows is asked for once.

Deterministic by (split, index). An image belongs to one split, by its id alone. A category is not asked for where it
is marked as a crowd, or where one of its things has no mask: neither is it absent there. What that leaves out is
counted.
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
from workers.trainer.data.images import reader as images
from workers.trainer.data.images.lexicon import LENGTH, Lexicon
from workers.trainer.data.images.samples import Sample, Samples
from workers.trainer.data.notices import counted, notice

FEWEST = 3  # images that show something to ask for: one a split
SEEDS = {"train": 11, "val": 12, "test": 13}  # of the draws of absent prompts


@dataclass(frozen=True)
class Seen:
    """What an image shows, by category, and what it does not."""

    image: int
    asked: dict[int, list[Annotation]]  # what a prompt may ask for
    absent: list[int]
    crowds: dict[int, list[Annotation]]  # what no prompt asks for: part of it is a crowd,
    maskless: dict[int, list[Annotation]]  # or has no mask


@dataclass(frozen=True)
class Question:
    seen: Seen
    category: int

    @property
    def asked(self) -> list[Annotation]:
        """What the category names in the image; nothing where the prompt is absent."""
        return self.seen.asked.get(self.category, [])


@dataclass(frozen=True)
class CocoSplits:
    train: Samples
    val: Samples
    test: Samples
    lexicon: Lexicon
    notices: tuple[Notice, ...]


def load(data: CocoData, queries: int | None = None) -> CocoSplits:
    """Half of the held-out images are for validation, half for the last score. `queries` is how many things the model
    can find at once, of which a notice tells. Raises DataError that names the file."""
    folder = read(data.path)
    lexicon, everything = lexicon_of(folder), seen(folder)
    parts = _parts(folder, everything, data)
    made = {
        split: _samples(Maker(folder, lexicon, data.canvas), ask(part, data.absent, SEEDS[split]))
        for split, part in parts.items()
    }
    notices = (*folder.notices, *left_out(folder, everything, data.absent), *crowded(folder, everything, queries))
    return CocoSplits(made["train"], made["val"], made["test"], lexicon, notices)


def lexicon_of(folder: Folder) -> Lexicon:
    """The words of the folder's category names, in the order of Unicode, whatever their order in the file."""
    words = sorted({word for name in folder.categories.values() for word in name.lower().split()})
    lexicon, known = Lexicon(("<pad>", "<unknown>", *words)), dict[tuple[int, ...], int]()
    for category, name in folder.categories.items():
        if not name.split():
            raise DataError(f"{folder.listing}: a category has an empty name")
        same = known.setdefault(tuple(lexicon.encode(name)), category)
        if same != category:
            raise DataError(
                f"{folder.listing}: the categories {same} and {category} ({name}) are one prompt "
                f"(its first {LENGTH} words count)"
            )
    return lexicon


def seen(folder: Folder) -> list[Seen]:
    """Every image, in the order of ids."""
    there: dict[int, dict[int, list[Annotation]]] = {image: {} for image in sorted(folder.images)}
    for annotation in folder.annotations:
        there[annotation.image_id].setdefault(annotation.category_id, []).append(annotation)
    return [_seen(image, found, folder.categories) for image, found in there.items()]


def _seen(image: int, found: dict[int, list[Annotation]], categories: dict[int, str]) -> Seen:
    ordered = {category: found[category] for category in sorted(found)}
    crowds = {category: own for category, own in ordered.items() if any(each.iscrowd for each in own)}
    maskless = {
        category: own
        for category, own in ordered.items()
        if category not in crowds and not all(each.masked for each in own)
    }
    asked = {category: own for category, own in ordered.items() if category not in crowds and category not in maskless}
    return Seen(image, asked, [category for category in categories if category not in found], crowds, maskless)


def left_out(folder: Folder, everything: list[Seen], absent: float) -> list[Notice]:
    """What no prompt asks for, and why."""
    found: list[Notice] = []
    for field, why in (("crowds", "one of them is marked as a crowd"), ("maskless", "one of them has no mask")):
        groups = [(each.image, own) for each in everything for own in getattr(each, field).values()]
        text = (
            f"{sum(len(own) for _, own in groups)} of {counted(len(folder.annotations), 'annotation')} left out, in "
            f"{counted(len(groups), 'pair')} of an image and a category that no prompt asks for: {why}"
        )
        found += notice("left_out", text, [_pair(folder, image, own) for image, own in groups])
    unseen = [folder.images[each.image].file_name for each in everything if not each.asked] if not absent else []
    text = f"{len(unseen)} of {counted(len(everything), 'image')} left out: nothing to ask for, and data.absent is 0"
    return found + notice("left_out", text, unseen)


def crowded(folder: Folder, everything: list[Seen], queries: int | None) -> list[Notice]:
    """Where a prompt names more things than the model has queries."""
    pairs = [
        (each.image, own) for each in everything for own in each.asked.values() if len(own) > (queries or len(own))
    ]
    over, most = sum(len(own) - (queries or 0) for _, own in pairs), max((len(own) for _, own in pairs), default=0)
    text = (
        f"{counted(len(pairs), 'prompt')} with more objects than the model has queries ({queries}): a training step "
        f"matches at most {queries} of them and leaves {counted(over, 'object')} without; scores count all. "
        f"With model.queries = {most} every object can be matched"
    )
    return notice("left_out", text, [_pair(folder, image, own) for image, own in pairs])


def _pair(folder: Folder, image: int, own: list[Annotation]) -> str:
    return (
        f"{folder.images[image].file_name}: {folder.categories[own[0].category_id]}, {counted(len(own), 'annotation')}"
    )


def ask(part: list[Seen], absent: float, seed: int) -> list[Question]:
    """What is there, each once, and as many absent prompts that they are the share `absent` of all, mixed."""
    rng = np.random.default_rng(seed)
    questions = [Question(each, category) for each in part for category in each.asked]
    empty = [each for each in part if each.absent]
    for _ in range(round(len(questions) * absent / (1 - absent)) if empty else 0):
        each = empty[rng.integers(len(empty))]
        questions.append(Question(each, each.absent[rng.integers(len(each.absent))]))
    return [questions[place] for place in rng.permutation(len(questions))]


@dataclass(frozen=True)
class Maker:
    """Makes the sample of a question."""

    folder: Folder
    lexicon: Lexicon
    side: int

    def sample(self, question: Question) -> Sample:
        seen, names = question.seen, self.folder.categories
        asked = question.asked
        masks = self._masks(seen.image, asked)
        others = [category for category in seen.asked if category != question.category] if asked else []
        return Sample(
            self._image(seen.image),
            _labels(masks),
            tuple(range(1, len(masks) + 1)),
            names[question.category],
            names[others[0]] if others else "",
            category=question.category,
            lexicon=self.lexicon,
            packed=np.packbits(masks.reshape(len(masks), self.side**2), axis=1),
        )

    def _masks(self, image: int, asked: Iterable[Annotation]) -> NDArray[np.bool_]:
        """things, side, side: the largest first."""
        entry = self.folder.images[image]
        masks = [coco_masks.shrunk(coco_masks.decode(each, entry), self.side) for each in asked]
        ordered = sorted(masks, key=lambda mask: -int(mask.sum()))
        return np.array(ordered, np.bool_).reshape(len(ordered), self.side, self.side)

    def _image(self, image: int) -> NDArray[np.uint8]:
        entry = self.folder.images[image]
        told = f"{self.folder.name}/{coco_layout.IMAGES}/{entry.file_name}"
        try:
            pixels = images.rgb(self.folder.files[image], self.folder.float_top)
        except images.ImageProblem as error:
            raise DataError(f"{told}: {error}") from None
        if (hashed := self.folder.hashed.get(entry.file_name)) and not hashed.unchanged():
            raise DataError(f"{told}: it is not the file any more that this attempt began with; put the former back")
        if pixels.shape[:2] != (entry.height, entry.width):
            raise DataError(f"{told}: decoded it has {pixels.shape[1]} × {pixels.shape[0]} pixels, not those listed")
        whole = Image.fromarray(pixels).resize((self.side, self.side), Image.Resampling.BILINEAR)
        return np.asarray(whole)


def _labels(masks: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Number of the thing seen at each pixel: where things of one category overlap, the smaller."""
    labels = np.zeros(masks.shape[1:], np.uint16)
    for label, mask in enumerate(masks, 1):
        labels[mask] = label
    return labels


def _samples(maker: Maker, questions: list[Question]) -> Samples:
    return Samples(
        lambda index: maker.sample(questions[index]), len(questions), lambda index: len(questions[index].asked)
    )


def _parts(folder: Folder, images: list[Seen], data: CocoData) -> dict[str, list[Seen]]:
    """Images that show nothing to ask for go to training, where absent prompts may ask for them."""
    full = sorted((each for each in images if each.asked), key=lambda each: _rank(each.image))
    if len(full) < FEWEST:
        raise DataError(
            f"{folder.listing}: {len(full)} images show something that a prompt can ask for, and {FEWEST} are needed"
        )
    if data.absent and not any(each.absent for each in images):
        raise DataError(f"{folder.listing}: every image shows every category; set data.absent to 0", "spec")
    held = min(max(2, round(len(full) * data.val_share)), len(full) - 1)
    val, test, train = full[: held // 2], full[held // 2 : held], full[held:]
    return {"train": train + [each for each in images if not each.asked], "val": val, "test": test}


def _rank(image: int) -> str:
    return hashlib.sha256(str(image).encode()).hexdigest()
