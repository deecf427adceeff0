"""The task `classify`: which digit is it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.spec import ClassifySpec
from workers.trainer.attention import Tap
from workers.trainer.attention.sites import initialize_weights
from workers.trainer.data.images import digits
from workers.trainer.data.order import batch_indices
from workers.trainer.nets.classifier import Classifier
from workers.trainer.task import Picture
from workers.trainer.tasks import pictures

PROBE = 32  # validation samples in the fixed probe batch
FOLLOWED = 8  # of them, for the gradient chain


class ClassifyTask:
    """Cross-entropy over the ten digits."""

    parts = ("cross_entropy",)
    metrics = ("accuracy", "loss")
    measures: tuple[str, ...] = ()
    finals: tuple[str, ...] = ()

    def __init__(self, spec: ClassifySpec, device: torch.device) -> None:
        self.spec = spec
        self.model = self.build().to(device)
        images, labels = digits.digits()
        train, val = digits.split(spec.data.val_share)
        self.images, self.labels = _tensors(images[train], labels[train], device)
        self.val_images, self.val_labels = _tensors(images[val], labels[val], device)

    def build(self) -> nn.Module:
        """The model as this seed initializes it."""
        model = Classifier(self.spec.model, side=digits.SIDE, channels=1, classes=digits.CLASSES)
        initialize_weights(model, self.spec.seed)
        return model

    def logits(self, images: Tensor) -> Tensor:
        """Of images [B, 1, 8, 8]: B, 10."""
        logits: Tensor = self.model(images)
        return logits

    def losses(self, micro_step: int) -> dict[str, Tensor]:
        size = self.spec.train.batch_size
        rows = torch.from_numpy(batch_indices(self.spec.seed, micro_step * size, size, len(self.labels)))
        rows = rows.to(self.labels.device)
        loss = F.cross_entropy(self.logits(self.images[rows]), self.labels[rows])
        return {"cross_entropy": loss, "total": loss}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        logits = self.logits(self.val_images)
        right = (logits.argmax(-1) == self.val_labels).float().mean()
        return {"accuracy": right.item(), "loss": F.cross_entropy(logits, self.val_labels).item()}

    @torch.no_grad()
    def draw(self, count: int) -> Iterator[Picture]:
        shares = self.logits(self.val_images[:count]).softmax(-1).cpu().numpy()
        for sample, share in enumerate(shares):
            truth, guess = int(self.val_labels[sample]), int(share.argmax())
            image = pictures.enlarge((self.val_images[sample, 0].cpu().numpy() * 255).astype(np.uint8))
            caption = f"predicted {guess} ({share[guess]:.0%}), is {truth}"
            colour = pictures.GOOD if guess == truth else pictures.BAD
            yield Picture(
                f"sample-{sample}",
                pictures.side_by_side([image], [(caption, colour)]),
                {"sample": sample, "truth": truth, "predicted": guess, "score": float(share[guess])},
            )

    def final(self) -> dict[str, float]:
        return {}

    def passed(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """See chain.Chained."""
        images = self.val_images[:FOLLOWED].to(next(model.parameters()).dtype)
        logits: Tensor = model(images)
        return F.cross_entropy(logits, self.val_labels[:FOLLOWED]), logits

    @torch.no_grad()
    def probe(self, seen: Mapping[str, Tap]) -> dict[str, Tensor]:
        self.logits(self.val_images[:PROBE])
        return {}


def _tensors(
    images: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images).unsqueeze(1).to(device), torch.from_numpy(labels).to(device)
