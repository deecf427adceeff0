"""Real photographs: those of scikit-learn, under the polygons that docs/examples/photos has of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_sample_image

from experiments.spec import parse_spec
from tests.lab.collected import tiny, train_collected
from tests.lab.test_coco import data, samples
from workers.protocol import Started
from workers.trainer.data.coco import masks as coco_masks
from workers.trainer.data.coco.file import read
from workers.trainer.tasks.segment.data import splits

PHOTOS = Path(__file__).parents[2] / "docs" / "examples" / "photos"
MOST_BOATS = "china-1-2.png"


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cut", PHOTOS / "cut.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiles(root: Path) -> dict[str, Any]:
    made: dict[str, Any] = _script().cut(root / "photos")
    return made


def test_the_polygons_of_the_flowers_lie_on_what_is_orange(root: Path) -> None:
    (root / "whole" / "images").mkdir(parents=True)
    listing = (PHOTOS / "annotations.json").read_text()
    (root / "whole" / "annotations.json").write_text(listing)
    for photo in json.loads(listing)["images"]:
        Image.fromarray(load_sample_image(photo["file_name"])).save(root / "whole" / "images" / photo["file_name"])
    folder = read("whole")
    drawn = np.zeros((427, 640), bool)
    for annotation in folder.annotations:
        if folder.categories[annotation.category_id] == "flower":
            drawn |= coco_masks.decode(annotation, folder.images[annotation.image_id])
    red, _, blue = np.moveaxis(load_sample_image("flower.jpg").astype(int), -1, 0)
    orange = red - blue > 40
    assert (drawn & orange).sum() / (drawn | orange).sum() > 0.9


def test_a_tile_shows_its_part_of_the_photo_and_of_the_masks(root: Path, tiles: dict[str, Any]) -> None:
    found = splits(data("photos", canvas=128))
    every = [sample for part in (found.train, found.val, found.test) for sample in samples(part)]
    flowers = [sample for sample in every if sample.prompt == "flower" and sample.hits]
    assert len(flowers) >= 4
    for sample in flowers:
        inside = sample.masks.any(0)
        red, _, blue = np.moveaxis(sample.image.astype(int), -1, 0)
        assert (red - blue)[inside].mean() > 40 > 20 > (red - blue)[~inside].mean()


def test_photos_are_trained_on_and_what_is_left_out_is_counted(
    root: Path, tmp_path: Path, tiles: dict[str, Any]
) -> None:
    raw = yaml.safe_load((PHOTOS / "photos.yaml").read_text())
    short = tiny("segment").model_dump(mode="json")
    spec = parse_spec(
        {**raw, "train": {**short["train"], "steps": 4}, "record": short["record"], "resources": {"threads": 1}}
    )
    sink, outcome = train_collected(spec, tmp_path)
    assert outcome.step == 4
    assert np.isfinite(sink.values("loss/total")).all()
    names = {image["id"]: image["file_name"] for image in tiles["images"]}
    crowds = [each for each in tiles["annotations"] if each["iscrowd"]]
    pairs = {(names[each["image_id"]], each["category_id"]) for each in crowds}
    lost = [each for each in tiles["annotations"] if (names[each["image_id"]], each["category_id"]) in pairs]
    boats = [
        each for each in tiles["annotations"] if names[each["image_id"]] == MOST_BOATS and each["category_id"] == 4
    ]
    crowd, crowded = sink.of(Started)[0].notices
    assert crowd.text.startswith(
        f"{len(lost)} of {len(tiles['annotations'])} annotations left out, in {len(pairs)} pairs"
    )
    assert sorted(item.split(":")[0] for item in crowd.items) == sorted(name for name, _ in pairs)
    assert crowded.items == [f"{MOST_BOATS}: boat, {len(boats)} annotations"]
    assert f"leaves {len(boats) - 8} objects unmatched" in crowded.text
