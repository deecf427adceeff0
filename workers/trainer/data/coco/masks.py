"""Masks of COCO: polygons and run lengths, checked against their image, decoded at its size, resized to a canvas."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from workers.trainer.data.coco.entries import Annotation, ImageEntry, Rle

Mask = NDArray[np.bool_]
SLACK = 1.0  # pixels over the edge that are not reported: rounding makes them
FEW, FEW_SHARE = 8.0, 0.02  # pixels, or share of the longer side, over the edge that are cut off; more is an error


def check(annotation: Annotation, image: ImageEntry) -> float:
    """How many pixels the mask or the box reaches over the edge of the image. Raises ValueError, for users, if it
    reaches far over it or is not a valid mask or box."""
    reach = 0.0
    if isinstance(annotation.segmentation, Rle):
        _check_runs(annotation.segmentation, image)
    else:
        reach = max((_check_polygon(polygon, image) for polygon in annotation.segmentation), default=0.0)
    if annotation.bbox is not None:
        left, top, width, height = annotation.bbox
        if width < 0 or height < 0:
            raise ValueError("its box has a negative width or height")
        reach = max(reach, _reach("box", np.array([[left, top], [left + width, top + height]]), image))
    return reach


def decode(annotation: Annotation, image: ImageEntry) -> Mask:
    """[height, width] of the image. A polygon thinner than a pixel still has the pixel that it starts in."""
    shape = annotation.segmentation
    mask: Mask = rle.decode(_packed(annotation, image)).astype(np.bool_)
    if not isinstance(shape, Rle) and not mask.any():
        x, y = shape[0][:2]
        mask[min(max(int(y), 0), image.height - 1), min(max(int(x), 0), image.width - 1)] = True
    return mask


def measures(annotation: Annotation, image: ImageEntry) -> tuple[list[float], float]:
    """left, top, width, height and number of the mask's pixels; zeros if a polygon is too thin."""
    packed = _packed(annotation, image)
    return list(map(float, rle.toBbox(packed))), float(rle.area(packed))


def covers(outer: list[float], inner: list[float], image: ImageEntry) -> bool:
    """Whether the inner polygon has pixels, and all of them belong to the outer one."""
    packed = rle.frPyObjects([outer, inner], image.height, image.width)
    whole, part = map(float, rle.area(packed))
    return part > 0 and float(rle.area(rle.merge(packed))) == whole


def _packed(annotation: Annotation, image: ImageEntry) -> Any:
    """The mask in the form of pycocotools."""
    shape = annotation.segmentation
    if isinstance(shape, Rle):
        given: Any = {"size": list(shape.size), "counts": runs(shape.counts)}
        return rle.frPyObjects(given, *shape.size)
    return rle.merge(rle.frPyObjects(shape, image.height, image.width))


def shrunk(mask: Mask, side: int) -> Mask:
    """[side, side]: pixels that the mask covers at least by half; a tiny mask keeps those that it covers most."""
    whole = Image.fromarray(mask.astype(np.float32))
    cover = np.asarray(whole.resize((side, side), Image.Resampling.BOX))
    resized: Mask = cover >= min(0.5, float(cover.max()))
    return resized


def runs(counts: list[int] | str) -> list[int]:
    """Run lengths. As text each number is written five bits at a time, the lowest first, in characters from '0' on;
    bit 5 says that more follow. From the fourth number on, each is a difference to the one before last."""
    if isinstance(counts, list):
        return counts
    lengths: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"its run lengths contain the invalid character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its run lengths are cut off")
    return lengths


def _check_runs(shape: Rle, image: ImageEntry) -> None:
    height, width = shape.size
    if (height, width) != (image.height, image.width):
        raise ValueError(f"its mask has {width} × {height} pixels, not those of {_size(image)}")
    lengths = runs(shape.counts)
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        raise ValueError(f"its run lengths do not add up to the pixels of {_size(image)}")
    if not sum(lengths[1::2]):
        raise ValueError("its mask is empty")


def _check_polygon(polygon: list[float], image: ImageEntry) -> float:
    if len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"a polygon of {len(polygon)} numbers; it needs x and y of three points or more")
    points = np.array(polygon).reshape(-1, 2)
    reach = _reach("mask", points, image)
    if (points.max(0) < 0).any() or (points.min(0) > np.array([image.width, image.height])).any():
        raise ValueError(f"a polygon lies wholly outside {_size(image)}")
    return reach


def _reach(what: str, points: NDArray[np.float64], image: ImageEntry) -> float:
    """The most pixels that one of the points x, y [N, 2] lies over the edge."""
    over = np.maximum(-points, points - np.array([image.width, image.height]))
    reach = max(0.0, float(over.max()))
    if reach > max(FEW, FEW_SHARE * max(image.width, image.height)):
        advice = "its coordinates may belong to another size of the image"
        raise ValueError(f"its {what} reaches outside {_size(image)} by {reach:.4g} pixels; {advice}")
    return reach


def _size(image: ImageEntry) -> str:
    return f"{image.file_name} ({image.width} × {image.height})"
