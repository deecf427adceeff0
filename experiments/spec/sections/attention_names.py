"""The closed lists of names that attention knows, and the one table of its variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Variant = Literal["full", "no_q", "no_k", "no_v", "tied_qk", "no_qk", "const_q", "uniform"]
Matrix = Literal["W_q", "W_k", "W_v", "W_o"]
MATRICES: tuple[Matrix, ...] = get_args(Matrix)
# The gradient chain, in the order in which the gradient passes: from the loss to W_q.
STATIONS = ("pred", "queries", "out", "mix", "weights", "logits", "Q", "W_q")


@dataclass(frozen=True)
class VariantFacts:
    """What every world knows of one of our variants; its forward pass is in `workers/trainer/attention/variants.py`,
    and a test compares the two."""

    owned: tuple[Matrix, ...]
    leaves_out: str  # one sentence, for people
    identity_width: Literal["d_k", "d_v"] | None = None  # must be d_model / heads: an identity replaces a projection
    query_vector: bool = False  # one learned query besides the matrices


VARIANT_TABLE: Mapping[str, VariantFacts] = {
    "full": VariantFacts(MATRICES, "Leaves nothing out: Q = X·W_q, K = Y·W_k, V = Y·W_v."),
    "no_q": VariantFacts(("W_k", "W_v", "W_o"), "Leaves out W_q: the queries are the input itself (Q = X).", "d_k"),
    "no_k": VariantFacts(("W_q", "W_v", "W_o"), "Leaves out W_k: the keys are the input itself (K = Y).", "d_k"),
    "no_v": VariantFacts(("W_q", "W_k", "W_o"), "Leaves out W_v: the values are the input itself (V = Y).", "d_v"),
    "tied_qk": VariantFacts(("W_q", "W_v", "W_o"), "Leaves out W_k: the keys use W_q as well (K = Y·W_q)."),
    "no_qk": VariantFacts(("W_v", "W_o"), "Leaves out W_q and W_k: inputs are compared (Q = X, K = Y).", "d_k"),
    "const_q": VariantFacts(
        ("W_k", "W_v", "W_o"), "Leaves out W_q: all positions share one learned query.", query_vector=True
    ),
    "uniform": VariantFacts(("W_v", "W_o"), "Leaves out W_q and W_k: every key gets the same weight (Q = K = 0)."),
}


def absent(variant: str) -> frozenset[Matrix]:
    """The matrices that a variant of ours does not have; of a package's variant nothing is known."""
    facts = VARIANT_TABLE.get(variant)
    return frozenset(MATRICES) - set(facts.owned) if facts else frozenset()
