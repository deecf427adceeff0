"""The task `hf` on digits: an image classifier of transformers."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.spec import HfSpec
from workers.trainer.data.images import digits
from workers.trainer.tasks.classify import ClassifyTask
from workers.trainer.tasks.hf.models import SEEN, attach_on, build


class HfDigitsTask(ClassifyTask):
    """As `classify`, with the logits of a transformers model; a loaded one gets digits of its own size and number of
    channels, and a new head for ten classes."""

    def __init__(self, spec: HfSpec, device: torch.device) -> None:
        self.hf = spec
        super().__init__(cast(Any, spec), device)
        attach_on(self.model, lambda: self.logits(self.images[:SEEN]))

    def build(self) -> nn.Module:
        sizes = {"image_size": digits.SIDE, "num_channels": 1, "num_labels": digits.CLASSES}
        return build(self.hf, "AutoModelForImageClassification", sizes)

    def logits(self, images: Tensor) -> Tensor:
        config = cast(Any, self.model).config
        side, channels = getattr(config, "image_size", digits.SIDE), getattr(config, "num_channels", 1)
        if side != images.shape[-1]:
            images = F.interpolate(images, size=side, mode="bilinear")
        logits: Tensor = self.model(pixel_values=images.expand(-1, channels, -1, -1)).logits
        return logits
