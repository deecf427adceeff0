"""Whether a folder's annotations are in pixels of their images: each listed box and area is held against its mask.

Training uses the masks alone, so masks in another unit would show nowhere else. Tools write boxes and areas in several
ways, and all of these agree with a mask:
- a box that is rounded, counts pixels from one, or ends at the last pixel instead of after it;
- a box that a person drew around a mask that a model made: up to SIDE_SHARE of a side away;
- an area of the mask, of the polygons' corners, or of the box (Roboflow, labelme2coco);
- an area of the whole image or 0, a box of zeros: placeholders.
Where most of a folder contradicts, it is refused; a few objects are counted in a notice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from workers.protocol import Notice
from workers.trainer.data import coco_masks
from workers.trainer.data.coco_entries import Annotation, ImageEntry, Rle
from workers.trainer.data.errors import Problems
from workers.trainer.data.notices import notice

SIDE, SIDE_SHARE = 2.0, 0.1  # pixels, or share of a box's side, that its edges may lie apart
AREA_SHARE = 0.1  # that areas may differ by, besides half a pixel along each side of the box
FRACTION = 1.5  # coordinates up to here are fractions of the image
SMALLEST = 4  # pixels of an image's side; in a smaller image, fractions and pixels look alike
FEWEST = 3  # contradictions that a folder is refused for
MOST = {"fractions": 0.1, "contradicts": 0.5}  # share of a folder's objects above which it is refused
CORNER, CORNER_FEWEST = 0.5, 12  # share of the image's sides within which that many masks do not lie by chance
NAMED = 3  # objects that a refusal names

Edges = NDArray[np.float64]  # left, top, right, bottom


@dataclass(frozen=True)
class Finding:
    """What one field of one annotation has wrong."""

    annotation: Annotation
    told: str


@dataclass(frozen=True)
class Kind:
    """A field that can be wrong, and how."""

    field: str
    how: str  # a key of MOST
    text: str
    advice: str


POLYGONS_APART = Kind(
    "polygons",
    "fractions",
    "are fractions of the image, from 0 to 1, and not pixels",
    "multiply x by the image's width and y by its height",
)
BOX_APART = Kind("boxes (bbox)", "fractions", POLYGONS_APART.text, POLYGONS_APART.advice)
BOX = Kind(
    "box (bbox)",
    "contradicts",
    f"contradicts the mask, by more than {SIDE:g} pixels and {SIDE_SHARE:.0%} of a side",
    "a box is left, top, width, height in pixels; correct the masks or the boxes",
)
AREA = Kind(
    "area",
    "contradicts",
    f"contradicts the mask, by more than {AREA_SHARE:.0%} and half a pixel along each side",
    "an area counts the mask's pixels, or those of its box; correct the masks or the areas. A polygon inside another "
    "is no hole in COCO's format: masks with holes need run lengths",
)


class Agreement:
    """Collects what `look` finds; `end` adds a problem for each kind that most objects have, else a notice."""

    def __init__(self, images: Mapping[int, ImageEntry]) -> None:
        self._images = images
        self._looked = dict.fromkeys((POLYGONS_APART, BOX_APART, BOX, AREA), 0)
        self._found: dict[Kind, list[Finding]] = {kind: [] for kind in self._looked}
        self._farthest: list[Edges] = []  # right, bottom: as shares of the image's sides

    def look(self, annotation: Annotation) -> None:
        """An annotation that `coco_masks.check` has passed."""
        image = self._images[annotation.image_id]
        if self._is_fraction(POLYGONS_APART, annotation, image, _points(annotation)):
            return
        box_apart = self._is_fraction(BOX_APART, annotation, image, _box_values(annotation))
        if not annotation.masked or annotation.iscrowd:  # neither is trained on
            return
        masks = _mask_edges(annotation, image)
        self._farthest.append(np.max([edges[2:] for edges in masks], 0) / (image.width, image.height))
        if not box_apart and (box := _listed(annotation)) is not None:
            self._add(BOX, annotation, _box_contradiction(box, masks, image))
        if annotation.area and annotation.area != image.width * image.height:
            self._add(AREA, annotation, _area_contradiction(annotation, image, masks[0]))

    def end(self, problems: Problems) -> list[Notice]:
        notices: list[Notice] = []
        for kind, found in self._found.items():
            looked = self._looked[kind]
            text = f"{kind.field} of {len(found)} of {looked} objects {kind.text}"
            if len(found) >= FEWEST and len(found) > MOST[kind.how] * looked:
                first = "; ".join(f"annotation {each.annotation.id}: {each.told}" for each in found[:NAMED])
                problems.add(f"{problems.about}: {text} ({first}). To mend it: {kind.advice}")
                continue
            items = [self._item(each) for each in found]
            notices += notice("contradicts", f"{text}; masks are used as they are. To mend it: {kind.advice}", items)
        return [*notices, *self._corner()]

    def _add(self, kind: Kind, annotation: Annotation, told: str) -> None:
        self._looked[kind] += 1
        if told:
            self._found[kind].append(Finding(annotation, told))

    def _is_fraction(self, kind: Kind, annotation: Annotation, image: ImageEntry, values: Sequence[float]) -> bool:
        if not any(values) or min(image.width, image.height) <= SMALLEST:
            return False
        fractions = min(values) >= 0 and max(values) <= FRACTION
        told = f"from {min(values):.3g} to {max(values):.3g}, in an image of {image.width} × {image.height} pixels"
        self._add(kind, annotation, told if fractions else "")
        return fractions

    def _corner(self) -> list[Notice]:
        across, down = np.max(self._farthest, 0) if self._farthest else (1.0, 1.0)
        if len(self._farthest) < CORNER_FEWEST or max(across, down) > CORNER:
            return []
        where = f"all {len(self._farthest)} masks lie in the upper left {across:.0%} × {down:.0%} of their images"
        text = f"{where}, as they do where coordinates are percentages, or belong to a smaller copy of the images"
        return notice("contradicts", text, [each.file_name for each in self._images.values()])

    def _item(self, finding: Finding) -> str:
        name = self._images[finding.annotation.image_id].file_name
        return f"{name}: annotation {finding.annotation.id}: {finding.told}"


def _points(annotation: Annotation) -> list[float]:
    """Every coordinate of the polygons."""
    shape = annotation.segmentation
    return [] if isinstance(shape, Rle) else [value for polygon in shape for value in polygon]


def _box_values(annotation: Annotation) -> Sequence[float]:
    return annotation.bbox or ()


def _listed(annotation: Annotation) -> Edges | None:
    """None where no box is given, or one of zeros."""
    if not any(_box_values(annotation)):
        return None
    left, top, width, height = _box_values(annotation)
    return np.array([left, top, left + width, top + height])


def _mask_edges(annotation: Annotation, image: ImageEntry) -> list[Edges]:
    """Of the mask's pixels; and of the polygons' points, which thin ones leave far behind."""
    left, top, width, height = coco_masks.extent(annotation, image)
    edges = [np.array([left, top, left + width, top + height])]
    if points := _points(annotation):
        corners = np.array(points).reshape(-1, 2)
        edges.append(np.concatenate([corners.min(0), corners.max(0)]))
    return [each for each in edges if (each[2:] > each[:2]).all()] or edges[-1:]


def _box_contradiction(box: Edges, masks: list[Edges], image: ImageEntry) -> str:
    """Empty where there is none. What lies outside the image is not compared: it is cut off, and tools cut boxes there
    in ways of their own."""
    whole = np.array([0.0, 0.0, image.width, image.height])
    inside = [np.clip(each, whole[[0, 1, 0, 1]], whole[[2, 3, 2, 3]]) for each in (box, *masks)]
    outside = max(float(np.abs(masks[-1] - inside[-1]).max()), SIDE)
    for mask in inside[1:]:
        allowed = np.maximum(outside, SIDE_SHARE * np.tile(mask[2:] - mask[:2], 2))
        if (np.abs(inside[0] - mask) <= allowed).all():
            return ""
    return f"the box is {_spelled(box)}, that of the mask {_spelled(masks[0])}"


def _area_contradiction(annotation: Annotation, image: ImageEntry, mask: Edges) -> str:
    """Empty where there is none."""
    listed, sides = annotation.area or 0.0, mask[2:] - mask[:2]
    box = _listed(annotation)
    pixels = coco_masks.area(annotation, image)
    known = [pixels, float(sides.prod()), _corners_area(annotation)]
    known += [] if box is None else [float((box[2:] - box[:2]).prod())]
    if any(abs(listed - each) <= AREA_SHARE * each + float(sides.sum()) for each in known):
        return ""
    return f"the area is {listed:.6g}, that of the mask {pixels:.6g}"


def _corners_area(annotation: Annotation) -> float:
    """Of all polygons together, by their corners alone."""
    shape = annotation.segmentation
    return 0.0 if isinstance(shape, Rle) else sum(_shoelace(polygon) for polygon in shape)


def _shoelace(polygon: list[float]) -> float:
    corners = list(zip(polygon[::2], polygon[1::2], strict=True))
    return abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in pairwise([*corners, corners[0]]))) / 2


def _spelled(edges: Edges) -> str:
    left, top, right, bottom = edges
    return f"[{left:.6g}, {top:.6g}, {right - left:.6g}, {bottom - top:.6g}]"
