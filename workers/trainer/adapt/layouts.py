"""How libraries store W_q, W_k, W_v and W_o. A module is recognised by the names of its layers, not by its class, so
that no library needs to be installed; the only exception is `torch.nn.MultiheadAttention`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from .adapters import unwrapped
from .parts import Part, interleaved, stretch, whole

SEPARATE = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("to_q", "to_k", "to_v"),
    ("q_lin", "k_lin", "v_lin"),
    ("query_proj", "key_proj", "value_proj"),
    ("wq", "wk", "wv"),
    ("q", "k", "v"),
)
FUSED = ("qkv", "c_attn", "qkv_proj", "to_qkv", "Wqkv", "in_proj")
BY_HEAD = "query_key_value"  # q, k and v of a head are adjacent
OUTPUT = ("o_proj", "out_proj", "c_proj", "proj", "out_lin", "wo", "o", "dense", "projection_layer")
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads", "nhead")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads")


class UnknownLayout(ValueError):
    """Why the matrices of a module that looks like attention cannot be identified."""


def parts_of(module: nn.Module, parent: nn.Module | None) -> dict[str, Part] | None:
    """The matrices of a module under our names; None where it is not attention. Raises UnknownLayout."""
    if isinstance(module, nn.MultiheadAttention):
        return _multihead(module)
    for reader in (_separate, _beside, _fused, _by_head):
        if parts := reader(module):
            return parts | output_of(module, parent, parts)
    return None


def _multihead(module: nn.MultiheadAttention) -> dict[str, Part]:
    heads = module.num_heads
    own = dict(module.named_parameters())
    if "out_proj.weight" not in own:
        raise UnknownLayout("an adapter replaces its matrices during each call, so none of them can be read")
    output = {"W_o": whole(own["out_proj.weight"], heads, by_rows=False)}
    if "in_proj_weight" in own:
        return _thirds(own["in_proj_weight"], heads, heads, by_rows=True) | output
    if not {f"{role}_proj_weight" for role in "qkv"} <= own.keys():
        raise UnknownLayout("its matrices are computed in each call from other parameters")
    return {f"W_{role}": whole(own[f"{role}_proj_weight"], heads, by_rows=True) for role in "qkv"} | output


def _separate(module: nn.Module) -> dict[str, Part] | None:
    for names in SEPARATE:
        weights = [weight for name in names if (weight := matrix(getattr(module, name, None)))]
        if len(weights) == len(names):
            return _grouped(module, weights)
    return None


def _grouped(module: nn.Module, weights: list[tuple[nn.Parameter, bool]]) -> dict[str, Part]:
    """The width of a head follows from the queries; keys and values may have fewer heads (grouped-query attention)."""
    heads = heads_of(module)
    (query, query_rows), (key, key_rows), (value, value_rows) = weights
    size, rest = divmod(_width(query, query_rows), heads)
    if rest:
        raise UnknownLayout(f"{_width(query, query_rows)} columns of queries for {heads} heads")
    kv_heads = first(module, KV_HEADS) or max(1, _width(key, key_rows) // size)
    return {
        "W_q": whole(query, heads, by_rows=query_rows),
        "W_k": whole(key, kv_heads, by_rows=key_rows),
        "W_v": whole(value, kv_heads, by_rows=value_rows),
    }


def _beside(module: nn.Module) -> dict[str, Part] | None:
    """GPT-2's cross-attention: one weight for queries, one for keys and values."""
    query, both = matrix(getattr(module, "q_attn", None)), matrix(getattr(module, "c_attn", None))
    if not query or not both:
        return None
    heads, (weight, by_rows) = heads_of(module), both
    half = _width(weight, by_rows) // 2
    return {
        "W_q": whole(query[0], heads, by_rows=query[1]),
        "W_k": stretch(weight, heads, 0, half, by_rows=by_rows),
        "W_v": stretch(weight, heads, half, half, by_rows=by_rows),
    }


