"""Which entries of which weight each head depends on, from derivatives of the operands of attention."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from .products import Operand
from .tracing import Event, Projection

MAX_SLOTS = 256  # heads × samples of one operand, each with its own backward pass
Indices = tuple[int, ...]
Slot = tuple[int | slice, ...]


@dataclass(frozen=True)
class Owned:
    """A weight in which every head owns entries along `dim` that no other head depends on. `heads` lists them in the
    order of the heads; heads of queries that share keys and values appear once."""

    weight: nn.Parameter
    dim: int
    heads: tuple[Indices, ...]

    @property
    def entries(self) -> set[int]:
        return set(chain.from_iterable(self.heads))


@dataclass(frozen=True)
class Measured:
    """The weights that heads depend on: those in which each head owns entries, and `mixed` ones in which none does,
    such as a latent that heads share or a weight before a norm across heads."""

    owned: tuple[Owned, ...]
    mixed: tuple[nn.Parameter, ...]


def measured(operand: Operand, weights: Mapping[str, nn.Parameter], projections: Sequence[Projection]) -> Measured:
    """Which of these weights the heads of `operand` depend on. `projections` are all products with weights that ran."""
    mixed = Measured((), ())
    for axes in head_axes(operand) if operand.tensor.requires_grad else ():
        slots = slots_along(operand, axes)
        dependence = _classified(weights, _masks(operand, slots, weights), one_head=_alike(operand, slots))
        if dependence.owned:
            return _with_token_heads(operand, axes, weights, dependence)
        if dependence.mixed and not mixed.mixed:
            mixed = dependence
    if mixed.mixed and _one_head(operand, mixed.mixed, projections):
        dependence = _classified(weights, _masks(operand, slots_along(operand, ()), weights), one_head=True)
        return _with_token_heads(operand, (), weights, dependence)
    return mixed


def _with_token_heads(
    operand: Operand, axes: tuple[int, ...], weights: Mapping[str, nn.Parameter], dependence: Measured
) -> Measured:
    """Add the heads of queries that share keys and so have no axis in common with them: they have an axis of their own,
    or alternate with the tokens. Each is as wide as a query; attention over channels has no such heads."""
    if len(dependence.owned) != 1:
        return dependence
    (whole,) = dependence.owned
    own = {name: weight for name, weight in weights.items() if weight is whole.weight}
    if not (slots := _token_slots(operand, axes, own)):
        return dependence
    more = _classified(own, _masks(operand, slots, own), one_head=False).owned
    same = (each for each in more if (each.dim, each.entries) == (whole.dim, whole.entries))
    finer = tuple(each for each in same if len(each.heads[0]) == operand.width)
    return Measured(finer, dependence.mixed) if finer else dependence


def _token_slots(operand: Operand, axes: tuple[int, ...], own: Mapping[str, nn.Parameter]) -> list[Slot]:
    """Slots along `axes` and along the axes of tokens that hold heads too; none where no such axis does."""
    further = tuple(axis for axis in operand.axes(operand.tokens) if _differs(operand, axis, own))
    return slots_along(operand, axes, further) if further else []


def _differs(operand: Operand, axis: int, weights: Mapping[str, nn.Parameter]) -> bool:
    """Whether positions along this axis depend on different entries."""
    masks = [_masks(operand, [slot], weights) for slot in sampled(operand, axis)]
    reached = [mask for each in masks for (mask,) in each.values()]
    return any(not torch.equal(reached[0], mask) for mask in reached[1:])


def sampled(operand: Operand, axis: int) -> list[Slot]:
    """The first two positions along an axis and the last."""
    size = operand.tensor.shape[axis]
    return [(*[slice(None)] * axis, place) for place in sorted({0, min(1, size - 1), size - 1})]


def _masks(operand: Operand, slots: list[Slot], weights: Mapping[str, nn.Parameter]) -> dict[str, list[Tensor]]:
    """By weight: the entries that each slot depends on; slots that depend on none are left out."""
    masks = _reached(operand, slots, list(weights.values()))
    return {name: of_weight for name, of_weight in zip(weights, masks, strict=True) if of_weight}


def _reached(operand: Operand, slots: list[Slot], tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """By tensor: the elements that each slot depends on, without slots that depend on none."""
    masks: list[list[Tensor]] = [[] for _ in tensors]
    for slot in slots:
        for of_tensor, gradient in zip(masks, derivatives(operand, slot, tensors), strict=True):
            if gradient is not None and bool((gradient != 0).any()):
                of_tensor.append(gradient != 0)
    return masks


def derivatives(operand: Operand, slot: Slot, wanted: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Derivatives of a random combination of the elements of a slot."""
    direction = torch.zeros_like(operand.tensor)
    direction[slot] = torch.randn_like(operand.tensor[slot])
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
        operand.tensor, wanted, direction, retain_graph=True, allow_unused=True
    )
    return tuple(each.to_dense() if each is not None and each.is_sparse else each for each in gradients)


def _classified(weights: Mapping[str, nn.Parameter], masks: dict[str, list[Tensor]], *, one_head: bool) -> Measured:
    owned = [each for name in masks if (each := _owned(weights[name], masks[name], one_head=one_head))]
    owned_ids = {id(each.weight) for each in owned}
    return Measured(tuple(owned), tuple(weights[name] for name in masks if id(weights[name]) not in owned_ids))


