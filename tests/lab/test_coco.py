"""The data set `coco`: what it reads from a folder, and what it says of one that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from experiments.spec import CocoData, SegmentSpec, parse_spec, resolved
from tests.lab import coco_folder
from tests.lab.coco_folder import COLOURS, HEIGHT, NAMES, WIDTH
from tests.lab.collected import tiny, train_collected
from workers.protocol import Failure, Orders
from workers.trainer.data.coco import images as coco_images
from workers.trainer.data.coco import masks as coco_masks
from workers.trainer.data.coco import samples as coco
from workers.trainer.data.coco.file import read
from workers.trainer.data.errors import DataError
from workers.trainer.data.images.samples import Batch, Sample, Samples
from workers.trainer.entry.orders import carry_out
from workers.trainer.nets.segmenter import Predictions
from workers.trainer.tasks.segment.average_precision import AveragePrecision
from workers.trainer.tasks.segment.data import splits
from workers.trainer.tasks.segment.task import SegmentTask

Listing = dict[str, Any]


def data(path: str = "shapes", **changes: float) -> CocoData:
    return CocoData.model_validate({"dataset": "coco", "path": path, "canvas": 32, "val_share": 0.4, **changes})


def samples(part: Samples) -> list[Sample]:
    return [part[index] for index in range(part.size)]


def test_a_prompt_is_a_category_and_its_mask_the_things_of_it(root: Path) -> None:
    coco_folder.write(root / "shapes")
    found = splits(data())
    for sample in [each for part in (found.train, found.val, found.test) for each in samples(part)]:
        colour = COLOURS[NAMES.index(sample.prompt)]
        assert sample.category == 10 * (NAMES.index(sample.prompt) + 1)
        close = np.abs(sample.image.astype(int) - colour).max(-1) < 60
        assert bool(sample.hits) == close.any()
        if sample.hits:
            mask = sample.masks.any(0)
            assert (mask & close).sum() / (mask | close).sum() > 0.85
        assert (sample.other in NAMES) if sample.other else True
        assert 1 not in sample.lexicon.encode(sample.prompt)


def test_polygons_and_both_kinds_of_run_lengths_are_one_mask(root: Path) -> None:
    coco_folder.write(root / "shapes")
    folder = read("shapes")
    for annotation in folder.annotations:
        mask = coco_masks.decode(annotation, folder.images[annotation.image_id])
        assert annotation.bbox is not None
        left, top, width, height = map(int, annotation.bbox)
        wanted = np.zeros((HEIGHT, WIDTH), bool)
        wanted[top : top + height, left : left + width] = True
        assert (mask == wanted).all()


def test_packed_run_lengths_are_read_as_pycocotools_writes_them() -> None:
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.9):
        mask = np.asfortranarray(rng.random((70, 90)) < share, np.uint8)
        lengths = coco_masks.runs(rle.encode(mask)["counts"].decode())
        values = np.arange(len(lengths)) % 2
        assert (np.repeat(values, lengths) == mask.flatten(order="F")).all()


def test_a_thing_smaller_than_a_pixel_of_the_canvas_keeps_one() -> None:
    mask = np.zeros((400, 400), bool)
    mask[123, 77] = True
    assert coco_masks.shrunk(mask, 32).sum() == 1


def test_samples_depend_on_the_folder_the_split_and_the_index_alone(root: Path) -> None:
    listing = coco_folder.write(root / "shapes")
    once = splits(data())
    for part in ("images", "annotations", "categories"):
        listing[part].reverse()
    coco_folder.save(root / "shapes", listing)
    again = splits(data())
    assert once.lexicon == again.lexicon
    assert once.lexicon.vocabulary[2:] == ("cat", "light", "traffic", "红灯")
    for one, other in ((once.train, again.train), (once.val, again.val), (once.test, again.test)):
        assert one.size == other.size
        for index in reversed(range(one.size)):
            assert one[index].prompt == other[index].prompt
            assert (one[index].image == other[index].image).all()
            assert (one[index].labels == other[index].labels).all()


def test_an_image_is_in_one_split_and_absent_prompts_are_the_share_that_is_asked(root: Path) -> None:
    coco_folder.write(root / "shapes")
    found = splits(data(absent=0.5))
    parts = [samples(part) for part in (found.train, found.val, found.test)]
    images = [{sample.image.tobytes() for sample in part} for part in parts]
    assert all(images)
    assert not images[0] & images[1] | images[0] & images[2] | images[1] & images[2]
    assert all(np.mean([not sample.hits for sample in part]) == 0.5 for part in parts)
    none = splits(data(absent=0))
    assert all(sample.hits for part in (none.train, none.val, none.test) for sample in samples(part))
    assert none.train.size + none.val.size + none.test.size == 18


def test_a_category_with_a_crowd_or_a_thing_without_a_mask_is_neither_asked_for_nor_absent(root: Path) -> None:
    listing = coco_folder.write(root / "shapes")
    first, last = listing["annotations"][0], listing["annotations"][-1]
    first["iscrowd"] = 1
    last["segmentation"] = []
    del listing["annotations"][-2]["segmentation"]
    coco_folder.save(root / "shapes", listing)
    folder = read("shapes")
    by_image = {each.image: each for each in coco.contents_of(folder)}
    assert by_image[0].prompted == {}
    assert first["category_id"] not in by_image[0].absent
    assert last["category_id"] not in [*by_image[11].prompted, *by_image[11].absent]
    crowd, maskless = splits(data()).notices
    assert (crowd.kind, crowd.items) == ("left_out", ["000.png: traffic light, 1 annotation"])
    assert crowd.text.startswith("1 of 18 annotations left out, in 1 pair of")
    assert maskless.text.startswith("2 of 18 annotations left out")
    assert "no mask" in maskless.text


Break = Callable[[Path, Listing], None]


def _annotation(**changes: object) -> Break:
    """Changes the first annotation."""
    return lambda folder, listing: listing["annotations"][0].update(changes)


def _image(**changes: object) -> Break:
    return lambda folder, listing: listing["images"][3].update(changes)


def _write(name: str, content: bytes) -> Break:
    return lambda folder, listing: (folder / name).write_bytes(content) and None


def _two_cats(folder: Path, listing: Listing) -> None:
    listing["categories"].append({"id": 90, "name": "Cat "})
    listing["annotations"][0].update(category_id=90)


RUNS = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
BROKEN: dict[str, tuple[Break, str]] = {
    "a missing image": (
        lambda folder, listing: (folder / "images" / "003.png").unlink(),
        "shapes/images/003.png: there is no such file",
    ),
    "no image at all in a file": (_write("images/003.png", b"text"), "shapes/images/003.png: not an image"),
    "an image of another size": (_image(width=99), "shapes/images/003.png: it has 48 × 40 pixels"),
    "an image outside the root": (_image(file_name="../../../secret.png"), "secret.png: outside the data root"),
    "a polygon outside": (
        _annotation(segmentation=[[0, 0, 60, 0, 60, 20]]),
        "shapes/annotations.json: annotation 100: its mask reaches outside 000.png (48 × 40)",
    ),
    "a mask of another size": (
        _annotation(segmentation={"size": [HEIGHT, WIDTH + 1], "counts": [0, HEIGHT * (WIDTH + 1)]}),
        "annotation 100: its mask has 49 × 40 pixels, not those of 000.png",
    ),
    "runs past the end": (
        _annotation(segmentation={**RUNS, "counts": [5, HEIGHT * WIDTH]}),
        "annotation 100: its run lengths do not add up",
    ),
    "packed runs past the end": (
        _annotation(segmentation={**RUNS, "counts": "oooooo1"}),
        "annotation 100: its run lengths do not add up",
    ),
    "packed runs cut off": (_annotation(segmentation={**RUNS, "counts": "PPo"}), "annotation 100: its run lengths"),
    "an empty mask": (_annotation(segmentation=RUNS), "annotation 100: its mask is empty"),
    "no mask at all": (
        lambda folder, listing: [each.pop("segmentation") for each in listing["annotations"]] and None,
        "shapes/annotations.json: no annotation has a mask",
    ),
    "half a point": (_annotation(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "annotation 100: a polygon of 7 numbers"),
    "a box outside": (_annotation(bbox=[40, 4, 20, 5]), "annotation 100: its box reaches outside 000.png"),
    "a box inside out": (_annotation(bbox=[9, 4, -3, 5]), "annotation 100: its box has a negative width or height"),
    "an unknown image": (_annotation(image_id=77), "annotation 100: image_id 77 is not listed"),
    "an unknown category": (_annotation(category_id=7), "annotation 100: category_id 7 is not listed"),
    "a field of another type": (_annotation(category_id="cat"), "shapes/annotations.json: annotations.0.category_id:"),
    "an id twice": (_annotation(id=101), "shapes/annotations.json: annotations: id 101 is used 2 times"),
    "a name twice": (
        _two_cats,
        "shapes/annotations.json: categories 20 and 90 (Cat ) have the same prompt",
    ),
    "no annotations": (
        lambda folder, listing: listing["annotations"].clear(),
        "shapes/annotations.json: it has no annotations",
    ),
    "too few images": (
        lambda folder, listing: listing.update(annotations=listing["annotations"][:2]),
        "shapes/annotations.json: 2 images show something",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_folder_that_cannot_be_used_fails_the_run_and_the_file_is_named(root: Path, what: str) -> None:
    (root.parent / "secret.png").write_bytes(b"not yours")
    listing = coco_folder.write(root / "shapes")
    spoil, told = BROKEN[what]
    spoil(root / "shapes", listing)
    coco_folder.save(root / "shapes", listing)
    failure = ordered("shapes", root)
    assert told in failure.message
    assert failure.reason == ("spec" if "outside the data root" in told else "error")


def test_names_that_stand_twice_are_told_with_what_else_is_wrong(root: Path) -> None:
    """A parser takes the last of two equal names: masks or whole lists would be dropped."""
    listing = coco_folder.write(root / "shapes")
    listing["annotations"][1]["category_id"] = 77
    coco_folder.save(root / "shapes", listing)
    file = root / "shapes" / "annotations.json"
    text = file.read_text("utf-8")
    for name, before in (("info", '"images": []'), ("image_id", '"category_id": 20'), ("counts", '"counts": "x"')):
        text = text.replace(f'"{name}": ', f'{before}, "{name}": ', 1)
    file.write_text(text, "utf-8")
    failure = ordered("shapes", root)
    for told in (
        "4 problems",
        "annotations.json: images: duplicate name in the same object",
        "annotations.json: annotations.0.category_id: duplicate name",
        "annotations.json: annotations.1.segmentation.counts: duplicate name",
        "annotation 101: category_id 77 is not listed",
    ):
        assert told in failure.message, failure.message
    assert failure.reason == "error"


DEEP = b"[" * 100_000


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"", b'{"images": []}', DEEP, b'{"a": ' + DEEP])
def test_annotations_that_are_not_json_of_this_form_are_named(root: Path, content: bytes) -> None:
    coco_folder.write(root / "shapes")
    (root / "shapes" / "annotations.json").write_bytes(content)
    failure = ordered("shapes", root)
    assert failure.message.startswith("shapes/annotations.json: ")
    assert failure.reason == "error"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("../shapes", "../shapes: outside the data root"),
        ("/etc", "/etc: outside the data root"),
        ("link", "link: outside the data root"),
        ("missing", "missing: there is no such folder"),
        ("bare", "bare/annotations.json: there is no such file"),
    ],
)
def test_a_folder_that_is_not_below_the_root_is_the_fault_of_the_spec(root: Path, path: str, told: str) -> None:
    coco_folder.write(root.parent / "shapes")
    (root / "link").symlink_to(root.parent / "shapes")
    (root / "bare").mkdir()
    failure = ordered(path, root)
    assert failure.message.startswith(told)
    assert failure.reason == "spec"


def test_an_image_that_breaks_off_is_named_before_training_or_else_when_it_is_drawn(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco_folder.write(root / "shapes")
    for file in (root / "shapes" / "images").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"(?s)12 problems.*images/000.png: cannot.*images/011.png: cannot be decoded"):
        splits(data())
    monkeypatch.setattr(coco_images, "DECODED", 0)
    found = splits(data())
    with pytest.raises(DataError, match=r"shapes/images/0\d\d.png: cannot be decoded"):
        found.train[0]


@pytest.mark.parametrize("kinds", [3, 1])
def test_a_short_training_is_scored_by_average_precision(root: Path, tmp_path: Path, kinds: int) -> None:
    listing = coco_folder.write(root / "shapes")
    if kinds == 1:  # no image shows two categories, and no prompt can ask for what is not there
        listing["annotations"] = [each for each in listing["annotations"] if each["category_id"] == 10]
        listing["categories"] = listing["categories"][:1]
        coco_folder.save(root / "shapes", listing)
    spec = parse_spec(
        {
            **resolved(tiny("segment", model={"text_to_image": True}, train={"steps": 3, "predictions": 1})),
            "data": {"dataset": "coco", "path": "shapes", "canvas": 32, "val_share": 0.4},
        }
    )
    sink, outcome = train_collected(spec, tmp_path)
    assert outcome.step == 3
    found = sink.series("eval")
    for name in ("ap", "ap50", "box_ap", "box_ap50", "prompt_iou"):
        values = found[f"eval/{name}"][1]
        assert ((values >= 0) & (values <= 1)).all()
    assert all(np.isfinite(values).all() for _, values in sink.series("test").values())
    assert "test/mask_ap" in sink.series("test")


def test_average_precision_counts_each_category_of_the_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco_folder.write(root / "shapes")
    raw = {**resolved(tiny("segment")), "data": {"dataset": "coco", "path": "shapes", "canvas": 32, "val_share": 0.4}}
    spec = parse_spec(raw)
    assert isinstance(spec, SegmentSpec)
    task = SegmentTask(spec, torch.device("cpu"))
    asked: list[int] = []
    own = AveragePrecision.add

    def add(self: AveragePrecision, found: Predictions, batch: Batch, categories: Sequence[int]) -> None:
        asked.extend(categories)
        own(self, found, batch, categories)

    monkeypatch.setattr(AveragePrecision, "add", add)
    task.evaluate()
    assert asked == [sample.category for sample in samples(task.validation)]
    assert set(asked) == {10, 20, 30}


def ordered(path: str, scratch: Path) -> Failure:
    """What a worker hears when a run asks for this folder."""
    said: list[object] = []
    raw = tiny("segment").model_dump(mode="json")
    raw["data"] = {"dataset": "coco", "path": path, "canvas": 32}
    orders = Orders(run=1, fence=1, spec=raw, scratch=str(scratch))
    assert not carry_out(orders, lambda message, payload=b"": said.append(message), lambda: None)
    (failure,) = [message for message in said if isinstance(message, Failure)]
    return failure
