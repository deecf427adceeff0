"""A small folder in COCO's format: coloured rectangles, polygons and run lengths, drawn from nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

NAMES = ("traffic light", "cat", "红灯")
COLOURS = ((250, 40, 40), (40, 250, 40), (40, 40, 250))
WIDTH, HEIGHT = 48, 40


def write(folder: Path, count: int = 12) -> dict[str, Any]:
    """Writes images and annotations.json, which is returned. Image n shows category n % 3, every other one the next
    category too; one in three masks is a polygon, one COCO's text, one a list of runs."""
    (folder / "images").mkdir(parents=True)
    listing: dict[str, Any] = {
        "info": {"description": "made for a test"},
        "images": [],
        "annotations": [],
        "categories": [{"id": 10 * place, "name": name} for place, name in enumerate(NAMES, 1)],
    }
    for image in range(count):
        pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        for place in range(1 + image % 2):
            left, top = 2 + 24 * place, 4 + image
            which = (image + place) % 3
            pixels[top : top + 16, left : left + 18] = COLOURS[which]
            own = {"id": 100 + len(listing["annotations"]), "image_id": image, "category_id": 10 * (which + 1)}
            shape = segmentation(left, top, 18, 16, form=len(listing["annotations"]) % 3)
            listing["annotations"].append({**own, "segmentation": shape, "bbox": [left, top, 18, 16], "iscrowd": 0})
        name = f"{image:03}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        listing["images"].append({"id": image, "file_name": name, "width": WIDTH, "height": HEIGHT})
    save(folder, listing)
    return listing


def save(folder: Path, listing: dict[str, Any]) -> None:
    (folder / "annotations.json").write_text(json.dumps(listing), encoding="utf-8")


def segmentation(left: int, top: int, width: int, height: int, *, form: int) -> Any:
    """A rectangle as a polygon (0), as COCO's text (1) or as run lengths (2)."""
    right, bottom = left + width, top + height
    if form == 0:
        return [[left, top, right, top, right, bottom, left, bottom]]
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    if form == 1:
        packed = rle.encode(mask)
        return {"size": packed["size"], "counts": packed["counts"].decode()}
    flat = np.concatenate([[0], mask.flatten(order="F"), [2]])
    edges = np.flatnonzero(np.diff(flat))
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *edges]).tolist()}