def _alike(operand: Operand, slots: list[Slot]) -> bool:
    return len(slots) == 1 or all(torch.equal(operand.tensor[slot], operand.tensor[slots[0]]) for slot in slots)


def head_axes(operand: Operand) -> Iterator[tuple[int, ...]]:
    """The possible axes of heads: all kept ones but the first, which has samples or windows; or any single one, which
    samples and heads share."""
    kept = operand.axes(operand.kept)
    yield from dict.fromkeys([kept[1:] if len(kept) > 1 else kept, *((axis,) for axis in kept)])


def slots_along(operand: Operand, axes: Collection[int], among: Collection[int] = ()) -> list[Slot]:
    """An index for each position along these axes; none where they are too many. Along `among`, which heads share with
    tokens, positions that include every head in its order, however they alternate."""
    sizes = operand.tensor.shape
    room = MAX_SLOTS // max(1, math.prod(sizes[axis] for axis in axes)) if len(among) == 1 else MAX_SLOTS
    slots: list[Slot] = [()]
    for axis in range(operand.tensor.ndim):
        positions: list[int | slice] = [slice(None)]
        if axis in axes or axis in among:
            positions = [*(range(sizes[axis]) if axis in axes else _spaced(sizes[axis], room))]
        slots = [(*slot, position) for slot in slots for position in positions][: MAX_SLOTS + 1]
    return slots if len(slots) <= MAX_SLOTS else []


def _spaced(size: int, count: int) -> list[int]:
    """At most `count` positions: the first ones, and others evenly spaced."""
    half = max(1, count // 2)
    return list(range(size)) if size <= count else sorted({*range(half), *(i * size // half for i in range(half))})


def _one_head(operand: Operand, mixed: Sequence[nn.Parameter], projections: Sequence[Projection]) -> bool:
    """Whether the kept axes hold samples, windows or other positions only: no two positions along such an axis depend
    on the same position of a layer's output. Heads do: each depends on all of them."""
    sources = [each for each in projections if any(each.weight is weight for weight in mixed)]
    kept = operand.axes(operand.kept)
    return bool(sources) and all(
        _is_positional(operand, axis, sources) for axis in kept if 1 < operand.tensor.shape[axis] <= MAX_SLOTS
    )


def _is_positional(operand: Operand, axis: int, sources: Sequence[Projection]) -> bool:
    reached = _reached(operand, slots_along(operand, (axis,)), [each.out for each in sources])
    used = [(each, masks) for each, masks in zip(sources, reached, strict=True) if masks]
    return bool(used) and all(any(_disjoint(masks, axis) for axis in each.positions) for each, masks in used)


def _disjoint(masks: list[Tensor], axis: int) -> bool:
    others = [each for each in range(masks[0].ndim) if each != axis]
    counts = torch.stack([mask.any(dim=others) if others else mask for mask in masks]).sum(0)
    return bool((counts <= 1).all())


def _owned(weight: nn.Parameter, masks: list[Tensor], *, one_head: bool) -> Owned | None:
    """The axis along which the heads' entries are disjoint and equally many. Equal entries for all are ownership where
    there is one head, or one that all share; otherwise the heads are mixed, and the result is None."""
    candidates = [each for dim in range(weight.ndim) if are_apart((each := _along(dim, weight, masks)).heads)]
    several = [each for each in candidates if len(each.heads) > 1]
    if several or not one_head:
        return next(iter(several), None)
    parts = [each for each in candidates if len(each.heads[0]) < weight.shape[each.dim]]
    return next(iter(parts or candidates), None)


def _along(dim: int, weight: nn.Parameter, masks: list[Tensor]) -> Owned:
    """The distinct sets of entries along `dim` that the masks contain."""
    others = [axis for axis in range(weight.ndim) if axis != dim]
    sets = (tuple(mask.any(dim=others).nonzero().flatten().tolist()) for mask in masks)
    return Owned(weight, dim, tuple(dict.fromkeys(sets)))


def are_apart(heads: Sequence[Indices]) -> bool:
    """Whether heads own equally many entries, and no two the same one."""
    entries = list(chain.from_iterable(heads))
    return len({len(rows) for rows in heads}) == 1 and len(entries) == len(set(entries))


def merged(parts: Iterable[Indices]) -> Indices:
    """The parts of one head as one."""
    return tuple(sorted(set(chain.from_iterable(parts))))


def owners(events: list[Event], modules: Mapping[str, nn.Module], claims: Collection[str]) -> dict[str, list[Event]]:
    """Events by the module they belong to: the innermost that is claimed to be a site, else the innermost that owns
    weights; `""` where there is none."""
    by_module: dict[str, list[Event]] = {}
    for event in events:
        inside = [name for name in reversed(event.path) if name in modules]
        owner = next((name for name in inside if name in claims), None)
        if owner is None:
            owner = next((name for name in inside if any(each.ndim > 1 for each in modules[name].parameters())), "")
        by_module.setdefault(owner, []).append(event)
    return by_module
