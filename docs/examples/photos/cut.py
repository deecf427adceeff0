"""Cuts the two photographs that scikit-learn ships into tiles, with their part of annotations.json:

    python docs/examples/photos/cut.py .data/photos

Tiles do not overlap, so that none shows in training what another holds back.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from sklearn.datasets import load_sample_image

COLUMNS, ROWS = 4, 2
HERE = Path(__file__).parent


def cut(folder: Path) -> dict[str, Any]:
    """Writes images/ and annotations.json to the folder; returns what annotations.json says."""
    listing = json.loads((HERE / "annotations.json").read_text(encoding="utf-8"))
    tiles: dict[str, Any] = {**listing, "images": [], "annotations": []}
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for photo in listing["images"]:
        own = [each for each in listing["annotations"] if each["image_id"] == photo["id"]]
        _tiles(folder / "images", photo, own, tiles)
    (folder / "annotations.json").write_text(json.dumps(tiles), encoding="utf-8")
    return tiles


def _tiles(folder: Path, photo: dict[str, Any], annotations: list[dict[str, Any]], tiles: dict[str, Any]) -> None:
    pixels = load_sample_image(photo["file_name"])
    masks = [_mask(annotation["segmentation"], *pixels.shape[:2]) for annotation in annotations]
    height, width = len(pixels) // ROWS, pixels.shape[1] // COLUMNS
    for row in range(ROWS):
        for column in range(COLUMNS):
            part = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
            number = len(tiles["images"]) + 1
            name = f"{photo['file_name'].removesuffix('.jpg')}-{row}-{column}.png"
            Image.fromarray(pixels[part]).save(folder / name)
            tiles["images"].append({"id": number, "file_name": name, "width": width, "height": height})
            for annotation, mask in zip(annotations, masks, strict=True):
                if mask[part].any():
                    tiles["annotations"].append(_annotation(annotation, mask[part], number, len(tiles["annotations"])))


def _mask(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    mask: np.ndarray = rle.decode(rle.merge(rle.frPyObjects(polygons, height, width))).astype(bool)
    return mask


def _annotation(whole: dict[str, Any], mask: np.ndarray, image: int, number: int) -> dict[str, Any]:
    packed = rle.encode(np.asfortranarray(mask, np.uint8))
    segmentation = {"size": packed["size"], "counts": packed["counts"].decode()}
    box = [float(value) for value in rle.toBbox(packed)]
    return {**whole, "id": number, "image_id": image, "bbox": box, "segmentation": segmentation}


if __name__ == "__main__":
    made = cut(Path(sys.argv[1]))
    print(f"{len(made['images'])} tiles, {len(made['annotations'])} annotations in {sys.argv[1]}")
