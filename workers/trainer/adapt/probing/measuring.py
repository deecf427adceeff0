"""Which entries of which weight each head depends on: derivatives of what reaches the softmax."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .products import Operand
from .tracing import Event

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


def measured(operand: Operand, weights: Mapping[str, nn.Parameter]) -> Measured:
    """What the heads of `operand` depend on, of these weights."""
    found = Measured((), ())
    for slots in _slots(operand) if operand.tensor.requires_grad else ():
        told = _of_slots(operand, slots, weights)
        if told.owned:
            return told
        found = found if found.mixed else told
    return found


def _of_slots(operand: Operand, slots: list[Slot], weights: Mapping[str, nn.Parameter]) -> Measured:
    names = list(weights)
    touched: dict[str, list[Tensor]] = {name: [] for name in names}
    noise = torch.randn_like(operand.tensor)
    for slot in slots:
        asked = torch.zeros_like(operand.tensor)
        asked[slot] = noise[slot]
        found = torch.autograd.grad(
            operand.tensor, [weights[name] for name in names], asked, retain_graph=True, allow_unused=True
        )
        for name, gradient in zip(names, found, strict=True):
            if gradient is not None and bool((gradient != 0).any()):
                touched[name].append(gradient.to_dense() != 0 if gradient.is_sparse else gradient != 0)
    reached = {name: masks for name, masks in touched.items() if masks}
    one_head = len(slots) == 1 or all(torch.equal(operand.tensor[slot], operand.tensor[slots[0]]) for slot in slots)
    owned = [each for name in reached if (each := _owned(weights[name], reached[name], one_head=one_head))]
    apart = {id(each.weight) for each in owned}
    mixed = [weights[name] for name in reached if id(weights[name]) not in apart]
    return Measured(tuple(owned), tuple(mixed))


def _slots(operand: Operand) -> Iterator[list[Slot]]:
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
