"""Norms of gradients, updates and weights, for every matrix and head at once.

Matrices of one shape are stacked, so a step costs a few kernels for any number of sites. Values stay on the device,
and nothing here waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from workers.trainer.adapt.parts import Part
from workers.trainer.attention.sites import parts
from workers.trainer.recording.extreme_norms import kept, kept_total, together


@dataclass(frozen=True)
class Stack:
    """Matrices of one shape and one direction of heads: `by_rows` where a head owns rows (our W_o, a Linear's W_q)."""

    names: list[str]  # <site>/<matrix>
    weights: list[Part]
    heads: int
    by_rows: bool

    def gradients(self) -> Tensor:
        return _wide(torch.stack([weight.grad for weight in self.weights]))  # n, rows, columns

    def values(self) -> Tensor:
        return _wide(torch.stack([weight.detach() for weight in self.weights]))

    def head_norms(self, stacked: Tensor) -> Tensor:
        """Frobenius norm of each head's slice: [n, heads]."""
        if not self.heads:
            return stacked.new_zeros(len(stacked), 0)
        if self.by_rows:
            units = stacked.unflatten(1, (self.heads, -1))
            return kept(torch.linalg.vector_norm(units, dim=(2, 3)), units)
        units = stacked.unflatten(2, (self.heads, -1))
        return kept(torch.linalg.vector_norm(units, dim=(1, 3)), units.transpose(1, 2))

    def norms(self, stacked: Tensor, *, per_head: bool) -> list[Tensor]:
        """Of the matrices [n], and with `per_head` of the heads [n · heads]."""
        plain = _norms(stacked)
        if not per_head or not self.heads:
            return [kept(plain, stacked), *[plain.new_zeros(0)] * per_head]
        heads = self.head_norms(stacked)
        return [together(plain, heads, stacked[0].numel()), heads.flatten()]


class NormSelection(Protocol):
    """Which norms are kept of each step, as the spec's section `record` says it."""

    @property
    def per_head(self) -> bool: ...
    @property
    def update_ratio(self) -> bool: ...
    @property
    def weight_norm(self) -> bool: ...


@dataclass(frozen=True)
class Everything:
    """The selection where there is no spec."""

    per_head: bool = True
    update_ratio: bool = True
    weight_norm: bool = True


class Norms:
    """Measures one optimizer step: `before` it (gradients, pre-clip), and `after` it (update, weight)."""

    def __init__(self, model: nn.Module, record: NormSelection) -> None:
        self.record = record
        self.stacks = _stacks(model)
        self.names = [name for stack in self.stacks for name in self._names(stack)]
        self._old: list[Tensor] = []
        self._gradient_norms: list[Tensor] = []

    def before(self) -> None:
        """Call when gradients are complete and unclipped."""
        self._gradient_norms = []
        for stack in self.stacks:
            self._gradient_norms += stack.norms(stack.gradients(), per_head=self.record.per_head)
        if self.record.update_ratio:
            self._old = [stack.values() for stack in self.stacks]

    def after(self) -> Tensor:
        """Call after the optimizer's step. All values in the order of `names`, on the device."""
        gradient_norms = iter(self._gradient_norms)
        out = []
        for index, stack in enumerate(self.stacks):
            out += [next(gradient_norms)] + ([next(gradient_norms)] if self.record.per_head else [])
            out += self._changes(index, stack)
        return torch.cat([each.float().to(out[0].device) for each in out]) if out else torch.zeros(0)

    def _changes(self, index: int, stack: Stack) -> list[Tensor]:
        if not (self.record.update_ratio or self.record.weight_norm):
            return []
        new = stack.values()
        out = [update_ratio(self._old[index], new)] if self.record.update_ratio else []
        return out + ([_norms(new)] if self.record.weight_norm else [])

    def _names(self, stack: Stack) -> list[str]:
        out = [f"grad_norm/{name}" for name in stack.names]
        if self.record.per_head:
            out += [f"grad_norm/{name}/head.{head}" for name in stack.names for head in range(stack.heads)]
        out += [f"update_ratio/{name}" for name in stack.names] if self.record.update_ratio else []
        return out + ([f"weight_norm/{name}" for name in stack.names] if self.record.weight_norm else [])


def total_norm(gradients: Sequence[Tensor], *, large: bool = True) -> Tensor:
    """Frobenius norm of all gradients, in fp32, or fp64 where one of them is fp64; 0 without gradients. Without `large`
    it is inf where squares overflow in fp32, as an optimizer's do."""
    values = [_dense(gradient) for gradient in gradients]
    if not values:
        return torch.zeros(())
    wide = torch.float64 if any(value.dtype == torch.float64 for value in values) else torch.float32
    norms = torch._foreach_norm(values, 2, dtype=wide)
    plain = torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device) for norm in norms]))
    return kept_total(plain, values, large=large)


def _dense(gradient: Tensor) -> Tensor:
    """A dense tensor of the same norm: of a sparse gradient its rows, summed over their occurrences."""
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient


def clip(gradients: Sequence[Tensor], norm: Tensor, limit: float | None) -> Tensor:
    """Scale gradients in place so that their norm is at most `limit`; returns the factor."""
    if limit is None:
        return torch.ones_like(norm)
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(list(gradients), scale)
    return scale


def update_ratio(old: Tensor, new: Tensor) -> Tensor:
    """‖ΔW‖/‖W‖ with W before the step; 0 for a matrix that did not change, also where W is 0."""
    change = _norms(new - old)
    return torch.where(change == 0, change, change / _norms(old))


def _wide(stacked: Tensor) -> Tensor:
    return stacked if stacked.dtype == torch.float64 else stacked.float()


def _norms(stacked: Tensor) -> Tensor:
    return torch.linalg.vector_norm(stacked, dim=(1, 2))


def _stacks(model: nn.Module) -> list[Stack]:
    stacks: dict[object, Stack] = {}
    for name, part in parts(model):
        own = part.parameter
        kind = (part.shape, own.dtype, own.device, part.heads, part.by_rows)
        stack = stacks.setdefault(kind, Stack([], [], part.heads, part.by_rows))
        stack.names.append(name)
        stack.weights.append(part)
    return list(stacks.values())
