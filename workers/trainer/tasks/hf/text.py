"""The task `hf` on text: a causal language model of transformers predicts the next character."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from experiments.spec import HfSpec, SpecError, TextData
from workers.trainer.data.tokens.lookups import Ints
from workers.trainer.task import Picture
from workers.trainer.tasks.hf.models import SEEN, attach_on, build, wrong
from workers.trainer.tasks.language import LanguageTask

LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")


class HfTextTask(LanguageTask):
    """As `language`, with the logits of a transformers model. Words of a loaded model beyond the characters of the text
    are never right."""

    def __init__(self, spec: HfSpec, device: torch.device) -> None:
        self.hf = spec
        super().__init__(cast(Any, spec), device)
        attach_on(self.model, lambda: self._logits(self.model, self._val[:SEEN]))

    def untrained(self) -> nn.Module:  # type: ignore[override]
        """The model as this seed initializes it."""
        data = cast(TextData, self.hf.data)
        model = build(self.hf, "AutoModelForCausalLM", {"vocab_size": data.characters})
        config = cast(Any, model).config
        config.use_cache = False
        room = next((room for name in LENGTHS if isinstance(room := getattr(config, name, None), int)), None)
        if room is not None and room < data.context:
            raise wrong(("data", "context"), f"the model reads at most {room} characters")
        if config.vocab_size < data.characters:
            raise wrong(("data", "characters"), f"the model distinguishes at most {config.vocab_size} characters")
        return model

    def not_causal(self, position: int) -> SpecError:
        config = cast(Any, self.model).config
        message = f"not causal: the prediction at position {position} changes with later characters; "
        switch = next((name for name in ("causal", "is_decoder") if getattr(config, name, None) is False), None)
        if switch:
            message += f"set {switch}: true"
        else:
            message += f"a {config.model_type} of this configuration cannot be trained to predict the next character"
        return wrong(("model", "path" if self.hf.model.path else "config"), message)

    def draw(self, count: int) -> Iterator[Picture]:
        return iter(())

    def _logits(self, model: nn.Module, drawn: Ints) -> Tensor:
        ids = torch.from_numpy(drawn[:, :-1].copy()).to(self.device)
        logits: Tensor = model(input_ids=ids).logits
        return logits  # BTC
