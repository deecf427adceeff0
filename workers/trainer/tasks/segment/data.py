"""The splits of every data set of prompted segmentation."""

from __future__ import annotations

from experiments.spec import CocoData, DigitScenesData, ScenesData
from workers.trainer.data.coco.samples import load
from workers.trainer.data.images.digit_scenes import digit_scene
from workers.trainer.data.images.samples import Samples, Splits, drawn
from workers.trainer.data.images.scenes import scene

TRAIN, VAL, TEST, COMPOSITIONAL = range(1, 5)  # seeds of the splits


def splits(data: ScenesData | DigitScenesData | CocoData, queries: int | None = None) -> Splits:
    """`queries`, of the model, limits how many things of an image it can find. Raises DataError if a folder cannot be
    used."""
    if isinstance(data, CocoData):
        return load(data, queries)
    if isinstance(data, DigitScenesData):
        training, held_out = digit_scene(data, held_out=False), digit_scene(data, held_out=True)
        return Splits(
            Samples(drawn(training, TRAIN), data.train_size),
            Samples(drawn(held_out, VAL), data.val_size),
            Samples(drawn(held_out, TEST), data.test_size),
        )
    make, unseen = scene(data), drawn(scene(data, compositional=True), COMPOSITIONAL)
    return Splits(
        Samples(drawn(make, TRAIN), data.train_size),
        Samples(drawn(make, VAL), data.val_size),
        Samples(drawn(make, TEST), data.test_size),
        Samples(unseen, data.test_size) if data.held_out else None,
    )
