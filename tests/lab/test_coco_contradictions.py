"""Annotations whose parts contradict each other: other units, boxes and areas that belong to no such mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from tests.lab import coco_folder
from tests.lab.coco_folder import HEIGHT, WIDTH
from tests.lab.test_coco import ordered
from workers.protocol import Notice
from workers.trainer.data.coco.agreement import Agreement
from workers.trainer.data.coco.entries import Annotation as Listed
from workers.trainer.data.coco.entries import ImageEntry
from workers.trainer.data.coco.file import read
from workers.trainer.data.errors import Problems

Annotation = dict[str, Any]
Change = Callable[[Annotation], None]


def changed(root: Path, change: Change, some: slice = slice(None)) -> None:
    """A folder of 18 objects with their areas; `change` is done to some of them."""
    listing = coco_folder.write(root / "shapes")
    for annotation in listing["annotations"]:
        left, top, width, height = annotation["bbox"]
        annotation["area"] = width * height
        annotation["segmentation"] = [polygon(left, top, left + width, top + height)]
    for annotation in listing["annotations"][some]:
        change(annotation)
    coco_folder.save(root / "shapes", listing)


def polygon(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def scaled(across: float, down: float) -> Change:
    """Polygons, box and area, all in another unit."""

    def change(annotation: Annotation) -> None:
        (points,) = annotation["segmentation"]
        annotation["segmentation"] = [[x * (down if place % 2 else across) for place, x in enumerate(points)]]
        left, top, width, height = annotation["bbox"]
        annotation.update(bbox=[left * across, top * down, width * across, height * down])
        annotation["area"] *= across * down

    return change


def only(change: Change, *fields: str) -> Change:
    """Of what is changed, these fields alone."""

    def some(annotation: Annotation) -> None:
        whole = dict(annotation)
        change(whole)
        annotation.update({field: whole[field] for field in fields})

    return some


def corners(annotation: Annotation) -> None:
    """left, top, right, bottom."""
    left, top, width, height = annotation["bbox"]
    annotation["bbox"] = [left, top, min(left + width, WIDTH - left), min(top + height, HEIGHT - top)]


def holed(annotation: Annotation) -> None:
    """A tool that writes a hole as a second polygon, and the area without it."""
    left, top, width, height = annotation["bbox"]
    annotation["segmentation"].append(polygon(left + 3, top + 3, left + width - 3, top + height - 3))
    annotation["area"] -= (width - 6) * (height - 6)


FRACTIONS = scaled(1 / WIDTH, 1 / HEIGHT)
REFUSED: dict[str, tuple[Change, str]] = {
    "fractions": (FRACTIONS, "polygons of 18 of 18 objects are fractions of the image"),
    "fractions as polygons alone": (only(FRACTIONS, "segmentation"), "polygons of 18 of 18 objects are fractions"),
    "fractions as boxes alone": (only(FRACTIONS, "bbox"), "boxes (bbox) of 18 of 18 objects are fractions"),
    "fractions as areas alone": (only(FRACTIONS, "area"), "area of 18 of 18 objects contradicts the mask"),
    "polygons of half the size": (only(scaled(0.5, 0.5), "segmentation"), "(bbox) of 18 of 18 objects contradicts"),
    "boxes of half the size": (only(scaled(0.5, 0.5), "bbox"), "box (bbox) of 18 of 18 objects contradicts the mask"),
    "areas of half the size": (only(scaled(0.5, 0.5), "area"), "area of 18 of 18 objects contradicts the mask"),
    "x and y swapped in boxes": (
        lambda each: each.update(bbox=[each["bbox"][place] for place in (1, 0, 3, 2)]),
        "objects contradicts the mask",
    ),
    "holes as polygons": (holed, "area of 18 of 18 objects contradicts the mask"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_folder_in_another_unit_is_refused_by_name(root: Path, what: str) -> None:
    change, told = REFUSED[what]
    changed(root, change)
    failure = ordered("shapes", root)
    assert told in failure.message
    assert "annotation 10" in failure.message
    assert failure.reason == "error"


def test_fractions_are_told_with_what_to_do_and_with_what_else_is_wrong(root: Path) -> None:
    changed(root, FRACTIONS)
    (root / "shapes" / "images" / "003.png").unlink()
    message = ordered("shapes", root).message
    assert "2 problems" in message
    assert "multiply x by the image's width and y by its height" in message
    assert "003.png: there is no such file" in message


def told(root: Path) -> list[Notice]:
    return [notice for notice in read("shapes").notices if notice.kind == "contradicts"]


@pytest.mark.parametrize("what", ["fractions", "boxes of half the size", "areas of half the size"])
def test_single_objects_that_contradict_themselves_are_counted_and_named(root: Path, what: str) -> None:
    changed(root, REFUSED[what][0], slice(4, 5))
    (notice,) = told(root)
    assert "1 of 18 objects" in notice.text
    (item,) = notice.items
    assert item.startswith("003.png: annotation 104: ")


@pytest.mark.parametrize("some", [slice(4, 5), slice(None)])
def test_polygons_meant_as_holes_are_told_where_the_area_is_silent(root: Path, some: slice) -> None:
    changed(root, only(holed, "segmentation"), some)
    (notice,) = told(root)
    assert f"polygons of {len(range(18)[some])} of 18 objects lie one inside the other" in notice.text
    assert "003.png: annotation 104: polygon 2 lies inside polygon 1" in notice.items


def test_polygons_meant_as_holes_are_told_with_the_area_that_leaves_them_out(root: Path) -> None:
    changed(root, holed, slice(4, 5))
    area, nested = told(root)
    assert area.items == ["003.png: annotation 104: the area is 168, that of the mask 288"]
    assert nested.items == ["003.png: annotation 104: polygon 2 lies inside polygon 1"]


def test_boxes_as_corners_are_refused_where_most_of_a_folder_has_them(root: Path) -> None:
    changed(root, corners)
    assert "objects contradicts the mask" in ordered("shapes", root).message


def nulls(annotation: Annotation) -> None:
    annotation.update(bbox=None, area=None, iscrowd=None)


def inclusive(annotation: Annotation) -> None:
    """Tools that count the last pixel as the edge."""
    left, top, width, height = annotation["bbox"]
    annotation.update(bbox=[left, top, width - 1, height - 1], area=(width - 1) * (height - 1))


def rounded(annotation: Annotation) -> None:
    left, top, width, height = annotation["bbox"]
    annotation["bbox"] = [left - 0.5, top + 0.5, width + 1, height - 1]


def box_area(annotation: Annotation) -> None:
    """A triangle, with the area of its box, as Roboflow and others export it."""
    left, top, width, height = annotation["bbox"]
    annotation["segmentation"] = [[left, top, left + width, top, left, top + height]]


def one_based(annotation: Annotation) -> None:
    left, top, width, height = annotation["bbox"]
    annotation["bbox"] = [left + 1, top + 1, width, height]


KEPT: dict[str, Change] = {
    "no box, area or crowd": nulls,
    "no fields at all": lambda each: [each.pop(name) for name in ("bbox", "area", "iscrowd")] and None,
    "empty box": lambda each: each.update(bbox=[]),
    "a box of nulls": lambda each: each.update(bbox=[None] * 4),
    "a box and an area of zeros": lambda each: each.update(bbox=[0, 0, 0, 0], area=0),
    "the last pixel as the edge": inclusive,
    "half a pixel": rounded,
    "counted from one": one_based,
    "area of the box": box_area,
    "area of the image": lambda each: each.update(area=WIDTH * HEIGHT),
    "area as text": lambda each: each.update(area=str(each["area"])),
    "area of the polygons, a part in two": lambda each: each["segmentation"].append(each["segmentation"][0]),
    "a mask among nulls": lambda each: each["segmentation"].append(None),
}


@pytest.mark.parametrize("what", KEPT)
def test_what_tools_write_of_a_right_mask_is_read_without_a_word(root: Path, what: str) -> None:
    changed(root, KEPT[what])
    folder = read("shapes")
    assert folder.notices == ()
    assert len(folder.annotations) == 18
    assert not any(each.iscrowd for each in folder.annotations)


@pytest.mark.parametrize("value", [None, 0, "0", False, 0.0])
def test_a_crowd_that_is_null_is_none(root: Path, value: object) -> None:
    changed(root, lambda each: each.update(iscrowd=value))
    assert not any(each.iscrowd for each in read("shapes").annotations)


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_masks_that_keep_to_the_upper_left_are_told_for_a_smaller_copy_looks_so(root: Path, share: float) -> None:
    changed(root, scaled(share, share))
    (notice,) = told(root)
    assert "all 18 masks lie in the upper left" in notice.text
    assert "smaller copy" in notice.text


def star(rng: np.random.Generator) -> list[float]:
    """A polygon with corners at random distances from a centre, inside of 400 × 300 pixels."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 40)))
    reach = rng.uniform(0.3, 1, len(angles)) * rng.choice([3, 10, 60, 140])
    x, y = 200 + reach * np.cos(angles), 150 + reach * np.sin(angles)
    return np.stack([x, y], -1).ravel().tolist()  # type: ignore[no-any-return]


def test_no_rounding_of_a_tool_contradicts_its_masks() -> None:
    """Boxes of corners and of pixels, areas of three kinds, each exact, rounded down, to the nearest or up."""
    rng, image = np.random.default_rng(0), ImageEntry(id=0, file_name="0.png", width=400, height=300)
    agreement = Agreement({0: image})
    for number in range(400):
        points = star(rng)
        x, y = np.array(points).reshape(-1, 2).T
        packed = rle.merge(rle.frPyObjects([points], 300, 400))
        corners = [x.min(), y.min(), np.ptp(x), np.ptp(y)]
        box = corners if number % 2 or not rle.area(packed) else rle.toBbox(packed)
        shoelace = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        area = [float(rle.area(packed)), shoelace, box[2] * box[3]][number % 3]
        rounded = (np.array, np.floor, np.rint, np.ceil)[number % 4]
        listed = {"bbox": rounded(box).tolist(), "area": float(rounded(area))}
        shape = {"segmentation": [np.rint(points).tolist() if number % 5 == 0 else points]}
        agreement.check(Listed(id=number, image_id=0, category_id=1, **shape, **listed))
    problems = Problems("0.json")
    assert agreement.end(problems) == []
    problems.end()
