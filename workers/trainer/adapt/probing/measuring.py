"""Which entries of which weight each head depends on: derivatives of what reaches the softmax."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .products import Operand
from .tracing import Event, Fed

MOST_SLOTS = 256  # heads × samples of one operand that are asked one by one
Rows = tuple[int, ...]
Slot = tuple[int | slice, ...]


@dataclass(frozen=True)
class Owned:
    """A weight in which every head owns entries along `dim` that no other head depends on: `heads` lists them, in
    the order of the heads; heads of queries that share keys and values stand there once."""

    weight: nn.Parameter
    dim: int
    heads: tuple[Rows, ...]

    @property
    def entries(self) -> set[int]:
        return {row for rows in self.heads for row in rows}


@dataclass(frozen=True)
class Measured:
    """The weights that heads depend on: with entries of each head's own, and `mixed` with none, such as a latent that
    heads share or a weight before a norm across heads."""

    owned: tuple[Owned, ...]
    mixed: tuple[nn.Parameter, ...]


def measured(operand: Operand, weights: Mapping[str, nn.Parameter], fed: Sequence[Fed]) -> Measured:
    """What the heads of `operand` depend on, of these weights. `fed` are the products with weights that ran."""
    found = Measured((), ())
    for axes in ways(operand) if operand.tensor.requires_grad else ():
        slots = slots_along(operand, axes)
        told = _told(weights, _masks(operand, slots, weights), one_head=_alike(operand, slots))
        if told.owned:
            return _finer(operand, axes, weights, told)
        if told.mixed and not found.mixed:
            found = told
    if found.mixed and _one_head(operand, found.mixed, fed):
        told = _told(weights, _masks(operand, slots_along(operand, ()), weights), one_head=True)
        return _finer(operand, (), weights, told)
    return found


def _finer(operand: Operand, axes: tuple[int, ...], weights: Mapping[str, nn.Parameter], told: Measured) -> Measured:
    """With the heads of queries that share keys and have no axis in common with these: they lie along an axis of their
    own, or take turns with the tokens. Each is as wide as what is compared; channels that ask channels are no heads."""
    own = {name: each for name, each in weights.items() if len(told.owned) == 1 and each is told.owned[0].weight}
    further = tuple(axis for axis in operand.axes(operand.tokens) if own and _differs(operand, axis, own))
    slots = slots_along(operand, axes, further) if further else []
    if not slots:
        return told
    more = _told(own, _masks(operand, slots, own), one_head=False).owned
    whole = told.owned[0]
    same = [each for each in more if each.dim == whole.dim and each.entries == whole.entries]
    same = [each for each in same if len(each.heads[0]) == operand.width]
    return Measured(tuple(same), told.mixed) if same else told


def _differs(operand: Operand, axis: int, weights: Mapping[str, nn.Parameter]) -> bool:
    """Whether some places along this axis depend on other entries than others do."""
    masks = [_masks(operand, [slot], weights) for slot in sampled(operand, axis)]
    reached = [mask for each in masks for (mask,) in each.values()]
    return any(not torch.equal(reached[0], mask) for mask in reached[1:])


def sampled(operand: Operand, axis: int) -> list[Slot]:
    """The first places along an axis and the last."""
    size = operand.tensor.shape[axis]
    return [(*_all(axis), place) for place in sorted({0, min(1, size - 1), size - 1})]


def _all(axes: int) -> Slot:
    return (slice(None),) * axes


def _masks(operand: Operand, slots: list[Slot], weights: Mapping[str, nn.Parameter]) -> dict[str, list[Tensor]]:
    """By weight: the entries that each slot depends on, of the slots that depend on any."""
    touched: dict[str, list[Tensor]] = {name: [] for name in weights}
    for slot in slots:
        for name, gradient in zip(weights, asked(operand, slot, list(weights.values())), strict=True):
            if gradient is not None and bool((gradient != 0).any()):
                touched[name].append(gradient.to_dense() != 0 if gradient.is_sparse else gradient != 0)
    return {name: masks for name, masks in touched.items() if masks}


def asked(operand: Operand, slot: Slot, wanted: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Derivatives of a random combination of what a slot holds."""
    direction = torch.zeros_like(operand.tensor)
    direction[slot] = torch.randn_like(operand.tensor[slot])
    return torch.autograd.grad(operand.tensor, wanted, direction, retain_graph=True, allow_unused=True)


def _told(weights: Mapping[str, nn.Parameter], masks: dict[str, list[Tensor]], *, one_head: bool) -> Measured:
    owned = [each for name in masks if (each := _owned(weights[name], masks[name], one_head=one_head))]
    apart = {id(each.weight) for each in owned}
    return Measured(tuple(owned), tuple(weights[name] for name in masks if id(weights[name]) not in apart))


