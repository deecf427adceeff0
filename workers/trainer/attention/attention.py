"""Multi-head attention with explicit matrices. X @ W layout, no bias.

Shapes: B batch, T queries, S keys, H heads, M = d_model, D = d_k columns of a head in Q and K, E = d_v columns of a
head in V (both M / H unless the spec sets them).
W_q and W_k are [M, H·D], W_v is [M, H·E], W_o is [H·E, M]; head h owns columns h·D:(h+1)·D of the first two,
h·E:(h+1)·E of the third and the same rows of W_o.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workers.trainer.adapt.maps import masked_softmax
from workers.trainer.attention.by_hand import product

if TYPE_CHECKING:  # not imported at run time: `recording` works beside another package `experiments`
    from experiments.spec import Attention as AttentionSpec

MATRICES = ("W_q", "W_k", "W_v", "W_o")
Attend = Callable[[Tensor, Tensor, Tensor, "Tensor | None", float], Tensor]


class QKV(NamedTuple):
    """Q, K and V of one call, per head."""

    q_BHTD: Tensor
    k_BHSD: Tensor
    v_BHSE: Tensor


@dataclass(frozen=True)
class Tap:
    """The tensors of one call, with their autograd graph where there is one."""

    x_BTM: Tensor  # gives the queries
    y_BSM: Tensor  # gives the keys and values: x itself in self-attention
    q_BHTD: Tensor
    k_BHSD: Tensor
    v_BHSE: Tensor
    mask: Tensor | None  # True where a query may attend to a key; broadcasts to BHTS
    scale: float
    mix_BTN: Tensor  # the heads' outputs side by side, before W_o: N = H·E
    out_BTM: Tensor


def attention_weights(q_BHTD: Tensor, k_BHSD: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(QKᵀ·scale) over the allowed keys (mask True); a fully masked row is all zeros."""
    return masked_softmax(q_BHTD @ k_BHSD.transpose(-2, -1) * scale, mask)[1]  # BHTS


def plain_attention(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSE: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The reference: softmax(QKᵀ·scale)V, written out."""
    return attention_weights(q_BHTD, k_BHSD, mask, scale) @ v_BHSE  # BHTE


def fused_attention(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSE: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The same with PyTorch's fused kernel, which never stores the map."""
    return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSE, attn_mask=mask, scale=scale)


class Core(nn.Module):
    """Calls `attend` on Q, K and V. A module of its own, so that torch's hooks reach Q, K, V and the heads' outputs
    (workers.trainer.attention.hooks)."""

    def forward(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        return attend(q, k, v, mask, scale)  # BHTE


class Attention(nn.Module):
    """Base of every variant. A variant lists the matrices it owns and overrides `queries`, `keys` or `values`.

    `attend` computes softmax(QKᵀ·scale)V: the fused kernel, unless a variant or `plain_attention` replaces it.
    """

    names_its_matrices = True  # `attach` skips it
    owned: tuple[str, ...] = MATRICES
    bilinear = True  # scores are x·M·yᵀ, M made of weights alone; false where queries do not depend on x
    has_query_gradient = True  # a gradient reaches Q
    W_q: nn.Parameter
    W_k: nn.Parameter
    W_v: nn.Parameter
    W_o: nn.Parameter

    def __init_subclass__(cls, **named: Any) -> None:
        """Refuses a variant that was written for 0.1.0: its own start would be left out in silence."""
        super().__init_subclass__(**named)
        if "start" in vars(cls):
            raise TypeError(f"{cls.__name__}.start is never called: it is named `initialize` now")

    def __init__(self, d_model: int, heads: int, spec: AttentionSpec) -> None:
        super().__init__()
        self.heads, self.spec = heads, spec
        self.d_k, self.d_v = spec.d_k or d_model // heads, spec.d_v or d_model // heads
        self.scale = 1.0 if spec.scale == "none" else 1.0 / math.sqrt(self.d_k)
        self.attend: Attend = fused_attention
        self.core = Core()
        qk, v = heads * self.d_k, heads * self.d_v
        shapes = {"W_q": (d_model, qk), "W_k": (d_model, qk), "W_v": (d_model, v), "W_o": (v, d_model)}
        for name in self.owned:
            self.register_parameter(name, nn.Parameter(torch.empty(shapes[name])))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for parameter in self.parameters(recurse=False):
            self.initialize(parameter)

    def initialize(self, parameter: nn.Parameter) -> None:
        """Draw one parameter from torch's current random state."""
        INITIALIZERS[self.spec.init](parameter, self.spec.init_std)

    def queries(self, x: Tensor) -> Tensor:
        return x @ self.W_q

    def keys(self, y: Tensor) -> Tensor:
        return y @ self.W_k

    def values(self, y: Tensor) -> Tensor:
        return y @ self.W_v

    def forward(self, x_BTM: Tensor, y_BSM: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Queries come from x, keys and values from y (x when y is None). `mask` is boolean, True where a query may
        attend to a key, and broadcasts to BHTS."""
        y = x_BTM if y_BSM is None else y_BSM
        q_BHTD = self._normed(self.split(self.queries(x_BTM)))
        k_BHSD = self._normed(self.split(self.keys(y)))
        v_BHSE = self.split(self.values(y))
        heads_BHTE: Tensor = self.core(self.attend, q_BHTD, k_BHSD, v_BHSE, mask, self.scale)
        return self.merge(heads_BHTE) @ self.W_o

    def gradient_of_W_q(self, x_BTM: Tensor, y_BSM: Tensor, d_q_BHTD: Tensor, d_k_BHSD: Tensor) -> Tensor:
        """∂loss/∂W_q from the gradients at Q and K as they are compared: Xᵀ·dQ, summed over the batch."""
        d_q_BTN = self.merge(self._before_norm(self.queries(x_BTM), d_q_BHTD))
        return product(x_BTM.flatten(0, -2).T, d_q_BTN.flatten(0, -2))

    def _before_norm(self, x_BTN: Tensor, d_BHTD: Tensor) -> Tensor:
        """The gradient before QK-norm from the one after it: for y = x/r, dx = (dy − y·mean(y∘dy))/r."""
        if not self.spec.qk_norm:
            return d_BHTD
        x = self.split(x_BTN)
        root = (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()
        y = x / root
        return (d_BHTD - y * (y * d_BHTD).mean(-1, keepdim=True)) / root

    def split(self, x_BTN: Tensor) -> Tensor:
        """Split columns into heads: BHTD."""
        return x_BTN.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def merge(self, x_BHTD: Tensor) -> Tensor:
        """The heads side by side: BTN, N = H·D."""
        return x_BHTD.transpose(1, 2).flatten(-2)

    def _normed(self, x_BHTD: Tensor) -> Tensor:
        return F.rms_norm(x_BHTD, x_BHTD.shape[-1:]) if self.spec.qk_norm else x_BHTD


INITIALIZERS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "normal": lambda weight, std: nn.init.normal_(weight, std=std),
    "xavier": lambda weight, _std: nn.init.xavier_uniform_(weight),
    "orthogonal": lambda weight, _std: nn.init.orthogonal_(weight),
    "zeros": lambda weight, _std: nn.init.zeros_(weight),
}
