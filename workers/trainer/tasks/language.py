"""The task `language`: predict the next character.

Shapes: B stretches, T characters, C distinct characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.spec import FieldError, LanguageSpec, SpecError
from workers.trainer.attention import Tap
from workers.trainer.attention.hooks import taps
from workers.trainer.attention.sites import initialize_weights
from workers.trainer.data.draws import stream
from workers.trainer.data.tokens import text
from workers.trainer.data.tokens.lookups import Ints
from workers.trainer.nets.tokens import TokenModel, causal
from workers.trainer.recording.probe import weights_of
from workers.trainer.task import Picture
from workers.trainer.tasks import token_pictures
from workers.trainer.tasks.causal import sees_future

PROBE, EVALUATED, TESTED = 16, 64, 256  # stretches of a probe, an evaluation and the final score
FOLLOWED = 4  # stretches of a probe for the gradient chain
DRAWN = 16  # characters of a picture


class LanguageTask:
    """Cross-entropy in nats a character under a causal mask."""

    parts = ("cross_entropy",)
    metrics = ("accuracy", "loss")
    measures: tuple[str, ...] = ()
    finals = ("accuracy", "loss", "untrained/loss", "unigram/loss")

    def __init__(self, spec: LanguageSpec, device: torch.device) -> None:
        self.spec, self.device = spec, device
        self.text = text.load(spec.data)
        self.mask = causal(spec.data.context, device)
        self.model = self.untrained().to(device)
        self._val = text.stretches(self.text.parts["val"], EVALUATED, spec.data.context)
        self._check_causal()

    def untrained(self) -> TokenModel:
        """The model as this seed initializes it."""
        data = self.spec.data
        model = TokenModel(self.spec.model, sizes=(data.characters,), length=data.context, classes=data.characters)
        initialize_weights(model, self.spec.seed)
        return model

    def not_causal(self, position: int) -> SpecError:
        """The error for a model whose prediction at `position` changes with later characters."""
        text = f"not causal: the prediction at position {position} changes with later characters; use another variant"
        return SpecError([FieldError(("model", "attention", "variant"), text)])

    def _check_causal(self) -> None:
        """Raises SpecError if predictions use later characters: every score would be too good."""
        context, classes = self.spec.data.context, self.spec.data.characters

        def logits(ids: Ints) -> Tensor:  # the last of what is drawn is never read
            return self._logits(self.model, np.concatenate([ids, ids[:, -1:]], 1))

        position = sees_future(self.model, logits, context, classes)
        if position is not None:
            raise self.not_causal(position)

    def losses(self, micro_step: int) -> dict[str, Tensor]:
        size = self.spec.train.batch_size
        chosen = stream(self.spec.seed, micro_step * size, size)
        drawn = text.windows(self.text.parts["train"], "train", chosen, self.spec.data.context)
        loss, _ = self._score(self.model, drawn)
        return {"cross_entropy": loss, "total": loss}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        loss, right = self._score(self.model, self._val)
        return {"accuracy": right.item(), "loss": loss.item()}

    @torch.no_grad()
    def draw(self, count: int) -> Iterator[Picture]:
        """The first head of the last layer over the last characters of a stretch."""
        stretches = self._val[:count]
        with taps(self.model) as seen:
            guesses = self._logits(self.model, stretches).argmax(-1).cpu().numpy()
        weights = weights_of(seen[list(seen)[-1]])[:, 0].cpu().numpy()
        for sample, ids in enumerate(stretches):
            yield self._picture(sample, ids, guesses[sample], weights[sample])

    def _picture(self, sample: int, ids: Ints, guesses: Ints, maps: NDArray[np.float32]) -> Picture:
        shown = min(DRAWN, len(guesses))
        typed = [self.text.characters[index] for index in ids]
        labels = ["␣" if character.isspace() else character for character in typed[-1 - shown : -1]]
        right = int((guesses == ids[1:]).sum())
        caption = f"{right} of {len(guesses)} characters right"
        targets = np.full(shown, -1)  # none
        image = token_pictures.heat(maps[-shown:, -shown:], labels, targets, caption, 2 * right > len(guesses))
        meta = {"sample": sample, "text": "".join(typed), "right": right}
        return Picture(f"sample-{sample}", image, meta)

    @torch.no_grad()
    def probe(self, seen: Mapping[str, Tap]) -> dict[str, Tensor]:
        self._logits(self.model, self._val[:PROBE])
        return {}

    @torch.no_grad()
    def final(self) -> dict[str, float]:
        drawn = text.stretches(self.text.parts["test"], TESTED, self.spec.data.context)
        loss, right = self._score(self.model, drawn)
        untrained, _ = self._score(self.untrained().to(self.device).eval(), drawn)
        return {
            "accuracy": right.item(),
            "loss": loss.item(),
            "untrained/loss": untrained.item(),
            "unigram/loss": unigram_loss(self.text.parts["train"], drawn[:, 1:], self.spec.data.characters),
        }

    def passed(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """See chain.Chained."""
        return self._loss(model, self._val[:FOLLOWED])

    def _logits(self, model: nn.Module, drawn: Ints) -> Tensor:
        fields = torch.from_numpy(drawn[:, :-1, None]).to(self.device)
        logits: Tensor = model(fields, self.mask)
        return logits  # BTC

    def _score(self, model: nn.Module, drawn: Ints) -> tuple[Tensor, Tensor]:
        """Mean loss, and share of the characters predicted right."""
        loss, logits = self._loss(model, drawn)
        return loss, (logits.argmax(-1) == self._wanted(drawn)).float().mean()

    def _loss(self, model: nn.Module, drawn: Ints) -> tuple[Tensor, Tensor]:
        logits = self._logits(model, drawn)
        return F.cross_entropy(logits.flatten(0, 1), self._wanted(drawn).flatten()), logits

    def _wanted(self, drawn: Ints) -> Tensor:
        return torch.from_numpy(drawn[:, 1:].copy()).to(self.device)


def unigram_loss(train: Ints, wanted: Ints, characters: int) -> float:
    """Nats a character of guessing by frequency alone, with one added to every count."""
    counts = np.bincount(train, minlength=characters) + 1
    return float(-np.log(counts / counts.sum())[wanted].mean())
