"""A folder in COCO's format: read, and held against its images before a run trains on it.

Whatever is wrong with it is told in one report. What can be read in one way only is read; what that leaves out of the
training, or changes, stands in `notices`.
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
    """A folder whose every entry points at something that is there."""

    name: str  # the folder of the images, below the root
    listing: str  # the annotations file
    files: dict[int, Path]  # by image id
    images: dict[int, ImageEntry]
    annotations: tuple[Annotation, ...]  # by id
    categories: dict[int, str]  # by id, in order
    float_top: float | None  # what is white in floating-point images
    notices: tuple[Notice, ...]
    hashed: dict[str, digest.Hashed]  # by file name; images are opened again whenever one is shown


def read(name: str) -> Folder:
    """Raises DataError that names the file: outside the root, missing, not JSON, or at odds with itself."""
    root = data_root(name)
    folder, told = listing_of(root, name)
    problems = Problems(told)
    listing = _listing(below_root(root, told), problems)
    if not listing.annotations:
        raise DataError(f"{told}: it has no annotations")
    _once(problems, listing)
    images = {image.id: image for image in listing.images}
    agreement = Agreement(images)
    over = _annotations(problems, listing, images, agreement)
    contradictions = agreement.end(problems)
    pictures = Pictures(root, folder, told, problems)
    pictures.look(images)
    categories, unused = _categories(listing)
    if not any(annotation.masked for annotation in listing.annotations):
        problems.add(f"{told}: no annotation has a mask: the task finds masks, and boxes alone do not give them")
    problems.end()
    hashed = _read_images(folder, {image.file_name: pictures.files[image.id] for image in listing.images})
    kept = sorted(listing.annotations, key=lambda each: each.id)
    found = [*pictures.notices(), *_clipped(over, images), *contradictions, *unused]
    return Folder(
        folder, told, pictures.files, images, tuple(kept), categories, pictures.scales.float_top, tuple(found), hashed
    )


def _listing(file: Path, problems: Problems) -> Listing:
    """What is read although it is at fault is added to the problems."""
    told = problems.about
    try:
        if file.stat().st_size > LARGEST:
            raise DataError(f"{told}: larger than {LARGEST // 2**20} MiB")
        content = file.read_bytes()
        digest.read(told, content)
        text = decoded(content)
        _named_once(problems, text)
        return Listing.model_validate_json(text)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False, include_context=False):
            at = ".".join(map(str, each["loc"]))
            problems.add(f"{told}: {at + ': ' if at else ''}{each['msg']}")
        problems.end()
        raise
    except OSError as error:
        raise DataError(f"{told}: cannot be read ({error.strerror})") from None
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{told}: {error}") from None


def _named_once(problems: Problems, text: str) -> None:
    """Of two equal names the parser would take one value, and drop the other."""
    try:
        for place in duplicate_names(text):
            at = ".".join(map(str, place))
            problems.add(f"{problems.about}: {at}: duplicate name in the same object; keep one of them")
    except (ValueError, RecursionError):
        return  # not JSON, or nested too deeply: the parser says so


def _read_images(folder: str, files: dict[str, Path]) -> dict[str, digest.Hashed]:
    try:
        return digest.read_files(f"{folder}/{IMAGES}", files.items())
    except OSError as error:
        raise DataError(f"{folder}/{IMAGES}: an image cannot be read ({error})") from None


def _once(problems: Problems, listing: Listing) -> None:
    for kind, entries in (
        ("images", listing.images),
        ("annotations", listing.annotations),
        ("categories", listing.categories),
    ):
        for number, count in Counter(entry.id for entry in entries).items():
            if count > 1:
                problems.add(f"{problems.about}: {kind}: id {number} stands there {count} times")


def _annotations(
    problems: Problems, listing: Listing, images: dict[int, ImageEntry], agreement: Agreement
) -> list[tuple[Annotation, float]]:
    """Checks each; returns those that reach over the edge of their image, and by how many pixels."""
    categories = {category.id for category in listing.categories}
    over: list[tuple[Annotation, float]] = []
    for annotation in listing.annotations:
        about = f"{problems.about}: annotation {annotation.id}"
        if annotation.category_id not in categories:
            problems.add(f"{about}: category_id {annotation.category_id} is not listed")
        if (image := images.get(annotation.image_id)) is None:
            problems.add(f"{about}: image_id {annotation.image_id} is not listed")
            continue
        try:
            reach = coco_masks.check(annotation, image)
        except ValueError as error:
            problems.add(f"{about}: {error}")
            continue
        agreement.look(annotation)
        if reach > coco_masks.SLACK:
            over.append((annotation, reach))
    return over


def _clipped(over: list[tuple[Annotation, float]], images: dict[int, ImageEntry]) -> list[Notice]:
    farthest = max((reach for _, reach in over), default=0.0)
    text = (
        f"{counted(len(over), 'annotation')} over the edge of the image by up to {farthest:.3g} pixels: "
        "what lies outside is cut off"
    )
    items = [f"{images[each.image_id].file_name}: annotation {each.id}, {reach:.3g} pixels" for each, reach in over]
    return notice("clipped", text, items)


def _categories(listing: Listing) -> tuple[dict[int, str], list[Notice]]:
    """Names by id. A category without annotations is never a prompt where its things may well be seen: it shares its
    name with another one, or is what another one calls its supercategory, as exports of Roboflow have it."""
    used = {annotation.category_id for annotation in listing.annotations}
    found = sorted(listing.categories, key=lambda each: each.id)
    left_out = [each for each in found if each.id not in used and _shadowed(each, found)]
    text = (
        f"Left out as prompts, {len(left_out)} of {len(found)} categories: they have no annotations, and another one "
        "has the same name or calls it its supercategory, so images may show such things without saying so"
    )
    names = {each.id: each.name for each in found if each not in left_out}
    return names, notice("left_out", text, [f"category {each.id}: {each.name}" for each in left_out])


def _shadowed(category: Category, all_of_them: list[Category]) -> bool:
    words = category.name.lower().split()
    others = [each for each in all_of_them if each.id != category.id]
    return any(words in (each.name.lower().split(), (each.supercategory or "").lower().split()) for each in others)
