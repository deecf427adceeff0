"""What pointer and roles share: every token names the content of another token.

Shapes: B sequences, T positions, H heads, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.spec import PointerSpec, RolesSpec
from workers.trainer.attention import Tap
from workers.trainer.attention.hooks import taps
from workers.trainer.attention.instruments import object_mass, pointing
from workers.trainer.attention.sites import initialize_weights, sites
from workers.trainer.data.draws import Split, stream
from workers.trainer.data.tokens.lookups import PADDING, Ints, Lookups
from workers.trainer.nets.tokens import TokenModel
from workers.trainer.recording.probe import weights_of
from workers.trainer.task import Picture
from workers.trainer.tasks import token_pictures
from workers.trainer.tasks.lookup.swaps import Pairs, following, swapped

PROBE = 64  # validation sequences in the fixed probe batch
FOLLOWED = 16  # of them, through which the gradient is followed
CHUNK = 512  # sequences that a measurement runs at once


@dataclass(frozen=True)
class Batch:
    """Lookups as tensors."""

    fields: Tensor  # BTF
    mask: Tensor | None  # B11T, None without padding
    truth: Tensor  # BT
    gold: Tensor  # BTT
    present: Tensor  # BT

    @classmethod
    def of(cls, lookups: Lookups, device: torch.device) -> Batch:
        fields, truth, gold, present = (
            torch.from_numpy(array).to(device)
            for array in (lookups.fields, lookups.truth(), lookups.gold, lookups.present)
        )
        mask = None if lookups.present.all() else present[:, None, None, :]
        return cls(fields, mask, truth, gold, present)


class LookupTask(ABC):
    """Cross-entropy over the contents, and attention mass on the gold relations."""

    parts = ("cross_entropy",)
    metrics = ("accuracy", "loss")
    finals: tuple[str, ...] = ()

    def __init__(
        self, spec: PointerSpec | RolesSpec, device: torch.device, *, sizes: Sequence[int], length: int, classes: int
    ) -> None:
        self.spec, self.device = spec, device
        self._shape = {"sizes": sizes, "length": length, "classes": classes}
        self.model = self.untrained().to(device)
        self.measures = tuple(
            f"attn/{measure}/{site}" for site in sites(self.model) for measure in ("object_mass", "pointing")
        )
        self._step: dict[int, Lookups] = {}  # micro-batches of the current step
        self._val = self.lookups("val", np.arange(spec.data.val_size))

    @abstractmethod
    def lookups(self, split: Split, indices: Ints) -> Lookups:
        """Sequences of a split."""

    @abstractmethod
    def labels(self, fields_TF: Ints) -> list[str]:
        """A word for each token, for display."""

    def untrained(self) -> TokenModel:
        """The model as this seed initializes it."""
        model = TokenModel(self.spec.model, **self._shape)  # type: ignore[arg-type]  # one mapping for three types
        initialize_weights(model, self.spec.seed)
        return model

    def losses(self, micro_step: int, step: range | None = None) -> dict[str, Tensor]:
        self._step = {each: self._step.get(each) or self._training(each) for each in step or (micro_step,)}
        drawn = Batch.of(self._step[micro_step], self.device)
        whole = sum(int(lookups.present.sum()) for lookups in self._step.values()) if step else None
        loss = cross_entropy(self.model(drawn.fields, drawn.mask), drawn, whole)
        return {"cross_entropy": loss, "total": loss}

    def _training(self, micro_step: int) -> Lookups:
        size = self.spec.train.batch_size
        return self.lookups("train", stream(self.spec.seed, micro_step * size, size))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        drawn = Batch.of(self._val, self.device)
        logits = self.model(drawn.fields, drawn.mask)
        return {"accuracy": _accuracy(logits, drawn), "loss": cross_entropy(logits, drawn).item()}

    @torch.no_grad()
    def draw(self, count: int) -> Iterator[Picture]:
        """The best head's map of the first validation sequences, in the last layer."""
        some = self._val.rows(slice(0, count))
        drawn = Batch.of(some, self.device)
        with taps(self.model) as seen:
            guesses = self.model(drawn.fields, drawn.mask).argmax(-1).cpu().numpy()
        weights = weights_of(seen[list(seen)[-1]])
        best = int(masses(weights, drawn).argmax())
        for sample, maps in enumerate(weights[:, best].cpu().numpy()):
            yield self._picture(sample, some, guesses[sample], maps)

    def _picture(self, sample: int, some: Lookups, guesses: Ints, maps: NDArray[np.float32]) -> Picture:
        length = int(some.present[sample].sum())
        truth = some.truth()[sample, :length]
        right = int((guesses[:length] == truth).sum())
        labels = self.labels(some.fields[sample, :length])
        image = token_pictures.heat(
            maps[:length, :length], labels, some.targets[sample, :length], f"{right} of {length} right", right == length
        )
        meta = {"sample": sample, "tokens": labels, "truth": truth.tolist(), "predicted": guesses[:length].tolist()}
        return Picture(f"sample-{sample}", image, meta)

    @torch.no_grad()
    def probe(self, seen: Mapping[str, Tap]) -> dict[str, Tensor]:
        """Of each site's best head: mass on the gold relations, and share of the tokens with their maximum there."""
        drawn = Batch.of(self._val.rows(slice(0, PROBE)), self.device)
        self.model(drawn.fields, drawn.mask)
        measures = {}
        for site, tap in seen.items():
            weights = weights_of(tap)
            measures[f"attn/object_mass/{site}"] = masses(weights, drawn).max()
            measures[f"attn/pointing/{site}"] = over_tokens(pointing(weights, drawn.gold[:, None].float()), drawn).max()
        return measures

    def passed(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """See chain.Chained."""
        drawn = Batch.of(self._val.rows(slice(0, FOLLOWED)), self.device)
        logits: Tensor = model(drawn.fields, drawn.mask)
        return cross_entropy(logits, drawn), logits

    @abstractmethod
    def final(self) -> dict[str, float]:
        """See Task."""

    def scores(self, model: nn.Module, test: Lookups, prefix: str = "") -> dict[str, float]:
        accuracy, gold_mass = self.accuracy(model, test), self.chosen_gold_mass(model, test)
        return {f"{prefix}accuracy": accuracy, f"{prefix}gold_mass": gold_mass}

    def test(self) -> Lookups:
        return self.lookups("test", np.arange(self.spec.data.test_size))

    def accuracy(self, model: nn.Module, lookups: Lookups) -> float:
        """Share of the tokens, without padding, that name the right content."""
        present = lookups.present
        return float((self.predictions(model, lookups) == lookups.truth())[present].mean())

    @torch.no_grad()
    def predictions(self, model: nn.Module, lookups: Lookups, role: str = "", order: Ints | None = None) -> Ints:
        """NT: the predicted class at each position, with Q, K or V (`role`) in another `order`, if given."""
        chunks = []
        for start in range(0, len(lookups.fields), CHUNK):
            rows = slice(start, start + CHUNK)
            drawn = Batch.of(lookups.rows(rows), self.device)
            with nullcontext() if order is None else swapped(model, role, self._tensor(order[rows])):
                chunks.append(model(drawn.fields, drawn.mask).argmax(-1))
        predictions: Ints = torch.cat(chunks).cpu().numpy()
        return predictions

    def _tensor(self, array: Ints) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def swap(self, model: nn.Module, lookups: Lookups, pairs: Pairs, role: str) -> float:
        """Share of the affected tokens whose class changes as expected."""
        order = pairs.order(lookups.fields.shape[1])
        return following(lookups, self.predictions(model, lookups, role, order), order, role)

    @torch.no_grad()
    def gold_mass(self, model: nn.Module, lookups: Lookups) -> dict[tuple[str, int], float]:
        """Mean attention mass on the gold relations by (site, head)."""
        sums: dict[tuple[str, int], float] = {}
        tokens = int(lookups.present.sum())
        for start in range(0, len(lookups.fields), CHUNK):
            drawn = Batch.of(lookups.rows(slice(start, start + CHUNK)), self.device)
            with taps(model) as seen:
                model(drawn.fields, drawn.mask)
            for site, tap in seen.items():
                for head, mass in enumerate((masses(weights_of(tap), drawn) * drawn.present.sum()).tolist()):
                    sums[site, head] = sums.get((site, head), 0.0) + mass / tokens
        return sums

    def chosen_gold_mass(self, model: nn.Module, test: Lookups) -> float:
        """Gold mass on `test` of the head with the most on the validation split."""
        val = self.gold_mass(model, self._val)
        return self.gold_mass(model, test)[max(val, key=lambda key: val[key])]


def masses(weights_BHTS: Tensor, drawn: Batch) -> Tensor:
    """Mean over the tokens, without padding, of Σ_j A_ij over the gold j of i: [H]."""
    return over_tokens(object_mass(weights_BHTS, drawn.gold[:, None]), drawn)


def over_tokens(values_BHT: Tensor, drawn: Batch) -> Tensor:
    """Mean over the tokens, without padding: [H]."""
    return (values_BHT * drawn.present[:, None]).sum((0, 2)) / drawn.present.sum()


def cross_entropy(logits_BTC: Tensor, drawn: Batch, whole: int | None = None) -> Tensor:
    """Mean over the tokens, without padding. With `whole`, the tokens of a step: the batch's part of that mean."""
    logits, wanted = logits_BTC.flatten(0, 1), drawn.truth.flatten()
    if whole is None:
        return F.cross_entropy(logits, wanted, ignore_index=PADDING)
    return F.cross_entropy(logits, wanted, ignore_index=PADDING, reduction="sum") / whole


def _accuracy(logits_BTC: Tensor, drawn: Batch) -> float:
    return (logits_BTC.argmax(-1) == drawn.truth)[drawn.present].float().mean().item()
