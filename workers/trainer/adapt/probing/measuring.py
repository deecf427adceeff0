"""Which entries of which weight each head depends on: derivatives of what reaches the softmax."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Measured:
    """The weights that heads depend on: with entries of each head's own, and `mixed` with none, such as a latent that
    heads share or a weight before a norm across heads."""

    owned: tuple[Owned, ...]
    mixed: tuple[nn.Parameter, ...]


def measured(operand: Operand, weights: Mapping[str, nn.Parameter], fed: Sequence[Fed]) -> Measured:
    """What the heads of `operand` depend on, of these weights. `fed` are the products with weights that ran."""
    found, places = Measured((), ()), list(slots_of(operand)) if operand.tensor.requires_grad else []
    for slots in places:
        masks = _masks(operand, slots, weights)
        told = _told(weights, masks, one_head=_alike(operand, slots))
        if told.owned:
            return told
        if told.mixed and not found.mixed:
            found = told
    if found.mixed and _one_head(operand, found.mixed, fed):
        return _told(weights, _masks(operand, [(slice(None),) * operand.tensor.ndim], weights), one_head=True)
    return found


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
    first = operand.tensor[slots[0]]
    return len(slots) == 1 or all(torch.equal(operand.tensor[slot], first) for slot in slots)


def slots_of(operand: Operand) -> Iterator[list[Slot]]:
    """An index for each head. Heads may lie along any of the axes that are kept: all but the first, which has samples
    or windows, or a single one, which samples share with them."""
    kept = [axis for axis, label in enumerate(operand.labels) if label in operand.kept]
    for heads in dict.fromkeys([tuple(kept[1:] if len(kept) > 1 else kept), *((axis,) for axis in kept)]):
        places: list[Slot] = [()]
        for axis in range(operand.tensor.ndim):
            steps: list[int | slice] = list(range(operand.tensor.shape[axis])) if axis in heads else [slice(None)]
            places = [(*place, step) for place in places for step in steps][: MOST_SLOTS + 1]
        if len(places) <= MOST_SLOTS:
            yield places


def _one_head(operand: Operand, mixed: Sequence[nn.Parameter], fed: Sequence[Fed]) -> bool:
    """Whether only samples, windows or other positions lie along the axes that are kept: no two places along such an
    axis depend on the same position of what a layer put out. Heads do: each depends on all positions."""
    outs = [each for each in fed if any(each.weight is weight for weight in mixed)]
    kept = [axis for axis, label in enumerate(operand.labels) if label in operand.kept]
    return bool(outs) and all(
        _is_positional(operand, axis, outs) for axis in kept if 1 < operand.tensor.shape[axis] <= MOST_SLOTS
    )


def _is_positional(operand: Operand, axis: int, outs: Sequence[Fed]) -> bool:
    reached: list[list[Tensor]] = [[] for _ in outs]
    for place in range(operand.tensor.shape[axis]):
        slot: Slot = (*[slice(None)] * axis, place)
        for masks, gradient in zip(reached, asked(operand, slot, [each.out for each in outs]), strict=True):
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
