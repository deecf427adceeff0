"""A folder in COCO's format as prompted samples: each category that an image shows is asked for once.

Deterministic by (split, index). An image belongs to one split, by its id alone. A category is not asked for where it
is marked as a crowd, or where more things of it are seen than a prompt can name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from experiments.spec import CocoData
from workers.trainer.data import coco_masks
from workers.trainer.data.coco_file import FILE, Annotation, Folder, read
from workers.trainer.data.errors import DataError
from workers.trainer.data.samples import MAX_TARGETS, Sample, Samples
from workers.trainer.data.words import LENGTH, Lexicon

FEWEST = 3  # images that show something to ask for: one a split
SEEDS = {"train": 11, "val": 12, "test": 13}  # of the draws of absent prompts


@dataclass(frozen=True)
class Seen:
    """What an image shows, by category, and what it does not."""

    image: int
    asked: dict[int, list[Annotation]]  # what a prompt may ask for
    absent: list[int]


@dataclass(frozen=True)
class Question:
    seen: Seen
    category: int


@dataclass(frozen=True)
class CocoSplits:
    train: Samples
    val: Samples
    test: Samples
    lexicon: Lexicon


def load(data: CocoData) -> CocoSplits:
    """Half of the held-out images are for validation, half for the last score. Raises DataError that names the file."""
    folder = read(data.path)
    for annotation in folder.annotations:
        try:
            coco_masks.check(annotation, folder.images[annotation.image_id])
        except ValueError as error:
            raise DataError(f"{folder.listing}: annotation {annotation.id}: {error}") from None
    lexicon = lexicon_of(folder)
    parts = _parts(folder, seen(folder), data)
    made = {
        split: _samples(Maker(folder, lexicon, data.canvas), ask(part, data.absent, SEEDS[split]))
        for split, part in parts.items()
    }
    return CocoSplits(made["train"], made["val"], made["test"], lexicon)


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
    return [
        Seen(
            image,
            {category: found[category] for category in sorted(found) if _askable(found[category])},
            [category for category in folder.categories if category not in found],
        )
        for image, found in there.items()
    ]


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
        asked = seen.asked.get(question.category, [])
        labels, hits = self._labels(seen.image, asked)
        others = [category for category in seen.asked if category != question.category] if asked else []
        return Sample(
            self._image(seen.image),
            labels,
            hits,
            names[question.category],
            names[others[0]] if others else "",
            category=question.category,
            lexicon=self.lexicon,
        )

    def _labels(self, image: int, asked: Iterable[Annotation]) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
        """Where things of one category overlap, the smaller is seen."""
        masks = [coco_masks.shrunk(coco_masks.decode(each, self.folder.images[image]), self.side) for each in asked]
        labels = np.zeros((self.side, self.side), np.uint8)
        for label, mask in enumerate(sorted(masks, key=lambda mask: -int(mask.sum())), 1):
            labels[mask] = label
        return labels, tuple(int(label) for label in np.unique(labels) if label)

    def _image(self, image: int) -> NDArray[np.uint8]:
        name = f"{self.folder.name}/images/{self.folder.images[image].file_name}"
        try:
            with Image.open(self.folder.files[image]) as opened:
                whole = opened.convert("RGB").resize((self.side, self.side), Image.Resampling.BILINEAR)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{name}: cannot be decoded ({error})") from None
        return np.asarray(whole)


def _askable(found: list[Annotation]) -> bool:
    return len(found) <= MAX_TARGETS and not any(annotation.iscrowd for annotation in found)


def _samples(maker: Maker, questions: list[Question]) -> Samples:
    return Samples(lambda index: maker.sample(questions[index]), len(questions))


def _parts(folder: Folder, images: list[Seen], data: CocoData) -> dict[str, list[Seen]]:
    """Images that show nothing to ask for go to training, where absent prompts may ask for them."""
    full = sorted((each for each in images if each.asked), key=lambda each: _rank(each.image))
    if len(full) < FEWEST:
        raise DataError(
            f"{folder.listing}: {len(full)} images show something that a prompt can ask for, and {FEWEST} are needed"
        )
    if data.absent and not any(each.absent for each in images):
        raise DataError(f"{folder.name}: every image shows every category of {FILE}; set data.absent to 0", "spec")
    held = min(max(2, round(len(full) * data.val_share)), len(full) - 1)
    val, test, train = full[: held // 2], full[held // 2 : held], full[held:]
    return {"train": train + [each for each in images if not each.asked], "val": val, "test": test}


def _rank(image: int) -> str:
    return hashlib.sha256(str(image).encode()).hexdigest()
