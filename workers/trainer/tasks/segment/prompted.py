"""What tasks of prompted segmentation share: losses, evaluation and drawing of a model's predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from experiments.spec import HfSpec, SegmentSpec
from workers.trainer.data.images.samples import Batch, Samples
from workers.trainer.data.order import batch_indices
from workers.trainer.nets.segmenter import Predictions
from workers.trainer.task import Picture
from workers.trainer.tasks.segment.average_precision import AP_METRICS, AveragePrecision
from workers.trainer.tasks.segment.losses import segment_losses
from workers.trainer.tasks.segment.measures import Tally
from workers.trainer.tasks.segment.pictures import draw_predictions


class PromptedTask(ABC):
    """A model that finds the things that a prompt names."""

    spec: SegmentSpec | HfSpec
    metrics: tuple[str, ...]
    training: Samples
    validation: Samples
    eval_batch: int

    @abstractmethod
    def predict(self, samples: Samples, rows: Iterable[int]) -> tuple[Predictions, Batch]:
        """A forward pass over some samples."""

    def losses(self, micro_step: int, step: range | None = None) -> dict[str, Tensor]:
        predictions, batch = self.predict(self.training, self._rows(micro_step))
        targets = step and [self.training.targets(row) for each in step for row in self._rows(each)]
        return segment_losses(predictions, batch, self.spec.loss, targets)[0]

    def _rows(self, micro_step: int) -> list[int]:
        size = self.spec.train.batch_size
        rows: list[int] = batch_indices(self.spec.seed, micro_step * size, size, self.training.size).tolist()
        return rows

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        tally, precision, loss = Tally(), AveragePrecision(), 0.0
        targets = self.validation.all_targets()
        for start in range(0, self.validation.size, self.eval_batch):
            rows = range(start, min(start + self.eval_batch, self.validation.size))
            predictions, batch = self.predict(self.validation, rows)
            terms, matches = segment_losses(predictions, batch, self.spec.loss, targets)
            tally.add(predictions, batch, matches)
            loss += terms["total"].item()
            if AP_METRICS[0] in self.metrics:
                precision.add(predictions, batch, [self.validation[row].category for row in rows])
        values = tally.means() | precision.values() | {"loss": loss}
        return {name: values[name] for name in self.metrics}

    @torch.no_grad()
    def draw(self, count: int) -> Iterator[Picture]:
        rows = range(min(count, self.validation.size))
        predictions, batch = self.predict(self.validation, rows)
        yield from draw_predictions([self.validation[row] for row in rows], predictions, batch)
