"""A small transformer over tokens of several fields.

Shapes: B sequences, T positions, F fields of a token, M = d_model, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from experiments.spec import TokenModel as TokenModelSpec
from workers.trainer.nets.layers import EncoderLayer


class TokenLayer(EncoderLayer):
    """Pre-norm self-attention, then feed-forward; without `residual`, neither adds its input."""

    def __init__(self, spec: TokenModelSpec) -> None:
        super().__init__(spec)
        self.residual = spec.residual

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.residual:
            return super().forward(x, mask)
        out: Tensor = self.ffn(self.self_attention(self.norm(x), mask=mask))
        return out


class TokenModel(nn.Module):
    """The sum of a token's field and position embeddings through encoder layers; every position is classified."""

    def __init__(self, spec: TokenModelSpec, *, sizes: Sequence[int], length: int, classes: int) -> None:
        super().__init__()
        self.fields = nn.ModuleList(nn.Embedding(size, spec.d_model) for size in sizes)
        self.positions = nn.Embedding(length, spec.d_model)
        self.encoder = nn.ModuleList(TokenLayer(spec) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(spec.d_model)
        self.head = nn.Linear(spec.d_model, classes)

    def forward(self, fields_BTF: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits BTC. `mask` is True where attention is allowed and broadcasts to BHTS."""
        x = self.positions.weight[: fields_BTF.shape[1]]
        for index, table in enumerate(self.fields):
            x = x + table(fields_BTF[..., index])  # BTM
        for layer in self.encoder:
            x = layer(x, mask)
        logits: Tensor = self.head(self.norm(x))
        return logits


def causal(length: int, device: torch.device) -> Tensor:
    """True where a token may attend: itself and those before it. TT."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
