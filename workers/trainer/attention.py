"""Multi-head attention with explicit matrices. X @ W layout, no bias.

Shapes: B batch, T asking tokens, S answering tokens, H heads, D columns of a head, M = H·D = d_model.
W_q, W_k, W_v are [M, H·D], W_o is [H·D, M]; head h owns columns h·D:(h+1)·D of the first three and
the same rows of W_o.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.spec import Attention as AttentionSpec

MATRICES = ("W_q", "W_k", "W_v", "W_o")


@dataclass(frozen=True)
class Tap:
    """What a probe sees of one call: projected queries and keys, and who may be asked."""

    q_BHTD: Tensor
    k_BHSD: Tensor
    mask: Tensor | None
    scale: float


def attention_weights(q_BHTD: Tensor, k_BHSD: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(QKᵀ·scale) over the allowed keys (mask True); a row that may ask nobody is all zeros."""
    logits = q_BHTD @ k_BHSD.transpose(-2, -1) * scale
    if mask is None:
        return logits.softmax(-1)  # BHTS
    weights = logits.masked_fill(~mask, -math.inf).softmax(-1)
    return weights.masked_fill(~mask.any(-1, keepdim=True), 0.0)  # BHTS


def plain_attention(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The reference: softmax(QKᵀ·scale)V, written out."""
    return attention_weights(q_BHTD, k_BHSD, mask, scale) @ v_BHSD  # BHTD


def fused_attention(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The same through PyTorch's fused kernel, which never stores the map."""
    return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, attn_mask=mask, scale=scale)


class Attention(nn.Module):
    """Base of every variant: owns the matrices in `owned`, projects, compares, mixes.

    A variant says which matrices it owns and overrides `queries`, `keys` or `values`.
    `attend` may be swapped for `plain_attention`; `tap`, where set, is called with each forward's Q and K.
    """

    owned: tuple[str, ...] = MATRICES
    W_q: nn.Parameter
    W_k: nn.Parameter
    W_v: nn.Parameter
    W_o: nn.Parameter

    def __init__(self, d_model: int, heads: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.heads, self.spec = heads, spec
        self.scale = 1.0 if spec.scale == "none" else 1.0 / math.sqrt(d_model // heads)
        self.attend = fused_attention
        self.tap: Callable[[Tap], None] | None = None
        for name in self.owned:
            self.register_parameter(name, nn.Parameter(torch.empty(d_model, d_model)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for parameter in self.parameters(recurse=False):
            self.start(parameter)

    def start(self, parameter: nn.Parameter) -> None:
        """Give one parameter its starting value, from torch's current random state."""
        STARTS[self.spec.init](parameter, self.spec.init_std)

    def queries(self, x: Tensor) -> Tensor:
        return x @ self.W_q

    def keys(self, y: Tensor) -> Tensor:
        return y @ self.W_k

    def values(self, y: Tensor) -> Tensor:
        return y @ self.W_v

    def forward(self, x_BTM: Tensor, y_BSM: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x asks, y answers (x itself when y is None). `mask` is boolean, True where asking is allowed, and
        broadcasts to BHTS."""
        y = x_BTM if y_BSM is None else y_BSM
        q = self._normed(self._split(self.queries(x_BTM)))
        k = self._normed(self._split(self.keys(y)))
        v = self._split(self.values(y))
        if self.tap is not None:
            self.tap(Tap(q, k, mask, self.scale))
        return self._merge(self.attend(q, k, v, mask, self.scale)) @ self.W_o

    def _split(self, x_BTM: Tensor) -> Tensor:
        return x_BTM.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # BHTD

    def _merge(self, x_BHTD: Tensor) -> Tensor:
        return x_BHTD.transpose(1, 2).flatten(-2)  # BTM

    def _normed(self, x_BHTD: Tensor) -> Tensor:
        return F.rms_norm(x_BHTD, x_BHTD.shape[-1:]) if self.spec.qk_norm else x_BHTD


def _normal(weight: Tensor, std: float) -> None:
    nn.init.normal_(weight, std=std)


def _xavier(weight: Tensor, _std: float) -> None:
    nn.init.xavier_uniform_(weight)


def _orthogonal(weight: Tensor, _std: float) -> None:
    nn.init.orthogonal_(weight)


def _zeros(weight: Tensor, _std: float) -> None:
    nn.init.zeros_(weight)


STARTS: dict[str, Callable[[Tensor, float], None]] = {
    "normal": _normal,
    "xavier": _xavier,
    "orthogonal": _orthogonal,
    "zeros": _zeros,
}
