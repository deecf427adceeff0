"""The splits of every data set that prompted segmentation can train on."""

from __future__ import annotations

from dataclasses import dataclass

from experiments.spec import CocoData, DigitScenesData, ScenesData
from workers.trainer.data.digit_scenes import digit_scene
from workers.trainer.data.samples import Samples
from workers.trainer.data.scenes import scene

TRAIN, VAL, TEST, COMPOSITIONAL = range(1, 5)  # seeds of the splits


@dataclass(frozen=True)
class Splits:
    """`compositional` asks for things that training never showed in that colour; None where nothing is held out."""

    train: Samples
    val: Samples
    test: Samples
    compositional: Samples | None = None


def splits(data: ScenesData | DigitScenesData | CocoData) -> Splits:
    if isinstance(data, CocoData):
        raise NotImplementedError("coco")
    if isinstance(data, DigitScenesData):
        training, held_out = digit_scene(data, held_out=False), digit_scene(data, held_out=True)
        return Splits(
            Samples(training, TRAIN, data.train_size),
            Samples(held_out, VAL, data.val_size),
            Samples(held_out, TEST, data.test_size),
        )
    make = scene(data)
    unseen = Samples(scene(data, compositional=True), COMPOSITIONAL, data.test_size) if data.held_out else None
    return Splits(
        Samples(make, TRAIN, data.train_size),
        Samples(make, VAL, data.val_size),
        Samples(make, TEST, data.test_size),
        unseen,
    )
