"""What the training loop asks of a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image
from torch import Tensor, nn

from workers.trainer.attention import Tap


@dataclass(frozen=True)
class Picture:
    """One drawn prediction."""

    name: str
    image: Image.Image
    meta: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """A model, its data and what is measured. Everything random depends on the spec's seed and on nothing else."""

    model: nn.Module
    parts: tuple[str, ...]  # names of the loss terms
    metrics: tuple[str, ...]  # names that `evaluate` returns
    mass_sites: tuple[str, ...]  # sites where `probe` measures attention mass on the object

    def losses(self, micro_step: int) -> Mapping[str, Tensor]:
        """Loss terms of one micro-batch and their weighted sum as `total`; differentiable."""

    def evaluate(self) -> Mapping[str, float]:
        """Measures on the validation split."""

    def draw(self, count: int) -> Iterable[Picture]:
        """Predictions on the first validation samples."""

    def probe(self, seen: Mapping[str, Tap]) -> Mapping[str, Tensor]:
        """Run the fixed probe batch forward, which fills `seen` with every site's Q and K.
        Returns the attention mass on the object, for each of `mass_sites`."""
