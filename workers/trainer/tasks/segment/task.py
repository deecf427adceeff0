"""The task `segment`: find the things that the prompt names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from experiments.spec import CocoData, SegmentSpec
from workers.trainer.attention import Tap
from workers.trainer.attention.sites import initialize_weights
from workers.trainer.data.images.lexicon import LENGTH
from workers.trainer.data.images.samples import Batch, Samples
from workers.trainer.nets.segmenter import Predictions, Segmenter
from workers.trainer.tasks.segment import chain as segment_chain
from workers.trainer.tasks.segment import probe as segment_probe
from workers.trainer.tasks.segment.average_precision import AP_METRICS
from workers.trainer.tasks.segment.data import splits
from workers.trainer.tasks.segment.final import Final, final_names
from workers.trainer.tasks.segment.losses import parts, segment_losses
from workers.trainer.tasks.segment.measures import METRICS
from workers.trainer.tasks.segment.prompted import PromptedTask

PROBE = 16  # validation samples in the fixed probe batch
FOLLOWED = 8  # of them, for the gradient chain


class SegmentTask(PromptedTask):
    """sam3-lite on a prompted data set."""

    spec: SegmentSpec
    eval_batch = 64
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

    def predict(self, samples: Samples, rows: Iterable[int]) -> tuple[Predictions, Batch]:
        batch = samples.batch(rows).to(self.device)
        return self.model(*batch.inputs), batch

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
        predictions, batch = self.predict(self.validation, range(min(PROBE, self.validation.size)))
        _, matches = segment_losses(predictions, batch, self.spec.loss)
        return segment_probe.values(self.spec.model, seen, batch, matches)
