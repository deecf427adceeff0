"""Attention without softmax, sequences whose answer is their first symbol, and the task of recalling it.

Shapes: B sequences, T places, H heads, D columns of a head.
"""

import numpy as np
import torch
from torch.nn import functional as F

from experiments.spec import FieldError, SpecError, TokenModel
from workers.trainer.attention import Attention
from workers.trainer.attention.sites import initialize_weights
from workers.trainer.nets.tokens import TokenModel as Net
from workers.trainer.plugins import load


def linear_attention(q_BHTD, k_BHSD, v_BHSD, mask, scale):
    """φ(Q)·(φ(K)ᵀV), each query's weights divided by their sum; φ = elu + 1."""
    weights = (F.elu(q_BHTD * scale) + 1) @ (F.elu(k_BHSD) + 1).transpose(-2, -1)  # BHTS
    if mask is not None:
        weights = weights.masked_fill(~mask, 0)
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-6) @ v_BHSD


class Linear(Attention):
    """The variant `attn_example.linear`."""

    def __init__(self, d_model, heads, spec):
        super().__init__(d_model, heads, spec)
        self.attend = linear_attention


def first(split, indices, length, symbols):
    """The dataset `attn_example.first`: symbols [B, T] by (split, index) alone, and the first of each sequence."""
    tokens = np.stack([np.random.default_rng([split, int(index)]).integers(symbols, size=length) for index in indices])
    return torch.from_numpy(tokens), torch.from_numpy(tokens[:, 0])


class RecallTask:
    """The task `attn_example.recall`: the last place names the first symbol."""

    parts = ("cross_entropy",)
    metrics = ("accuracy",)
    measures = ()
    finals = ("accuracy",)

    def __init__(self, spec, device):
        self.spec, self.device = spec, device
        data = {"length": 8, "symbols": 6, **spec.data.model_dump(exclude={"dataset"})}
        if extra := data.keys() - {"length", "symbols"}:
            raise SpecError([FieldError(("data", name), "unknown field") for name in sorted(extra)])
        self.sizes = data["length"], data["symbols"]
        self.draw_batch = load("datasets", spec.data.dataset)
        sizes = TokenModel.model_validate(spec.model.model_dump())
        self.model = Net(sizes, sizes=[data["symbols"]], length=data["length"], classes=data["symbols"])
        initialize_weights(self.model, spec.seed)
        self.model.to(device)

    def losses(self, micro_step):
        size = self.spec.train.batch_size
        logits, wanted = self._answer(1, range(micro_step * size, (micro_step + 1) * size))
        loss = F.cross_entropy(logits, wanted)
        return {"cross_entropy": loss, "total": loss}

    @torch.no_grad()
    def evaluate(self):
        return {"accuracy": self._accuracy(2)}

    @torch.no_grad()
    def final(self):
        return {"accuracy": self._accuracy(3)}

    def draw(self, count):
        return []

    @torch.no_grad()
    def probe(self, seen):
        self._answer(2, range(16))
        return {}

    def _accuracy(self, split):
        logits, wanted = self._answer(split, range(128))
        return (logits.argmax(-1) == wanted).float().mean().item()

    def _answer(self, split, indices):
        tokens, wanted = self.draw_batch(split, indices, *self.sizes)
        logits = self.model(tokens.to(self.device).unsqueeze(-1))
        return logits[:, -1], wanted.to(self.device)