def _alike(operand: Operand, slots: list[Slot]) -> bool:
    return len(slots) == 1 or all(torch.equal(operand.tensor[slot], operand.tensor[slots[0]]) for slot in slots)


def ways(operand: Operand) -> Iterator[tuple[int, ...]]:
    """The axes along which heads may lie: of those that are kept all but the first, which has samples or windows, or a
    single one, which samples share with them."""
    kept = operand.axes(operand.kept)
    yield from dict.fromkeys([kept[1:] if len(kept) > 1 else kept, *((axis,) for axis in kept)])


def slots_along(operand: Operand, axes: Collection[int], among: Collection[int] = ()) -> list[Slot]:
    """An index for each place along these axes; none where they are too many. Along `among`, where heads lie with
    tokens, places that meet every head in its order, however they take turns."""
    sizes = operand.tensor.shape
    room = MOST_SLOTS // max(1, math.prod(sizes[axis] for axis in axes)) if len(among) == 1 else MOST_SLOTS
    places: list[Slot] = [()]
    for axis in range(operand.tensor.ndim):
        steps: list[int | slice] = [slice(None)]
        if axis in axes or axis in among:
            steps = [*(range(sizes[axis]) if axis in axes else _spread(sizes[axis], room))]
        places = [(*place, step) for place in places for step in steps][: MOST_SLOTS + 1]
    return places if len(places) <= MOST_SLOTS else []


def _spread(size: int, room: int) -> list[int]:
    """The first places, and others evenly apart."""
    half = max(1, room // 2)
    return list(range(size)) if size <= room else sorted({*range(half), *(at * size // half for at in range(half))})


def _one_head(operand: Operand, mixed: Sequence[nn.Parameter], fed: Sequence[Fed]) -> bool:
    """Whether only samples, windows or other positions lie along the axes that are kept: no two places along such an
    axis depend on the same position of what a layer put out. Heads do: each depends on all positions."""
    outs = [each for each in fed if any(each.weight is weight for weight in mixed)]
    kept = operand.axes(operand.kept)
    return bool(outs) and all(
        _is_positional(operand, axis, outs) for axis in kept if 1 < operand.tensor.shape[axis] <= MOST_SLOTS
    )


def _is_positional(operand: Operand, axis: int, outs: Sequence[Fed]) -> bool:
    reached: list[list[Tensor]] = [[] for _ in outs]
    for place in range(operand.tensor.shape[axis]):
        for masks, gradient in zip(
            reached, asked(operand, (*_all(axis), place), [each.out for each in outs]), strict=True
        ):
            if gradient is not None and bool((gradient != 0).any()):
                masks.append(gradient != 0)
    used = [(each, masks) for each, masks in zip(outs, reached, strict=True) if masks]
    return bool(used) and all(any(_apart(masks, axis) for axis in each.positions) for each, masks in used)


def _apart(masks: list[Tensor], axis: int) -> bool:
    others = [each for each in range(masks[0].ndim) if each != axis]
    counts = torch.stack([mask.any(dim=others) if others else mask for mask in masks]).sum(0)
    return bool((counts <= 1).all())


def _owned(weight: nn.Parameter, masks: list[Tensor], *, one_head: bool) -> Owned | None:
    """The axis along which the heads' entries are apart, and of equal number. All depending on the same entries is
    ownership where there is one head, or one that all share; else the heads are mixed, and the answer is None."""
    candidates: list[Owned] = []
    for dim in range(weight.ndim):
        others = [axis for axis in range(weight.ndim) if axis != dim]
        sets = [tuple(mask.any(dim=others).nonzero().flatten().tolist()) for mask in masks]
        distinct = list(dict.fromkeys(sets))
        entries = [row for rows in distinct for row in rows]
        if len({len(rows) for rows in distinct}) == 1 and len(entries) == len(set(entries)):
            candidates.append(Owned(weight, dim, tuple(distinct)))
    apart = [each for each in candidates if len(each.heads) > 1]
    if apart or not one_head:
        return apart[0] if apart else None
    parts = [each for each in candidates if len(each.heads[0]) < weight.shape[each.dim]]
    return next(iter(parts or candidates), None)


def owners(events: list[Event], modules: Mapping[str, nn.Module], claims: Collection[str]) -> dict[str, list[Event]]:
    """Each event by the module that it belongs to: the innermost that is claimed to be a site, else the innermost that
    owns weights; under `""` where there is none."""
    found: dict[str, list[Event]] = {}
    for event in events:
        inside = [name for name in reversed(event.path) if name in modules]
        known = next((name for name in inside if name in claims), None)
        if known is None:
            known = next((name for name in inside if any(each.ndim > 1 for each in modules[name].parameters())), "")
        found.setdefault(known, []).append(event)
    return found
