"""The task `segment`: find the things that the prompt names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from experiments.spec import CocoData, SegmentSpec
from workers.trainer.attention import Tap
from workers.trainer.attention.sites import initialize_weights
from workers.trainer.data.images.lexicon import LENGTH
from workers.trainer.data.images.samples import Batch
from workers.trainer.data.order import batch_indices
from workers.trainer.nets.segmenter import Segmenter
from workers.trainer.task import Picture
from workers.trainer.tasks.segment import chain as segment_chain
from workers.trainer.tasks.segment import probe as segment_probe
from workers.trainer.tasks.segment.average_precision import AP_METRICS, AveragePrecision
from workers.trainer.tasks.segment.data import splits
from workers.trainer.tasks.segment.final import Final, final_names
from workers.trainer.tasks.segment.losses import parts, segment_losses
from workers.trainer.tasks.segment.measures import METRICS, Tally
from workers.trainer.tasks.segment.pictures import draw_predictions

EVAL_BATCH, PROBE = 64, 16
FOLLOWED = 8  # validation samples through which the gradient is followed


class SegmentTask:
    """sam3-lite on a prompted data set."""

    metrics: tuple[str, ...]
    finals: tuple[str, ...]

    def __init__(self, spec: SegmentSpec, device: torch.device) -> None:
        self.spec, self.device = spec, device
        self.parts = parts(spec.loss)
        self.splits = splits(spec.data, spec.model.queries)
        self.notices = self.splits.notices
        self.training, self.validation = self.splits.train, self.splits.val
        self.finals = final_names(spec)
        self.metrics = (*METRICS, *AP_METRICS) if isinstance(spec.data, CocoData) else METRICS
        self.model = self.untrained()
        self.measures = segment_probe.names(spec.model)

    def untrained(self) -> Segmenter:
        """The model as this seed initializes it."""
        side = self.spec.data.canvas
        words = len(self.splits.lexicon.vocabulary)
        model = Segmenter(self.spec.model, side=side, words=words, prompt_length=LENGTH)
        initialize_weights(model, self.spec.seed)
        return model.to(self.device)

    def losses(self, micro_step: int, step: range | None = None) -> dict[str, Tensor]:
        batch = self.training.batch(self._rows(micro_step)).to(self.device)
        predictions = self.model(batch.images, batch.tokens, batch.said)
        targets = step and [self.training.targets(row) for each in step for row in self._rows(each)]
        terms, _ = segment_losses(predictions, batch, self.spec.loss, targets)
        return terms

    def _rows(self, micro_step: int) -> list[int]:
        size = self.spec.train.batch_size
        rows: list[int] = batch_indices(self.spec.seed, micro_step * size, size, self.training.size).tolist()
        return rows

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """With average precision, on data in COCO's format."""
        tally, precision, loss = Tally(), AveragePrecision(), 0.0
        targets = self.validation.all_targets()
        for start in range(0, self.validation.size, EVAL_BATCH):
            rows = range(start, min(start + EVAL_BATCH, self.validation.size))
            batch = self.validation.batch(rows).to(self.device)
            predictions = self.model(batch.images, batch.tokens, batch.said)
            terms, matches = segment_losses(predictions, batch, self.spec.loss, targets)
            tally.add(predictions, batch, matches)
            loss += terms["total"].item()
            if isinstance(self.spec.data, CocoData):
                precision.add(predictions, batch, [self.validation[row].category for row in rows])
        values = tally.means() | precision.values() | {"loss": loss}
        return {name: values[name] for name in self.metrics}

    @torch.no_grad()
    def draw(self, count: int) -> Iterator[Picture]:
        rows = range(min(count, self.validation.size))
        batch = self.validation.batch(rows).to(self.device)
        predictions = self.model(batch.images, batch.tokens, batch.said)
        yield from draw_predictions([self.validation[row] for row in rows], predictions, batch)

    def final(self) -> dict[str, float]:
        return Final(self.spec, self.splits, self.device).values(self.model, self.untrained().eval())

    def passed(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """See chain.Chained."""
        run = segment_chain.passed(model, self._followed(), self.spec.loss)
        return run.terms["total"], run.pred

    def from_loss(self, model: Segmenter) -> Tensor:
        """See chain.Followed."""
        return segment_chain.from_loss(model, self._followed(), self.spec.loss)

    def _followed(self) -> Batch:
        return self.validation.batch(range(min(FOLLOWED, self.validation.size))).to(self.device)

    @torch.no_grad()
    def probe(self, seen: Mapping[str, Tap]) -> dict[str, Tensor]:
        """See segment_probe."""
        batch = self.validation.batch(range(min(PROBE, self.validation.size))).to(self.device)
        predictions = self.model(batch.images, batch.tokens, batch.said)
        _, matches = segment_losses(predictions, batch, self.spec.loss)
        return segment_probe.values(self.spec.model, seen, batch, matches)
