"""Reads a folder in COCO's format and checks it against its images before a run trains on it.

One report names everything that is wrong. `notices` say what training leaves out or changes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from experiments.spec.json_names import duplicate_names
from workers.protocol import Notice
from workers.trainer.data import digest
from workers.trainer.data.coco import masks as coco_masks
from workers.trainer.data.coco.agreement import Agreement
from workers.trainer.data.coco.entries import Annotation, Category, ImageEntry, Listing
from workers.trainer.data.coco.images import Pictures
from workers.trainer.data.coco.layout import IMAGES, listing_of
from workers.trainer.data.decoding import decoded
from workers.trainer.data.errors import DataError, Problems
from workers.trainer.data.notices import counted, notice
from workers.trainer.data.roots import below_root, data_root

LARGEST = 2**30  # bytes of the annotations file


@dataclass(frozen=True)
class Folder:
    """A folder in which every reference is valid."""

    name: str  # the folder of the images, below the root
    listing: str  # the annotations file
    files: dict[int, Path]  # by image id
    images: dict[int, ImageEntry]
    annotations: tuple[Annotation, ...]  # by id
    categories: dict[int, str]  # by id, in order
    float_top: float | None  # white in floating-point images
    notices: tuple[Notice, ...]
    hashed: dict[str, digest.Hashed]  # by file name; images are opened again whenever they are needed


def read(name: str) -> Folder:
    """Raises DataError that names the file: outside the root, missing, not JSON, or contradictory."""
    root = data_root(name)
    folder, path = listing_of(root, name)
    problems = Problems(path)
    listing = _listing(below_root(root, path), problems)
    if not listing.annotations:
        raise DataError(f"{path}: it has no annotations; the task needs masks to train on")
    _check_ids(problems, listing)
    images = {image.id: image for image in listing.images}
    agreement = Agreement(images)
    over = _annotations(problems, listing, images, agreement)
    contradictions = agreement.end(problems)
    pictures = Pictures(root, folder, path, problems)
    pictures.check(images)
    categories, unused = _categories(listing)
    if not any(annotation.masked for annotation in listing.annotations):
        problems.add(f"{path}: no annotation has a mask; add polygons or run lengths, since boxes alone are not enough")
    problems.end()
    hashed = _read_images(folder, {image.file_name: pictures.files[image.id] for image in listing.images})
    return Folder(
        name=folder,
        listing=path,
        files=pictures.files,
        images=images,
        annotations=tuple(sorted(listing.annotations, key=lambda annotation: annotation.id)),
        categories=categories,
        float_top=pictures.scales.float_top,
        notices=(*pictures.notices(), *_clipped(over, images), *contradictions, *unused),
        hashed=hashed,
    )


def _listing(file: Path, problems: Problems) -> Listing:
    """Adds errors that do not prevent reading to the problems."""
    path = problems.about
    try:
        if file.stat().st_size > LARGEST:
            raise DataError(f"{path}: the file is larger than {LARGEST // 2**20} MiB; use a smaller one")
        content = file.read_bytes()
        digest.read(path, content)
        text = decoded(content)
        _check_names(problems, text)
        return Listing.model_validate_json(text)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False, include_context=False):
            where = [".".join(map(str, detail["loc"]))] if detail["loc"] else []
            problems.add(": ".join([path, *where, detail["msg"]]))
        problems.end()
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def _check_names(problems: Problems, text: str) -> None:
    """Of two equal names in an object, the parser would silently drop one."""
    try:
        for place in duplicate_names(text):
            name = ".".join(map(str, place))
            problems.add(f"{problems.about}: {name}: duplicate name in the same object; keep one of them")
    except (ValueError, RecursionError):
        return  # not JSON, or nested too deeply: the parser says so


def _read_images(folder: str, files: dict[str, Path]) -> dict[str, digest.Hashed]:
    try:
        return digest.read_files(f"{folder}/{IMAGES}", files.items())
    except OSError as error:
        raise DataError(f"{folder}/{IMAGES}: an image cannot be read ({error}); check its permissions") from None


def _check_ids(problems: Problems, listing: Listing) -> None:
    for kind, entries in (
        ("images", listing.images),
        ("annotations", listing.annotations),
        ("categories", listing.categories),
    ):
        for number, count in Counter(entry.id for entry in entries).items():
            if count > 1:
                problems.add(
                    f"{problems.about}: {kind}: id {number} is used {count} times; give each of them its own id"
                )


def _annotations(
    problems: Problems, listing: Listing, images: dict[int, ImageEntry], agreement: Agreement
) -> list[tuple[Annotation, float]]:
    """Checks each; returns those that reach over the edge of their image, with the number of pixels."""
    categories = {category.id for category in listing.categories}
    over: list[tuple[Annotation, float]] = []
    for annotation in listing.annotations:
        about = f"{problems.about}: annotation {annotation.id}"
        if annotation.category_id not in categories:
            problems.add(f"{about}: category_id {annotation.category_id} is not listed under categories")
        if (image := images.get(annotation.image_id)) is None:
            problems.add(f"{about}: image_id {annotation.image_id} is not listed under images")
            continue
        try:
            reach = coco_masks.check(annotation, image)
        except ValueError as error:
            problems.add(f"{about}: {error}")
            continue
        agreement.check(annotation)
        if reach > coco_masks.SLACK:
            over.append((annotation, reach))
    return over


def _clipped(over: list[tuple[Annotation, float]], images: dict[int, ImageEntry]) -> list[Notice]:
    farthest = max((reach for _, reach in over), default=0.0)
    text = (
        f"{counted(len(over), 'annotation')} over the edge of the image by up to {farthest:.3g} pixels: "
        "the part outside is cut off"
    )
    named = [f"{images[each.image_id].file_name}: annotation {each.id}, {reach:.3g} pixels" for each, reach in over]
    return notice("clipped", text, named)


def _categories(listing: Listing) -> tuple[dict[int, str], list[Notice]]:
    """Names by id. A category without annotations is no prompt if images may show its things unlabelled: it shares
    its name with another one, or is another one's supercategory, as in exports of Roboflow."""
    used = {annotation.category_id for annotation in listing.annotations}
    ordered = sorted(listing.categories, key=lambda category: category.id)
    left_out = [category for category in ordered if category.id not in used and _shadowed(category, ordered)]
    text = (
        f"{len(left_out)} of {len(ordered)} categories are not used as prompts: they have no annotations, and another "
        "one has the same name or names them as its supercategory, so images may show such things unlabelled"
    )
    names = {category.id: category.name for category in ordered if category not in left_out}
    return names, notice("left_out", text, [f"category {category.id}: {category.name}" for category in left_out])


def _shadowed(category: Category, categories: list[Category]) -> bool:
    words = category.name.lower().split()
    others = [other for other in categories if other.id != category.id]
    names = [name for other in others for name in (other.name, other.supercategory or "")]
    return words in [name.lower().split() for name in names]
