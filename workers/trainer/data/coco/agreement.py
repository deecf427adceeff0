"""Whether a folder's annotations are in pixels of their images: each listed box and area is compared with its mask.

Training uses the masks alone, so masks in another unit would show nowhere else. All of these agree with a mask:
- a box that is rounded, counts pixels from one, or ends at the last pixel instead of after it;
- a box that a person drew around a model's mask: up to SIDE_SHARE of a side away;
- an area of the mask, of the polygons, or of the box (Roboflow, labelme2coco);
- placeholders: an area of the whole image or 0, a box of zeros.
Crowds and objects without a mask are not compared. If most objects of a folder disagree, it is refused; a few are
counted in a notice.
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
SMALLEST = 4  # pixels of an image's side; in a smaller image, fractions and pixels check alike
FEWEST = 3  # contradictions for which a folder is refused
MOST = {"fractions": 0.1, "contradicts": 0.5, "nested": 1.0}  # share of a folder's objects above which it is refused
CORNER, CORNER_FEWEST = 0.5, 12  # share of the image's sides within which so many masks do not lie by chance
NAMED = 3  # objects that an error names

Edges = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class AgreementCheck:
    """How a field can be wrong."""

    field: str
    how: str  # a key of MOST
    text: str
    advice: str


POLYGON_FRACTIONS = AgreementCheck(
    "polygons",
    "fractions",
    "are fractions of the image, from 0 to 1, not pixels",
    "multiply x by the image's width and y by its height",
)
BOX_FRACTIONS = AgreementCheck("boxes (bbox)", "fractions", POLYGON_FRACTIONS.text, POLYGON_FRACTIONS.advice)
BOX = AgreementCheck(
    "box (bbox)",
    "contradicts",
    f"contradicts the mask, by more than {SIDE:g} pixels and {SIDE_SHARE:.0%} of a side",
    "a box is left, top, width, height in pixels; correct the masks or the boxes",
)
AREA = AgreementCheck(
    "area",
    "contradicts",
    f"contradicts the mask, by more than {AREA_SHARE:.0%} and half a pixel along each side",
    "an area counts the pixels of the mask or of its box; correct the masks or the areas. In COCO's format, a polygon "
    "inside another one is not a hole: write masks with holes as run lengths",
)
NESTED = AgreementCheck(
    "polygons",
    "nested",
    "lie one inside the other; COCO's format joins them, so an intended hole is filled",
    "write masks with holes as run lengths",
)


class Agreement:
    """Collects contradictions. `end` adds a problem for each check that most objects fail, else a notice."""

    def __init__(self, images: Mapping[int, ImageEntry]) -> None:
        self._images = images
        self._checked = dict.fromkeys((POLYGON_FRACTIONS, BOX_FRACTIONS, BOX, AREA, NESTED), 0)
        self._findings: dict[AgreementCheck, list[tuple[str, str]]] = {check: [] for check in self._checked}
        self._farthest: list[tuple[float, float]] = []

    def check(self, annotation: Annotation) -> None:
        """The annotation must have passed `coco_masks.check`."""
        image = self._images[annotation.image_id]
        shape = _Shape(annotation, image)
        if self._is_fraction(POLYGON_FRACTIONS, annotation, image, shape.values):
            return
        box_in_fractions = self._is_fraction(BOX_FRACTIONS, annotation, image, annotation.bbox or ())
        if not annotation.masked or annotation.iscrowd:  # neither is trained on
            return
        self._farthest.append(shape.farthest)
        self._add(NESTED, annotation, shape.nested())
        if shape.listed and not box_in_fractions:
            self._add(BOX, annotation, shape.box_contradiction())
        if annotation.area and annotation.area != image.width * image.height:
            self._add(AREA, annotation, shape.area_contradiction())

    def end(self, problems: Problems) -> list[Notice]:
        notices: list[Notice] = []
        for check, findings in self._findings.items():
            count, checked = len(findings), self._checked[check]
            text = f"{check.field} of {count} of {checked} objects {check.text}"
            if count >= FEWEST and count > MOST[check.how] * checked:
                first = "; ".join(detail for _, detail in findings[:NAMED])
                problems.add(f"{problems.about}: {text} ({first}). To fix it: {check.advice}")
                continue
            named = [f"{file_name}: {detail}" for file_name, detail in findings]
            notices += notice("contradicts", f"{text}; masks are used as they are. To fix it: {check.advice}", named)
        return [*notices, *self._corner()]

    def _add(self, check: AgreementCheck, annotation: Annotation, detail: str) -> None:
        self._checked[check] += 1
        if detail:
            file_name = self._images[annotation.image_id].file_name
            self._findings[check].append((file_name, f"annotation {annotation.id}: {detail}"))

    def _is_fraction(
        self, check: AgreementCheck, annotation: Annotation, image: ImageEntry, values: Sequence[float]
    ) -> bool:
        if not any(values) or min(image.width, image.height) <= SMALLEST:
            return False
        fractions = min(values) >= 0 and max(values) <= FRACTION
        detail = f"from {min(values):.3g} to {max(values):.3g}, in an image of {image.width} × {image.height} pixels"
        self._add(check, annotation, detail if fractions else "")
        return fractions

    def _corner(self) -> list[Notice]:
        if len(self._farthest) < CORNER_FEWEST:
            return []
        across, down = (max(shares) for shares in zip(*self._farthest, strict=True))
        if max(across, down) > CORNER:
            return []
        text = (
            f"all {len(self._farthest)} masks lie in the upper left {across:.0%} × {down:.0%} of their images: check "
            "that the coordinates are not percentages and do not belong to a smaller copy of the images"
        )
        return notice("contradicts", text, [image.file_name for image in self._images.values()])


class _Shape:
    """A mask by its polygons, and by its pixels, which are drawn only if the polygons do not suffice."""

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
        """Edges of the pixels, and their number; those of the polygons if they are too thin for a pixel."""
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
        """Empty if there is none."""
        if self.listed is None or self._near(self.outline) or self._near(self.drawn[0]):
            return ""
        return f"the box is {_spelled(self.listed)}, that of the mask {_spelled(self.drawn[0])}"

    def area_contradiction(self) -> str:
        """Empty if there is none."""
        listed = self.annotation.area or 0.0
        across, down = _sides(self.outline)
        if any(abs(listed - area) <= AREA_SHARE * area + across + down for area in self._areas()):
            return ""
        return f"the area is {listed:.6g}, that of the mask {self.drawn[1]:.6g}"

    def nested(self) -> str:
        """Which polygon lies inside another one. Empty if none does."""
        boxes = [_edges(polygon) for polygon in self.polygons]
        for (inner, box), (outer, around) in permutations(enumerate(boxes), 2):
            if _within(box, around) and coco_masks.covers(self.polygons[outer], self.polygons[inner], self.image):
                return f"polygon {inner + 1} lies inside polygon {outer + 1}"
        return ""

    def _near(self, mask: Edges) -> bool:
        """What lies outside the image is not compared, since tools clip boxes there in different ways."""
        across, down = _sides(mask)
        limits = (self.image.width, self.image.height) * 2
        cut = [min(max(edge, 0.0), limit) for edge, limit in zip(mask, limits, strict=True)]
        least = max(SIDE, *(abs(edge - inside) for edge, inside in zip(mask, cut, strict=True)))
        for edge, inside, limit, side in zip(self.listed or mask, cut, limits, (across, down) * 2, strict=True):
            if abs(min(max(edge, 0.0), limit) - inside) > max(least, SIDE_SHARE * side):
                return False
        return True

    def _areas(self) -> Iterator[float]:
        """The areas that tools write."""
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