def _fused(module: nn.Module) -> dict[str, Part] | None:
    for name in FUSED:
        if fused := matrix(getattr(module, name, None)):
            heads = heads_of(module)
            return _thirds(fused[0], heads, first(module, KV_HEADS) or heads, by_rows=fused[1])
    return None


def _thirds(weight: nn.Parameter, heads: int, kv_heads: int, *, by_rows: bool) -> dict[str, Part]:
    """Queries, then keys, then values."""
    size, rest = divmod(_width(weight, by_rows), heads + 2 * kv_heads)
    if rest:
        raise UnknownLayout(f"{_width(weight, by_rows)} columns for {heads} heads of queries and 2 × {kv_heads}")
    q, kv = heads * size, kv_heads * size
    return {
        "W_q": stretch(weight, heads, 0, q, by_rows=by_rows),
        "W_k": stretch(weight, kv_heads, q, kv, by_rows=by_rows),
        "W_v": stretch(weight, kv_heads, q + kv, kv, by_rows=by_rows),
    }


def _by_head(module: nn.Module) -> dict[str, Part] | None:
    if not (fused := matrix(getattr(module, BY_HEAD, None))):
        return None
    (weight, by_rows), heads = fused, heads_of(module)
    if not by_rows or weight.shape[0] != 3 * weight.shape[1] or weight.shape[0] % (3 * heads):
        raise UnknownLayout(f"{BY_HEAD} is {tuple(weight.shape)}: not q, k and v of {heads} heads, head by head")
    return {role: interleaved(weight, heads, place) for place, role in enumerate(("W_q", "W_k", "W_v"))}


def output_of(module: nn.Module, parent: nn.Module | None, parts: Mapping[str, Part]) -> dict[str, Part]:
    """W_o takes as many columns as the heads' values have; it may be a sibling (BERT's `output.dense`)."""
    value, heads = parts["W_v"], parts["W_q"].heads
    width = value.shape[0 if value.by_rows else 1] // value.heads * heads
    for layer in _outputs(module, parent):
        if (weight := matrix(layer)) and weight[0].shape[1 if weight[1] else 0] == width:
            return {"W_o": whole(weight[0], heads, by_rows=not weight[1])}
    return {}


def _outputs(module: nn.Module, parent: nn.Module | None) -> Iterator[Any]:
    yield from (getattr(module, name, None) for name in OUTPUT)
    to_out = getattr(module, "to_out", None)
    yield to_out[0] if isinstance(to_out, nn.Sequential | nn.ModuleList) and len(to_out) else to_out
    yield getattr(getattr(parent, "output", None), "dense", None)


def matrix(layer: Any) -> tuple[nn.Parameter, bool] | None:
    """The weight of a linear layer, and whether its rows are the outputs: True for `Linear`, False for the `Conv1D` of
    GPT-2, which has its number of outputs in `nf` and is [in, out]."""
    layer = unwrapped(layer)
    weight = getattr(layer, "weight", None)
    if not isinstance(layer, nn.Module) or not isinstance(weight, nn.Parameter) or weight.ndim != 2:
        return None
    return (weight, not isinstance(getattr(layer, "nf", None), int)) if not isinstance(layer, nn.Embedding) else None


def heads_of(module: nn.Module) -> int:
    heads = first(module, HEADS)
    if heads is None:
        raise UnknownLayout(f"its number of heads is unknown: it has none of {', '.join(HEADS)}")
    return heads


def first(module: nn.Module, names: tuple[str, ...]) -> int | None:
    """The first positive integer that the module, or its configuration, has under one of the names."""
    for owner in (module, getattr(module, "config", None)):
        for name in names:
            if isinstance(value := getattr(owner, name, None), int) and value > 0:
                return value
    return None


def _width(weight: nn.Parameter, by_rows: bool) -> int:
    return weight.shape[0 if by_rows else 1]
