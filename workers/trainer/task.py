"""The interface of a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import Tensor, nn

from workers.protocol import Artifact
from workers.trainer.attention import Tap


@dataclass(frozen=True)
class Picture:
    """One drawn prediction."""

    name: str
    image: Image.Image
    meta: dict[str, Any] = field(default_factory=dict)

    def write(self, step: int, scratch: Path) -> Artifact:
        """As a PNG file of this step."""
        path = scratch / f"step-{step:08d}-{self.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.image.save(path)
        meta = {**self.meta, "width": self.image.width, "height": self.image.height}
        return Artifact(kind="prediction", name=self.name, path=str(path), media_type="image/png", step=step, meta=meta)


class Task(Protocol):
    """A model, its data and what is measured. Everything random depends on the spec's seed and on nothing else.
    A task that also has chain.Chained's `passed` gets its gradient followed to W_q at every probe;
    one that has `notices` (protocol.Notice) says what its data or its model left out."""

    model: nn.Module
    parts: tuple[str, ...]  # names of the loss terms
    metrics: tuple[str, ...]  # names that `evaluate` returns
    measures: tuple[str, ...]  # full names of the series that `probe` adds, such as attn/object_mass/decoder.0.image
    finals: tuple[str, ...]  # names that `final` returns

    def losses(self, micro_step: int) -> Mapping[str, Tensor]:
        """Loss terms of one micro-batch and their weighted sum as `total`; differentiable.

        A task whose terms are means over counts that vary between batches (boxes, tokens that are not padding) takes a
        second argument, `step: range | None = None`. Where a step has several micro-batches, the loop passes their
        numbers, and each term is the batch's sum divided by the count of the whole step, so that accumulation equals a
        larger batch. For a task without it the loop takes the mean of means."""

    def evaluate(self) -> Mapping[str, float]:
        """Measures on the validation split."""

    def draw(self, count: int) -> Iterable[Picture]:
        """Predictions on the first validation samples."""

    def probe(self, seen: Mapping[str, Tap]) -> Mapping[str, Tensor]:
        """Run the fixed probe batch forward, which fills `seen` with every site's Q and K.
        Returns the values of `measures`."""

    def final(self) -> Mapping[str, float]:
        """Measures on the test split, once, after the last step: what verdicts are computed from. Choices, such as
        which head counts, are made on the validation split; baselines (an untrained net, a shuffled prompt) stand
        beside. Depends on the weights and the seed alone, so that a resumed run finds the same."""
