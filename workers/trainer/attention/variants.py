"""The attention variants that a spec can name: one class each, one registry."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.spec import Attention as AttentionSpec
from experiments.spec import FieldError, Kind, SpecError
from workers.trainer.attention.attention import Attention
from workers.trainer.attention.by_hand import product
from workers.trainer.plugins import load


class Full(Attention):
    """The textbook form: Q = X·W_q, K = Y·W_k, V = Y·W_v."""


class NoQ(Attention):
    """Q = X."""

    owned = ("W_k", "W_v", "W_o")

    def queries(self, x: Tensor) -> Tensor:
        return x


class NoK(Attention):
    """K = Y."""

    owned = ("W_q", "W_v", "W_o")

    def keys(self, y: Tensor) -> Tensor:
        return y


class NoV(Attention):
    """V = Y."""

    owned = ("W_q", "W_k", "W_o")

    def values(self, y: Tensor) -> Tensor:
        return y


class TiedQK(Attention):
    """K = Y·W_q: scores are symmetric in self-attention."""

    owned = ("W_q", "W_v", "W_o")

    def keys(self, y: Tensor) -> Tensor:
        return y @ self.W_q

    def gradient_of_W_q(self, x_BTM: Tensor, y_BSM: Tensor, d_q_BHTD: Tensor, d_k_BHSD: Tensor) -> Tensor:
        """The sum of two paths: Xᵀ·dQ + Yᵀ·dK."""
        d_k_BSN = self.merge(self._before_norm(self.keys(y_BSM), d_k_BHSD))
        through_queries = super().gradient_of_W_q(x_BTM, y_BSM, d_q_BHTD, d_k_BHSD)
        return through_queries + product(y_BSM.flatten(0, -2).T, d_k_BSN.flatten(0, -2))


class NoQK(Attention):
    """Q = X, K = Y: in self-attention scores are X·Xᵀ."""

    owned = ("W_v", "W_o")
    queries, keys = NoQ.queries, NoK.keys


class ConstQ(Attention):
    """One learned query for every position: the keys alone decide the weights."""

    owned = ("W_k", "W_v", "W_o")
    bilinear = False

    def __init__(self, d_model: int, heads: int, spec: AttentionSpec) -> None:
        super().__init__(d_model, heads, spec)
        self.query = nn.Parameter(torch.empty(1, heads * self.d_k))
        self.reset_parameters()

    def queries(self, x: Tensor) -> Tensor:
        return self.query.expand(*x.shape[:-1], -1)


class Uniform(Attention):
    """Equal weights for all keys: Q = K = 0."""

    owned = ("W_v", "W_o")
    bilinear = has_query_gradient = False

    def queries(self, x: Tensor) -> Tensor:
        return x.new_zeros(*x.shape[:-1], self.heads * self.d_k)

    def keys(self, y: Tensor) -> Tensor:
        return y.new_zeros(*y.shape[:-1], self.heads * self.d_k)


VARIANTS: dict[str, type[Attention]] = {
    "full": Full,
    "no_q": NoQ,
    "no_k": NoK,
    "no_v": NoV,
    "tied_qk": TiedQK,
    "no_qk": NoQK,
    "const_q": ConstQ,
    "uniform": Uniform,
}


def build_attention(d_model: int, heads: int, spec: AttentionSpec, kind: Kind) -> Attention:
    """A site whose keys come from `kind`: self, text, image or text_to_image."""
    own = spec.of(kind)
    if d_model % heads and not (own.d_k and own.d_v):  # older versions accepted it and trained another model
        message = f"d_model ({d_model}) must be divisible by heads ({heads}): each head gets d_model / heads columns"
        raise SpecError([FieldError(("model", "d_model"), message)])
    variant: type[Attention] = VARIANTS.get(own.variant) or load("variants", own.variant)
    return variant(d_model, heads, own)
