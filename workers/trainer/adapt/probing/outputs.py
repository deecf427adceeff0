"""W_o: the layer that the mixed values go into, and which of its entries each head feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from workers.trainer.adapt.parts import Part, entries, indexed, whole

from .measuring import Owned, Rows, Slot, sampled, slots_along, ways
from .products import Operand
from .several import Together, are_apart
from .tracing import Event, Fed

MIXED = "its heads are mixed before this layer (a norm across them, say), so that no entry is one head's"
UNTOLD = "no second derivative can be taken of the way from the heads to it, so nothing tells what it is"
ELSEWHERE = "what the heads mix goes into no layer of this module head by head"


def output(
    found: Together,
    weights: Mapping[str, nn.Parameter],
    fed: Sequence[Fed],
    claimed: Part | None,
    order: Sequence[int],
) -> tuple[Part | None, str]:
    """The part, and what there is to say about it. A claimed one stays where each head reaches the entries that are
    claimed for it; else the first weight of the module that the mix goes into is taken. `order` says where the heads of
    the site lie among those of its calls, if elsewhere."""
    try:
        layouts = _layouts(found, weights, fed, None if claimed is None else claimed.parameter)
    except RuntimeError:
        return None, UNTOLD
    layouts = {key: _ordered(each, order) for key, each in layouts.items()}
    if claimed is not None and (own := layouts.get(id(claimed.parameter))) is not None:
        if (part := _part(own, claimed)) is not None:
            return part, ""
        if next(iter(layouts)) == id(claimed.parameter):
            return Part(claimed.parameter, 0, claimed.by_rows, claimed.pick), MIXED
        return None, ELSEWHERE
    first = next(iter(layouts.values()), None)
    part = None if first is None else _part(first, None)
    return part, "" if part is not None or claimed is None else ELSEWHERE


def _ordered(owned: Owned, order: Sequence[int]) -> Owned:
    if len(owned.heads) != len(order):
        return owned
    return Owned(owned.weight, owned.dim, tuple(owned.heads[place] for place in order))


def _layouts(
    found: Together, weights: Mapping[str, nn.Parameter], fed: Sequence[Fed], claimed: nn.Parameter | None
) -> dict[int, Owned]:
    """By weight, in the order in which they run: the entries that heads feed; no heads where these are mixed."""
    candidates = {id(each): each for each in (*weights.values(), claimed) if each is not None and each.ndim == 2}
    start = min(call.event.step for call in found.calls)
    laid_out: dict[int, Owned] = {}
    for key in dict.fromkeys(id(each.weight) for each in fed[start:]):
        if key in candidates:
            used = [each for each in fed if each.weight is candidates[key]]
            sets = [_of_call(call.event, fed, used) for call in found.calls]
            if all(sets):
                laid_out[key] = _as_one(candidates[key], used[0].weight_axis, sets, found)
                if key == id(claimed) or claimed is None:
                    break
    return laid_out


def _of_call(event: Event, fed: Sequence[Fed], used: Sequence[Fed]) -> tuple[Rows, ...]:
    """The entries that each head of one call reaches, at the first of these inputs that depends on the call."""
    later = {id(each) for each in fed[event.step :]}
    for each in used:
        if id(each) in later and event.mix is not None and (sets := _reached(event.mix, each)):
            return sets
    return ()


def _reached(mix: Operand, into: Fed) -> tuple[Rows, ...]:
    """Of the ways in which heads may lie in the mix, that with the most heads that reach entries of their own."""
    if not into.given.requires_grad or not mix.tensor.requires_grad:
        return ()
    direction = torch.zeros_like(into.given, requires_grad=True)
    backs: tuple[Tensor | None, ...] = torch.autograd.grad(
        into.given, mix.tensor, direction, create_graph=True, retain_graph=True, allow_unused=True
    )
    (back,) = backs
    if back is None or not back.requires_grad:
        return ()
    asks = partial(_sets, mix, into, direction, back)
    found = [(axes, sets) for axes in ways(mix) if (sets := asks(slots_along(mix, axes)))]
    apart = [each for each in found if are_apart(each[1])]
    axes, sets = max(apart or found, key=lambda each: len(each[1]), default=((), ()))
    return _finer(mix, axes, sets, asks)


def _finer(
    mix: Operand, axes: tuple[int, ...], sets: tuple[Rows, ...], asks: Callable[[list[Slot]], tuple[Rows, ...]]
) -> tuple[Rows, ...]:
    """With the heads that lie among the tokens, as `measuring` does for queries."""
    further = [axis for axis in mix.axes(mix.tokens) if len(asks(sampled(mix, axis))) > 1]
    more = asks(slots_along(mix, axes, further)) if further else ()
    return more if more and are_apart(more) and len(more[0]) == mix.width else sets


def _sets(mix: Operand, into: Fed, direction: Tensor, back: Tensor, slots: list[Slot]) -> tuple[Rows, ...]:
    """`back` is linear in `direction`; its derivative is what a change of the mix changes in the input."""
    others = [axis for axis in range(into.given.ndim) if axis != into.axis]
    found = []
    for slot in slots:
        change = torch.zeros_like(mix.tensor)
        change[slot] = torch.randn_like(mix.tensor[slot])
        moves: tuple[Tensor | None, ...] = torch.autograd.grad(
            back, direction, change, retain_graph=True, allow_unused=True
        )
        (moved,) = moves
        if moved is not None and bool((moved != 0).any()):
            found.append(tuple((moved != 0).any(dim=others).nonzero().flatten().tolist()))
    return tuple(dict.fromkeys(found))


def _as_one(weight: nn.Parameter, dim: int, sets: list[tuple[Rows, ...]], found: Together) -> Owned:
    heads: Iterator[Rows] = (rows for each in sets for rows in each)
    first = [call.reading["W_q"].heads for call in found.calls if not isinstance(call.reading, str)]
    if len(set(first)) == 1 and len({len(each) for each in sets}) == 1:  # the same queries: a head's parts together
        heads = (tuple(sorted({row for rows in each for row in rows})) for each in zip(*sets, strict=True))
    distinct = tuple(dict.fromkeys(heads))
    asked = len(found.readings[0]["W_q"].heads)
    fits = are_apart(distinct) and sum(map(len, distinct)) == weight.shape[dim] and asked % len(distinct) == 0
    return Owned(weight, dim, distinct if fits and (len(distinct) > 1 or asked == 1) else ())


def _part(found: Owned, claimed: Part | None) -> Part | None:
    if not found.heads:
        return None
    measured = indexed(found.weight, found.heads, found.dim)
    size = len(found.heads[0])
    if found.heads == tuple(tuple(range(at * size, at * size + size)) for at in range(len(found.heads))):
        measured = whole(found.weight, len(found.heads), by_rows=found.dim == 0)
    return claimed if claimed is not None and entries(claimed) == entries(measured) else measured
