"""Folders as tools export them: names of files, bytes of the listing, edges of images, and reports of what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.spec import CocoData, TextData, parse_spec, resolved
from tests.lab import coco_folder
from tests.lab.coco_folder import HEIGHT, WIDTH
from tests.lab.collected import tiny
from tests.lab.test_coco import data, ordered, samples
from workers.trainer.data.coco import masks as coco_masks
from workers.trainer.data.coco.file import read
from workers.trainer.data.errors import DataError
from workers.trainer.data.tokens import text
from workers.trainer.entry.standalone import main
from workers.trainer.tasks.segment.data import splits

Listing = dict[str, Any]
TEXT = TextData.model_validate({"dataset": "text", "path": "text.txt", "context": 16})


def whole(path: str = "shapes") -> list[bytes]:
    """Everything that a run would train on and be scored by."""
    found = splits(data(path))
    parts = [samples(part) for part in (found.train, found.val, found.test)]
    return [sample.image.tobytes() + sample.masks.tobytes() for part in parts for sample in part]


def _renamed(rename: Callable[[str], str]) -> Callable[[Path, Listing], None]:
    def change(folder: Path, listing: Listing) -> None:
        for entry in listing["images"]:
            entry["file_name"] = rename(entry["file_name"])

    return change


def _beside(folder: Path, listing: Listing) -> None:
    for file in (folder / "images").iterdir():
        file.rename(folder / file.name)
    (folder / "images").rmdir()


def _deeper(folder: Path, listing: Listing) -> None:
    shutil.move(folder / "images", folder / "train2017")


def _spaces(folder: Path, listing: Listing) -> None:
    for file in (folder / "images").iterdir():
        file.rename(file.with_name(f"a b {file.name}"))
    _renamed("a%20b%20{}".format)(folder, listing)


def _same_names_in_folders(folder: Path, listing: Listing) -> None:
    for place, entry in enumerate(listing["images"]):
        (folder / "images" / str(place)).mkdir()
        (folder / "images" / entry["file_name"]).rename(folder / "images" / str(place) / "photo.png")
        entry["file_name"] = f"{place}/photo.png"


def _string_ids(folder: Path, listing: Listing) -> None:
    for annotation in listing["annotations"]:
        annotation["image_id"] = str(annotation["image_id"])


LAYOUTS: dict[str, Callable[[Path, Listing], None]] = {
    "images/ in the name": _renamed("images/{}".format),
    "backslashes": _renamed("images\\{}".format),
    "one folder up": _renamed("../images/{}".format),
    "a folder of the tool's own": _renamed("upload/7/{}".format),
    "beside the listing": _beside,
    "in a folder of another name": _deeper,
    "spaces as %20": _spaces,
    "one name in many folders": _same_names_in_folders,
    "ids as strings": _string_ids,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_of_tools_are_read_as_one_folder(root: Path, layout: str) -> None:
    listing = coco_folder.write(root / "shapes")
    wanted = whole()
    LAYOUTS[layout](root / "shapes", listing)
    coco_folder.save(root / "shapes", listing)
    assert whole() == wanted


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("_annotations.coco.json", "shapes"),
        ("instances_default.json", "shapes"),
        ("annotations/instances_train2017.json", "shapes"),
        ("result.json", "shapes"),
        ("annotations/instances_train2017.json", "shapes/annotations/instances_train2017.json"),
    ],
)
def test_the_listing_may_have_the_name_that_a_tool_gives_it(root: Path, file: str, path: str) -> None:
    coco_folder.write(root / "shapes")
    wanted = whole()
    (root / "shapes" / "annotations").mkdir()
    (root / "shapes" / "annotations.json").rename(root / "shapes" / file)
    assert whole(path) == wanted


def test_of_several_listings_one_has_to_be_named(root: Path) -> None:
    coco_folder.write(root / "shapes")
    (root / "shapes" / "annotations.json").rename(root / "shapes" / "instances_a.json")
    shutil.copy(root / "shapes" / "instances_a.json", root / "shapes" / "instances_b.json")
    failure = ordered("shapes", root)
    assert failure.reason == "spec"
    assert "instances_a.json, instances_b.json; name one of them" in failure.message


NAMES = {
    "/etc/passwd": "/etc/passwd: outside the data root",
    "C:\\photos\\0.png": "outside the data root",
    "file:///etc/passwd": "outside the data root",
    "..\\..\\..\\secret.png": "outside the data root",
    "..%2f..%2f..%2fsecret.png": "outside the data root",
    "\0.png": "not a valid path",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_elsewhere_is_refused(root: Path, name: str) -> None:
    (root.parent / "secret.png").write_bytes(b"not yours")
    listing = coco_folder.write(root / "shapes")
    listing["images"][3]["file_name"] = name
    coco_folder.save(root / "shapes", listing)
    failure = ordered("shapes", root)
    assert NAMES[name] in failure.message
    assert failure.reason == "spec"


def test_a_bare_name_that_two_folders_have_is_refused(root: Path) -> None:
    coco_folder.write(root / "shapes")
    shutil.copytree(root / "shapes" / "images", root / "shapes" / "b")
    (root / "shapes" / "images").rename(root / "shapes" / "a")
    assert "several files have this name (a/000.png, b/000.png)" in ordered("shapes", root).message


def test_one_file_under_two_ids_is_refused_for_it_could_be_trained_on_and_held_out(root: Path) -> None:
    listing = coco_folder.write(root / "shapes")
    listing["images"][4]["file_name"] = "images/003.png"
    coco_folder.save(root / "shapes", listing)
    assert "shapes/images/images/003.png: images 3 and 4 are the same file" in ordered("shapes", root).message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_read_in_listings_and_in_texts(root: Path, encoding: str) -> None:
    listing = coco_folder.write(root / "shapes")
    wanted = whole()
    told = json.dumps(listing, ensure_ascii=False)
    (root / "shapes" / "annotations.json").write_bytes(told.encode(encoding))
    assert whole() == wanted
    (root / "text.txt").write_bytes(("红灯\r\nlight " * 80).encode(encoding))
    found = text.load(TEXT)
    letters = "".join(found.characters[index] for part in found.parts.values() for index in part)
    assert letters == "红灯\nlight " * 80


def test_utf_16_without_its_mark_is_named(root: Path) -> None:
    listing = coco_folder.write(root / "shapes")
    for encoding in ("utf-16-le", "utf-16-be"):
        (root / "shapes" / "annotations.json").write_bytes(json.dumps(listing).encode(encoding))
        assert "UTF-16 without a byte order mark" in ordered("shapes", root).message
        (root / "text.txt").write_bytes("light".encode(encoding))
        with pytest.raises(DataError, match=r"text\.txt: it has zero bytes, as UTF-16"):
            text.load(TEXT)


def inside(polygon: list[float]) -> Any:
    """Centres of pixels that the even-odd rule puts inside, over the whole plane of the image."""
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    found = np.zeros((HEIGHT, WIDTH), bool)
    corners = list(zip(polygon[::2], polygon[1::2], strict=True))
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        if ay != by:
            crosses = (ay > y) != (by > y)
            found ^= crosses & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    return found


@pytest.mark.parametrize("over", [2.5, 5.0, 8.0])
def test_what_lies_a_few_pixels_outside_is_cut_off_with_one_notice(root: Path, over: float) -> None:
    listing = coco_folder.write(root / "shapes")
    polygon = [30.0, 5.0, WIDTH + over, 10.0, WIDTH + over, HEIGHT + over, 25.0, HEIGHT + over, 20.0, -over]
    for place in (0, 3):
        listing["annotations"][place].update(segmentation=[polygon], bbox=[20, -over, 28 + over, HEIGHT])
    coco_folder.save(root / "shapes", listing)
    folder = read("shapes")
    (notice,) = folder.notices
    assert notice.kind == "clipped"
    assert notice.text.startswith(f"2 annotations over the edge of the image by up to {over:.3g} pixels")
    assert notice.items[0] == f"000.png: annotation 100, {over:.3g} pixels"
    mask = coco_masks.decode(folder.annotations[0], folder.images[0])
    assert (mask != inside(polygon)).mean() < 0.02
    assert (mask[:, -1] == inside(polygon)[:, -1]).mean() > 0.9


def test_a_polygon_wholly_outside_is_refused(root: Path) -> None:
    listing = coco_folder.write(root / "shapes")
    listing["annotations"][0].update(segmentation=[[WIDTH + 1, 1, WIDTH + 4, 1, WIDTH + 4, 5]])
    coco_folder.save(root / "shapes", listing)
    assert "annotation 100: a polygon lies wholly outside" in ordered("shapes", root).message


def test_every_problem_of_a_folder_is_in_one_report(root: Path) -> None:
    listing = coco_folder.write(root / "shapes", count=24)
    for image in range(22):
        (root / "shapes" / "images" / f"{image:03}.png").unlink()
    listing["annotations"][0]["category_id"] = 7
    listing["annotations"][1]["segmentation"] = [[0, 0, 99, 0, 99, 9]]
    coco_folder.save(root / "shapes", listing)
    failure = ordered("shapes", root)
    first, *lines = failure.message.splitlines()
    assert first == "shapes/annotations.json: 24 problems; the first 20:"
    assert len(lines) == 20
    for line, told in zip(lines, ("category_id 7", "reaches outside", "000.png: there is no"), strict=False):
        assert told in line
    assert failure.traceback == ""


def test_every_wrong_field_of_a_listing_is_in_one_report(root: Path) -> None:
    listing = coco_folder.write(root / "shapes")
    for annotation in listing["annotations"][:3]:
        annotation["category_id"] = "cat"
    listing["images"][5]["width"] = None
    coco_folder.save(root / "shapes", listing)
    message = ordered("shapes", root).message
    assert message.startswith("shapes/annotations.json: 4 problems:")
    assert "images.5.width: " in message
    assert "annotations.2.category_id: " in message


def test_the_standalone_runner_refuses_in_sentences(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raw = {**resolved(tiny("segment")), "data": {"dataset": "coco", "path": "nowhere"}}
    (tmp_path / "spec.json").write_text(json.dumps(resolved(parse_spec(raw))))
    assert main([str(tmp_path / "spec.json"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "failed (spec): nowhere: there is no such folder below the data root\n" in said.out
    assert "Traceback" not in said.out + said.err + log


def test_an_unused_category_that_others_stand_for_is_no_prompt(root: Path) -> None:
    """Exports of Roboflow list their own name as category 0: images show such things, and none says so."""
    listing = coco_folder.write(root / "shapes")
    listing["categories"] += [{"id": 0, "name": "animals"}, {"id": 5, "name": "Cat"}, {"id": 6, "name": "dog"}]
    listing["categories"][1]["supercategory"] = "animals"
    coco_folder.save(root / "shapes", listing)
    found = splits(data(absent=0.8))
    asked = {sample.prompt for part in (found.train, found.val, found.test) for sample in samples(part)}
    assert asked == {*coco_folder.NAMES, "dog"}
    (notice,) = found.notices
    assert notice.items == ["category 0: animals", "category 5: Cat"]


def _images_as(folder: Path, listing: Listing, pixels: Callable[[Any], Any], ending: str) -> None:
    for entry in listing["images"]:
        file = folder / "images" / entry["file_name"]
        grey = np.asarray(Image.open(file).convert("L"))
        file.unlink()
        entry["file_name"] = f"{file.stem}.{ending}"
        Image.fromarray(pixels(grey)).save(folder / "images" / entry["file_name"])
    coco_folder.save(folder, listing)


DEEP: dict[str, tuple[Callable[[Any], Any], str]] = {
    "16 bits": (lambda grey: grey.astype(np.uint16) * 257, "png"),
    "floats up to 1": (lambda grey: (grey / 255).astype(np.float32), "tif"),
    "floats up to 255": (lambda grey: grey.astype(np.float32), "tif"),
}


@pytest.mark.parametrize("depth", DEEP)
def test_deep_images_train_as_the_same_in_8_bits_do(root: Path, depth: str) -> None:
    _images_as(root / "shapes", coco_folder.write(root / "shapes"), lambda grey: grey, "png")
    wanted = whole()
    shutil.rmtree(root / "shapes")
    _images_as(root / "shapes", coco_folder.write(root / "shapes"), *DEEP[depth])
    assert whole() == wanted


UNKNOWN: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "12 bits in 16": (lambda grey: grey.astype(np.uint16) * 16, "png", "no value above 2[0-9]{3} of 65535"),
    "8 bits in 16": (lambda grey: grey.astype(np.uint16), "png", "mode I;16"),
    "floats up to 1.3": (lambda grey: (grey / 100).astype(np.float32), "tif", "mode F.*neither 0 … 1 nor 0 … 255"),
    "floats below 0": (lambda grey: (grey / 255 - 0.5).astype(np.float32), "tif", "mode F with values from -0"),
    "32-bit whole numbers": (lambda grey: grey.astype(np.int32), "tif", "mode I: 32-bit"),
}


@pytest.mark.parametrize("depth", UNKNOWN)
def test_deep_images_of_an_unknown_range_are_refused(root: Path, depth: str) -> None:
    pixels, ending, told = UNKNOWN[depth]
    _images_as(root / "shapes", coco_folder.write(root / "shapes"), pixels, ending)
    with pytest.raises(DataError, match=told):
        splits(data())


def _stored(folder: Path, entry: dict[str, Any], orientation: int) -> None:
    """The same picture as shown, stored as a camera that is held otherwise stores it."""
    back = {2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1], 5: lambda x: x.swapaxes(0, 1)}
    back |= {6: lambda x: x[:, ::-1].swapaxes(0, 1), 7: lambda x: x[::-1, ::-1].swapaxes(0, 1)}
    back |= {1: lambda x: x, 8: lambda x: x[::-1].swapaxes(0, 1)}
    file = folder / "images" / entry["file_name"]
    exif = Image.Exif()
    exif[274] = orientation
    shown = np.array(Image.open(file))
    Image.fromarray(np.ascontiguousarray(back[orientation](shown))).save(file, exif=exif)


def test_photos_of_a_camera_held_in_any_way_train_as_they_are_shown(root: Path) -> None:
    listing = coco_folder.write(root / "shapes")
    wanted = whole()
    for place, entry in enumerate(listing["images"]):
        _stored(root / "shapes", entry, place % 8 + 1)
    assert whole() == wanted
    (notice,) = splits(data()).notices
    assert notice.kind == "read_as"
    assert notice.text.startswith("10 images turned as the EXIF orientation says")


def test_annotations_on_the_stored_picture_of_a_turned_photo_are_refused_by_the_tag(root: Path) -> None:
    listing = coco_folder.write(root / "shapes")
    _stored(root / "shapes", listing["images"][3], 6)
    listing["images"][3].update(width=HEIGHT, height=WIDTH)
    coco_folder.save(root / "shapes", listing)
    message = ordered("shapes", root).message
    assert "003.png: its EXIF orientation 6 shows it with 48 × 40 pixels, but annotations.json says 40 × 48" in message
    assert "as it is stored; annotate it as it is shown, or remove the tag" in message


def test_images_that_show_nothing_are_named(root: Path) -> None:
    listing = coco_folder.write(root / "shapes")
    Image.new("RGB", (WIDTH, HEIGHT), "white").save(root / "shapes" / "images" / listing["images"][2]["file_name"])
    (notice,) = splits(data()).notices
    assert (notice.kind, notice.items) == ("flat", ["002.png"])


def test_images_without_annotations_are_counted_where_nothing_absent_is_asked_for(root: Path) -> None:
    listing = coco_folder.write(root / "shapes")
    listing["annotations"] = [each for each in listing["annotations"] if each["image_id"] > 1]
    coco_folder.save(root / "shapes", listing)
    assert splits(data(absent=0.2)).notices == ()
    (notice,) = splits(CocoData.model_validate({**data().model_dump(), "absent": 0})).notices
    assert notice.items == ["000.png", "001.png"]
