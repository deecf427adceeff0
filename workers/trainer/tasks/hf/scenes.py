"""The task `hf` on prompted images: SAM 3 of transformers with our matcher and losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.spec import DigitScenesData, HfSpec, ScenesData
from workers.trainer.adapt import attached
from workers.trainer.adapt.watch import watched
from workers.trainer.attention import Tap
from workers.trainer.data.images.lexicon import LENGTH, VOCABULARY
from workers.trainer.data.images.samples import Batch, Samples
from workers.trainer.nets.segmenter import Predictions
from workers.trainer.tasks.hf.library import transformers
from workers.trainer.tasks.hf.models import SEEN, attach_on, build, folder_of, wrong
from workers.trainer.tasks.hf.sam3 import find
from workers.trainer.tasks.segment.data import splits
from workers.trainer.tasks.segment.losses import parts, segment_losses
from workers.trainer.tasks.segment.matcher import Matches
from workers.trainer.tasks.segment.measures import METRICS
from workers.trainer.tasks.segment.prompted import PromptedTask

PROBE = 8  # validation samples in the fixed probe batch
GEOMETRY = "geometry_encoder"  # reads box prompts; never called, since prompts are words


class HfScenesTask(PromptedTask):
    """SAM 3 on scenes. Without box prompts, the geometry encoder has no gradient and is not trained."""

    spec: HfSpec
    metrics = METRICS
    eval_batch = 16
    finals: tuple[str, ...] = ()

    def __init__(self, spec: HfSpec, device: torch.device) -> None:
        data = cast(ScenesData | DigitScenesData, spec.data)
        self.spec, self.device, self.side = spec, device, data.canvas
        self.parts = parts(spec.loss)
        made = splits(data)
        self.training, self.validation = made.train, made.val
        self.model = build(spec, "Sam3Model", {}).to(device)
        cast(nn.Module, getattr(self.model, GEOMETRY)).requires_grad_(False)
        self.words = Words(spec, self.model)
        attach_on(self.model, lambda: self.predict(self.training, range(min(SEEN, self.training.size))))
        self.mass_sites = tuple(name for name in attached(self.model) if name.endswith(".vision_cross_attn"))
        self.measures = tuple(f"attn/object_mass/{site}" for site in self.mass_sites)

    def final(self) -> dict[str, float]:
        return {}

    @torch.no_grad()
    def probe(self, seen: Mapping[str, Tap]) -> dict[str, Tensor]:
        """Attention mass of matched queries on their object, mean over heads and pairs, in every decoder layer,
        weighted by how much of a patch the object covers."""
        with watched(self.model, maps=self.mass_sites) as maps:
            predictions, batch = self.predict(self.validation, range(min(PROBE, self.validation.size)))
        _, matches = segment_losses(predictions, batch, self.spec.loss)
        return {
            f"attn/object_mass/{site}": mass(cast(Tensor, maps[site].weights), batch, matches)
            for site in self.mass_sites
        }

    def predict(self, samples: Samples, rows: Iterable[int]) -> tuple[Predictions, Batch]:
        rows = list(rows)
        batch = samples.batch(rows).to(self.device)
        tokens, token_mask = self.words(samples, rows, batch)
        return find(self.model, batch.images, tokens, token_mask, self.side), batch


class Words:
    """Prompts as token ids: our small vocabulary for a fresh model, its own tokenizer for a loaded one."""

    def __init__(self, spec: HfSpec, model: nn.Module) -> None:
        text = cast(Any, model).config.text_config
        self.length: int = text.max_position_embeddings
        self.tokenizer: Any = None
        if spec.model.path is not None:
            self.tokenizer = transformers().AutoTokenizer.from_pretrained(
                folder_of(spec.model), local_files_only=True, trust_remote_code=False
            )
        elif text.vocab_size < len(VOCABULARY):
            raise wrong(("model", "config", "text_config", "vocab_size"), f"must be at least {len(VOCABULARY)}")
        elif self.length < LENGTH:
            path = ("model", "config", "text_config", "max_position_embeddings")
            raise wrong(path, f"must be at least {LENGTH}")

    def __call__(self, samples: Samples, rows: list[int], batch: Batch) -> tuple[Tensor, Tensor]:
        """Token ids and which are no padding, [B, S]."""
        if self.tokenizer is None:
            return batch.tokens, batch.token_mask
        prompts = [samples[row].prompt for row in rows]
        read = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        device = batch.tokens.device
        return read["input_ids"].to(device), read["attention_mask"].to(device).bool()


def mass(weights_BHTS: Tensor, batch: Batch, matches: Matches) -> Tensor:
    """Mean attention of matched queries on the patches of their object. Query position 0 is the presence token."""
    grid = round(weights_BHTS.shape[-1] ** 0.5)
    cover = F.adaptive_avg_pool2d(batch.masks.float(), grid).flatten(2)[matches.rows, matches.targets]  # n, S
    rows = weights_BHTS[matches.rows, :, matches.queries + 1]  # n, H, S
    return (rows * cover.unsqueeze(1)).sum(-1).mean()
