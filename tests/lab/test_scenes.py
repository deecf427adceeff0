"""Scenes: parts, twins in another colour, things held out of training."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.spec import ScenesData, SpecError, parse_spec
from workers.trainer.data.images.lexicon import COLOURS, THINGS
from workers.trainer.data.images.samples import Sample
from workers.trainer.data.images.scenes import ROAD, SKY, scene
from workers.trainer.data.images.shapes import PARTS
from workers.trainer.tasks.segment.data import splits

OF_KIND = {"car": {"body", "window", "wheel"}, "tree": {"crown", "trunk"}, "house": {"wall", "roof", "door"}}


def _samples(count: int = 120, *, compositional: bool = False, **changes: object) -> list[Sample]:
    make = scene(ScenesData.model_validate({"dataset": "scenes", **changes}), compositional=compositional)
    return [make(np.random.default_rng([3, index])) for index in range(count)]


def _shown(sample: Sample) -> set[str]:
    return {f"{COLOURS[sample.colours[label]][0]} {THINGS[kind][0]}" for label, kind in sample.kinds.items()}


def test_every_pixel_has_a_part_of_the_thing_that_it_shows() -> None:
    for sample in _samples(60):
        assert sample.parts is not None
        for label, kind in sample.kinds.items():
            parts = {PARTS[part] for part in np.unique(sample.parts[sample.labels == label])}
            assert parts <= OF_KIND[THINGS[kind][0]]
        assert (sample.parts[sample.labels == SKY] == PARTS.index("sky")).all()
        assert (sample.parts[sample.labels == ROAD] == PARTS.index("road")).all()


def test_with_distractors_the_class_alone_does_not_tell_which_thing_is_meant() -> None:
    samples = _samples(distractors=1.0, absent=0, language="en")
    twins = [sample for sample in samples if sample.other]
    assert len(twins) > 0.8 * len(samples)
    for sample in twins:
        colour, kind = sample.prompt.split()
        other, same = sample.other.split()
        assert (same, other != colour) == (kind, True)
        assert {sample.prompt, sample.other} <= _shown(sample)


def test_distractors_at_zero_leave_the_scenes_as_they_were() -> None:
    for sample, same in zip(_samples(20), _samples(20, distractors=0.0), strict=True):
        np.testing.assert_array_equal(sample.image, same.image)


def test_the_other_prompt_keeps_the_language() -> None:
    twins = [sample for sample in _samples(distractors=1.0, absent=0) if sample.other]
    assert all(sample.prompt.isascii() == sample.other.isascii() for sample in twins)
    assert len({sample.prompt.isascii() for sample in twins}) == 2


def test_a_held_out_thing_is_neither_shown_nor_asked_for_but_in_the_compositional_split() -> None:
    held = ["red tree", "blue car"]
    for sample in _samples(200, held_out=held, language="en", absent=0.5, distractors=0.5):
        assert not _shown(sample) & set(held)
        assert sample.prompt not in held
    asked = _samples(60, held_out=held, language="en", compositional=True)
    assert np.mean([sample.prompt in held for sample in asked]) > 0.9
    assert {sample.prompt for sample in asked} >= set(held)
    assert all(sample.hits for sample in asked if sample.prompt in held)


def test_colours_and_classes_of_held_out_things_are_known_apart() -> None:
    seen = {word for sample in _samples(200, held_out=["red tree"], language="en") for word in sample.prompt.split()}
    assert {"red", "tree"} <= seen


def test_training_keeps_two_colours_of_each_class() -> None:
    held = [f"{colour[0]} car" for colour in COLOURS[:4]]
    with pytest.raises(SpecError) as caught:
        parse_spec({"task": "segment", "data": {"dataset": "scenes", "held_out": held}})
    assert caught.value.errors[0].path == ("data", "held_out")


def test_the_splits_differ_and_only_held_out_things_make_a_compositional_one() -> None:
    data = ScenesData.model_validate({"dataset": "scenes", "train_size": 8, "val_size": 8, "test_size": 8})
    found = splits(data)
    assert found.compositional is None
    first = [part[0].image for part in (found.train, found.val, found.test)]
    assert not np.array_equal(first[0], first[2])
    assert not np.array_equal(first[1], first[2])
    assert splits(data.model_copy(update={"held_out": ("red tree",)})).compositional is not None
