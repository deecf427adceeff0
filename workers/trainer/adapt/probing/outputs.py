"""W_o: the layer that takes the heads' outputs, and which of its entries each head feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from workers.trainer.adapt.parts import Part, entries, indexed, whole

from .calls import Combined
from .measuring import Indices, Owned, Slot, are_apart, head_axes, merged, sampled, slots_along
from .products import Operand
from .tracing import Event, Projection

MIXED = "its heads are mixed before this layer (a norm across them, say), so that no entry is one head's"
UNDERIVABLE = "no second derivative can be taken from the heads to it, so it cannot be identified"
ELSEWHERE = "the heads' outputs go into no layer of this module head by head"


def output(
    combined: Combined,
    weights: Mapping[str, nn.Parameter],
    projections: Sequence[Projection],
    claimed: Part | None,
    order: Sequence[int],
) -> tuple[Part | None, str]:
    """W_o, and why it is not as claimed, if so. A claimed one is confirmed where each head reaches the entries that are
    claimed for it; else W_o is the first weight of the module that takes the heads' outputs. `order` has the positions
    of the site's heads among those of its calls, if they differ."""
    try:
        layouts = _layouts(combined, weights, projections, None if claimed is None else claimed.parameter)
    except RuntimeError:
        return None, UNDERIVABLE
    layouts = {key: _ordered(owned, order) for key, owned in layouts.items()}
    if claimed is not None and (as_measured := layouts.get(id(claimed.parameter))) is not None:
        if (part := _part(as_measured, claimed)) is not None:
            return part, ""
        if next(iter(layouts)) == id(claimed.parameter):
            return Part(claimed.parameter, 0, claimed.by_rows, claimed.pick), MIXED
        return None, ELSEWHERE
    part = _part(next(iter(layouts.values()), None), None)
    return part, "" if part is not None or claimed is None else ELSEWHERE


def _ordered(owned: Owned, order: Sequence[int]) -> Owned:
    if len(owned.heads) != len(order):
        return owned
    return replace(owned, heads=tuple(owned.heads[head] for head in order))


def _layouts(
    combined: Combined,
    weights: Mapping[str, nn.Parameter],
    projections: Sequence[Projection],
    claimed: nn.Parameter | None,
) -> dict[int, Owned]:
    """By weight, in the order in which they run: the entries that heads feed; no heads where these are mixed."""
    own = {*map(id, weights.values()), id(claimed)}
    start = min(call.event.step for call in combined.calls)
    layouts: dict[int, Owned] = {}
    for key, weight in {id(each.weight): each.weight for each in projections[start:]}.items():
        if key in own and weight.ndim == 2 and (layout := _layout(combined, weight, projections)) is not None:
            layouts[key] = layout
            if key == id(claimed) or claimed is None:
                break
    return layouts


def _layout(combined: Combined, weight: nn.Parameter, projections: Sequence[Projection]) -> Owned | None:
    """The entries of one weight that heads feed; None where a call does not feed it."""
    uses = [each for each in projections if each.weight is weight]
    sets = [_of_call(call.event, projections, uses) for call in combined.calls]
    return _as_one(weight, uses[0].weight_axis, sets, combined) if all(sets) else None


def _of_call(event: Event, projections: Sequence[Projection], uses: Sequence[Projection]) -> tuple[Indices, ...]:
    """The entries that each head of one call reaches, at the first of these uses that depends on the call."""
    later = {id(each) for each in projections[event.step :]}
    for use in uses:
        if id(use) in later and event.mix is not None and (sets := _reached(event.mix, use)):
            return sets
    return ()


def _reached(mix: Operand, into: Projection) -> tuple[Indices, ...]:
    """The entries that heads reach, along the possible axes with the most heads of disjoint entries."""
    if not into.input.requires_grad or not mix.tensor.requires_grad:
        return ()
    direction = torch.zeros_like(into.input, requires_grad=True)
    backs: tuple[Tensor | None, ...] = torch.autograd.grad(
        into.input, mix.tensor, direction, create_graph=True, retain_graph=True, allow_unused=True
    )
    (back,) = backs
    if back is None or not back.requires_grad:
        return ()
    reached_by = partial(_sets, mix, into, direction, back)
    candidates = [(axes, sets) for axes in head_axes(mix) if (sets := reached_by(slots_along(mix, axes)))]
    apart = [(axes, sets) for axes, sets in candidates if are_apart(sets)]
    axes, sets = max(apart or candidates, key=lambda each: len(each[1]), default=((), ()))
    return _with_token_heads(mix, axes, sets, reached_by)


def _with_token_heads(
    mix: Operand,
    axes: tuple[int, ...],
    sets: tuple[Indices, ...],
    reached_by: Callable[[list[Slot]], tuple[Indices, ...]],
) -> tuple[Indices, ...]:
    """Add the heads that share an axis with tokens, as `measuring` does for queries."""
    further = [axis for axis in mix.axes(mix.tokens) if len(reached_by(sampled(mix, axis))) > 1]
    more = reached_by(slots_along(mix, axes, further)) if further else ()
    return more if more and are_apart(more) and len(more[0]) == mix.width else sets


def _sets(mix: Operand, into: Projection, direction: Tensor, back: Tensor, slots: list[Slot]) -> tuple[Indices, ...]:
    """The entries each slot reaches. `back` is linear in `direction`; its derivative is the change of the input."""
    others = [axis for axis in range(into.input.ndim) if axis != into.axis]
    reached = []
    for slot in slots:
        change = torch.zeros_like(mix.tensor)
        change[slot] = torch.randn_like(mix.tensor[slot])
        moves: tuple[Tensor | None, ...] = torch.autograd.grad(
            back, direction, change, retain_graph=True, allow_unused=True
        )
        (moved,) = moves
        if moved is not None and bool((moved != 0).any()):
            reached.append(tuple((moved != 0).any(dim=others).nonzero().flatten().tolist()))
    return tuple(dict.fromkeys(reached))


def _as_one(weight: nn.Parameter, dim: int, sets: list[tuple[Indices, ...]], combined: Combined) -> Owned:
    """The entries that the heads of all calls reach; no heads where these are mixed."""
    heads: Iterator[Indices] = chain.from_iterable(sets)
    query_heads = {call.layout["W_q"].heads for call in combined.calls if not isinstance(call.layout, str)}
    if len(query_heads) == 1 and len(set(map(len, sets))) == 1:  # the same queries: merge the parts of each head
        heads = map(merged, zip(*sets, strict=True))
    distinct = tuple(dict.fromkeys(heads))
    count = len(combined.layouts[0]["W_q"].heads)
    fits = are_apart(distinct) and sum(map(len, distinct)) == weight.shape[dim] and count % len(distinct) == 0
    return Owned(weight, dim, distinct if fits and (len(distinct) > 1 or count == 1) else ())


def _part(owned: Owned | None, claimed: Part | None) -> Part | None:
    if owned is None or not owned.heads:
        return None
    measured = indexed(owned.weight, owned.heads, owned.dim)
    size = len(owned.heads[0])
    if owned.heads == tuple(tuple(range(head * size, head * size + size)) for head in range(len(owned.heads))):
        measured = whole(owned.weight, len(owned.heads), by_rows=owned.dim == 0)
    return claimed if claimed is not None and entries(claimed) == entries(measured) else measured
