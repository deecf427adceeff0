"""Linear probes: what they can and cannot read, and the truth they read."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.spec import ScenesData
from workers.trainer.data.images.lexicon import THINGS
from workers.trainer.data.images.scenes import scene
from workers.trainer.tasks.segment.linear_probes.linear import Fold, classify, control, regress
from workers.trainer.tasks.segment.linear_probes.patches import CLASSES, NONE, truth


def _fold(seed: int, classes: int, count: int = 600) -> Fold:
    """Classes as directions in 12 columns, under noise; one class far rarer than the rest."""
    random = np.random.default_rng(seed)
    shares = np.array([1.0] * (classes - 1) + [0.05])
    labels = random.choice(classes, count, p=shares / shares.sum()).astype(np.int64)
    features = 4 * np.eye(classes, 12)[labels] + random.normal(size=(count, 12))
    return Fold(features.astype(np.float32), labels)


def test_a_class_that_lies_in_a_direction_is_read_and_noise_is_not() -> None:
    train, test = _fold(0, 4), _fold(1, 4)
    assert classify(train, test) > 0.9
    noise = np.random.default_rng(2).permutation(train.truth)
    assert classify(Fold(train.features, noise), test) < 0.45


def test_balanced_accuracy_counts_each_class_alike() -> None:
    train, test = _fold(0, 4), _fold(1, 4)
    blind = Fold(np.zeros_like(train.features), train.truth)
    assert classify(blind, Fold(np.zeros_like(test.features), test.truth)) == pytest.approx(0.25)


def test_a_linear_relation_has_r2_of_one_and_noise_of_none() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(400, 6)).astype(np.float32)
    sizes = (features @ random.normal(size=(6, 2))).astype(np.float32)
    halves = Fold(features[:200], sizes[:200]), Fold(features[200:], sizes[200:])
    assert regress(*halves) > 0.99
    noise = random.normal(size=sizes.shape).astype(np.float32)
    assert regress(Fold(features[:200], noise[:200]), Fold(features[200:], noise[200:])) < 0.1


def test_a_control_task_gives_a_place_the_same_class_always() -> None:
    places = np.tile(np.arange(64), 3)
    labels = control(places, 5).reshape(3, 64)
    assert (labels == labels[0]).all()
    assert len(np.unique(labels)) == 5


def test_the_truth_of_patches_is_that_of_their_pixels() -> None:
    make = scene(ScenesData(dataset="scenes", distractors=1.0))
    things = grounds = 0
    for index in range(10):
        sample = make(np.random.default_rng([5, index]))
        found = truth(sample, 4)
        for patch in range(256):
            y, x = 4 * (patch // 16), 4 * (patch % 16)
            pixels = sample.labels[y : y + 4, x : x + 4]
            labels, counts = np.unique(pixels, return_counts=True)
            most = int(labels[counts.argmax()])
            assert found["edge"][patch] == (len(labels) > 1)
            assert found["position"][patch] == (y // 16) * 4 + x // 16
            if counts.max() > 8 and most in sample.kinds:
                things += 1
                assert found["class"][patch] == sample.kinds[most]
                assert found["colour"][patch] == sample.colours[most]
            if counts.max() == 16 and most not in sample.kinds and most >= 253:
                grounds += 1
                assert found["colour"][patch] == NONE
                assert found["class"][patch] >= len(THINGS)
        assert all((values < CLASSES[name]).all() for name, values in found.items())
    assert things > 100
    assert grounds > 100


def test_a_probe_that_cannot_be_trained_or_scored_has_no_value() -> None:
    features, none = np.ones((6, 2), np.float32), np.ones((0, 2), np.float32)
    two, one = np.array([0, 1, 0, 1, 0, 1]), np.zeros(6, np.int64)
    assert np.isnan(classify(Fold(features, one), Fold(features, two)))
    assert np.isnan(classify(Fold(features, two), Fold(none, two[:0])))
    assert np.isnan(regress(Fold(none, none), Fold(features, features)))
