"""Whether a folder's annotations are in pixels of their images: each listed box and area is held against its mask.

Training uses the masks alone, so masks in another unit would show nowhere else. Tools write boxes and areas in several
ways, and all of these agree with a mask:
- a box that is rounded, counts pixels from one, or ends at the last pixel instead of after it;
- a box that a person drew around a mask that a model made: up to SIDE_SHARE of a side away;
- an area of the mask, of the polygons' corners, or of the box (Roboflow, labelme2coco);
- an area of the whole image or 0, a box of zeros: placeholders.
Crowds and objects without a mask are not trained on, and not held against anything.
Where most of a folder contradicts, it is refused; a few objects are counted in a notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, permutations
from math import prod

from workers.protocol import Notice
from workers.trainer.data.coco import masks as coco_masks
from workers.trainer.data.coco.entries import Annotation, ImageEntry, Polygons, Rle
from workers.trainer.data.errors import Problems
from workers.trainer.data.notices import notice

SIDE, SIDE_SHARE = 2.0, 0.1  # pixels, or share of a box's side, that its edges may lie apart
AREA_SHARE = 0.1  # that areas may differ by, besides half a pixel along each side of the box
FRACTION = 1.5  # coordinates up to here are fractions of the image
SMALLEST = 4  # pixels of an image's side; in a smaller image, fractions and pixels look alike
FEWEST = 3  # contradictions that a folder is refused for
MOST = {"fractions": 0.1, "contradicts": 0.5, "nested": 1.0}  # share of a folder's objects above which it is refused
CORNER, CORNER_FEWEST = 0.5, 12  # share of the image's sides within which that many masks do not lie by chance
NAMED = 3  # objects that a refusal names

Edges = tuple[float, float, float, float]  # left, top, right, bottom


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
NESTED = Kind(
    "polygons",
    "nested",
    "lie one inside the other, and COCO's format joins them: what was meant as a hole is filled",
    "write masks with holes as run lengths",
)


class Agreement:
    """Collects what `look` finds; `end` adds a problem for each kind that most objects have, else a notice."""

    def __init__(self, images: Mapping[int, ImageEntry]) -> None:
        self._images = images
        self._looked = dict.fromkeys((POLYGONS_APART, BOX_APART, BOX, AREA, NESTED), 0)
        self._found: dict[Kind, list[Finding]] = {kind: [] for kind in self._looked}
        self._farthest: list[tuple[float, float]] = []

    def look(self, annotation: Annotation) -> None:
        """An annotation that `coco_masks.check` has passed."""
        image = self._images[annotation.image_id]
        shape = _Shape(annotation, image)
        if self._is_fraction(POLYGONS_APART, annotation, image, shape.values):
            return
        box_apart = self._is_fraction(BOX_APART, annotation, image, annotation.bbox or ())
        if not annotation.masked or annotation.iscrowd:  # neither is trained on
            return
        self._farthest.append(shape.farthest)
        self._add(NESTED, annotation, shape.nested())
        if shape.listed and not box_apart:
            self._add(BOX, annotation, shape.box_contradiction())
        if annotation.area and annotation.area != image.width * image.height:
            self._add(AREA, annotation, shape.area_contradiction())

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
        if len(self._farthest) < CORNER_FEWEST:
            return []
        across, down = (max(shares) for shares in zip(*self._farthest, strict=True))
        if max(across, down) > CORNER:
            return []
        where = f"all {len(self._farthest)} masks lie in the upper left {across:.0%} × {down:.0%} of their images"
        text = f"{where}, as they do where coordinates are percentages, or belong to a smaller copy of the images"
        return notice("contradicts", text, [each.file_name for each in self._images.values()])

    def _item(self, finding: Finding) -> str:
        name = self._images[finding.annotation.image_id].file_name
        return f"{name}: annotation {finding.annotation.id}: {finding.told}"


class _Shape:
    """A mask by its polygons' corners, and by its pixels, which are drawn only where the corners do not do."""

    def __init__(self, annotation: Annotation, image: ImageEntry) -> None:
        self.annotation, self.image = annotation, image
        shape = annotation.segmentation
        self.polygons: Polygons = [] if isinstance(shape, Rle) else shape
        self.listed = _after_last(annotation.bbox) if annotation.bbox and any(annotation.bbox) else None

    @cached_property
    def values(self) -> list[float]:
        """Every coordinate of the polygons."""
        return [value for polygon in self.polygons for value in polygon]

    @cached_property
    def drawn(self) -> tuple[Edges, float]:
        """Of the pixels; and how many they are. Those of the corners where a polygon is too thin for a pixel."""
        box, pixels = coco_masks.measures(self.annotation, self.image)
        return (_after_last(box) if pixels else _edges(self.values)), pixels

    @cached_property
    def outline(self) -> Edges:
        return _edges(self.values) if self.polygons else self.drawn[0]

    @property
    def farthest(self) -> tuple[float, float]:
        """Right and bottom, as shares of the image's sides."""
        return self.outline[2] / self.image.width, self.outline[3] / self.image.height

    def box_contradiction(self) -> str:
        """Empty where there is none."""
        if self.listed is None or self._near(self.outline) or self._near(self.drawn[0]):
            return ""
        return f"the box is {_spelled(self.listed)}, that of the mask {_spelled(self.drawn[0])}"

    def area_contradiction(self) -> str:
        """Empty where there is none."""
        listed = self.annotation.area or 0.0
        across, down = _sides(self.outline)
        if any(abs(listed - area) <= AREA_SHARE * area + across + down for area in self._areas()):
            return ""
        return f"the area is {listed:.6g}, that of the mask {self.drawn[1]:.6g}"

    def nested(self) -> str:
        """Which polygon lies inside another one. Empty where none does."""
        boxes = [_edges(polygon) for polygon in self.polygons]
        for (inner, box), (outer, around) in permutations(enumerate(boxes), 2):
            if _within(box, around) and coco_masks.covers(self.polygons[outer], self.polygons[inner], self.image):
                return f"polygon {inner + 1} lies inside polygon {outer + 1}"
        return ""

    def _near(self, mask: Edges) -> bool:
        """What lies outside the image is not compared: it is cut off, and tools cut boxes there in their own ways."""
        across, down = _sides(mask)
        limits = (self.image.width, self.image.height) * 2
        cut = [min(max(edge, 0.0), limit) for edge, limit in zip(mask, limits, strict=True)]
        least = max(SIDE, *(abs(edge - inside) for edge, inside in zip(mask, cut, strict=True)))
        for edge, inside, limit, side in zip(self.listed or mask, cut, limits, (across, down) * 2, strict=True):
            if abs(min(max(edge, 0.0), limit) - inside) > max(least, SIDE_SHARE * side):
                return False
        return True

    def _areas(self) -> Iterator[float]:
        """What tools write as the area."""
        yield sum(_shoelace(polygon) for polygon in self.polygons)
        if self.listed:
            yield prod(_sides(self.listed))
        yield self.drawn[1]
        yield prod(_sides(self.drawn[0]))


def _edges(values: Sequence[float]) -> Edges:
    """Of the points x, y, x, y, …"""
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])


def _after_last(box: Sequence[float]) -> Edges:
    left, top, width, height = box
    return left, top, left + width, top + height


def _sides(edges: Edges) -> tuple[float, float]:
    left, top, right, bottom = edges
    return right - left, bottom - top


def _within(inner: Edges, outer: Edges) -> bool:
    starts = all(own > other for own, other in zip(inner[:2], outer[:2], strict=True))
    return starts and all(own < other for own, other in zip(inner[2:], outer[2:], strict=True))


def _shoelace(polygon: list[float]) -> float:
    corners = list(zip(polygon[::2], polygon[1::2], strict=True))
    return abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in pairwise([*corners, corners[0]]))) / 2


def _spelled(edges: Edges) -> str:
    return f"[{edges[0]:.6g}, {edges[1]:.6g}, {', '.join(f'{side:.6g}' for side in _sides(edges))}]"
