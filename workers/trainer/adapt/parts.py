"""W_q, W_k, W_v and W_o as views of a model's parameters and of their gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

Pick = Callable[[Tensor], Tensor]


class Effective(Protocol):
    """The matrix that an adapted layer applies, and the gradient with respect to it."""

    @property
    def grad(self) -> Tensor | None: ...

    def effective(self) -> Tensor: ...


@dataclass(frozen=True)
class Part:
    """One matrix: a parameter, or the part of it that `pick` selects. With `by_rows` a head owns rows (W_q of a
    `Linear`, which is [out, in]), else columns (W_q of a `Conv1D`, W_o of a `Linear`); `heads` is 0 where heads own
    nothing. With an `adapter` it is the matrix that is applied, such as W + s·B·A of LoRA."""

    parameter: nn.Parameter
    heads: int
    by_rows: bool
    pick: Pick
    adapter: Effective | None = None

    @property
    def grad(self) -> Tensor:
        """Its gradient; zeros where there is none."""
        grad = self._grad
        return torch.zeros_like(self.pick(self.parameter.detach())) if grad is None else self.pick(grad)

    @property
    def has_grad(self) -> bool:
        return self._grad is not None

    @property
    def _grad(self) -> Tensor | None:
        return self.adapter.grad if self.adapter else self.parameter.grad

    def scaled_with(self, parameters: Collection[int]) -> bool:
        """Whether an optimizer of these parameters, given by identity, unscales its gradient."""
        return self.adapter is None and id(self.parameter) in parameters

    @property
    def shape(self) -> torch.Size:
        return self.pick(self.parameter.detach()).shape

    def detach(self) -> Tensor:
        return self.pick(self.adapter.effective() if self.adapter else self.parameter.detach())

    def head(self, tensor: Tensor, head: int) -> Tensor:
        """The part of head `head` in a tensor of this matrix's shape, such as `grad`."""
        return tensor.chunk(self.heads, 0 if self.by_rows else 1)[head]


def whole(parameter: nn.Parameter, heads: int, *, by_rows: bool) -> Part:
    return Part(parameter, heads, by_rows, _itself)


def stretch(parameter: nn.Parameter, heads: int, start: int, length: int, *, by_rows: bool) -> Part:
    """`length` rows or columns from `start`: one of several matrices stored one after the other."""
    return Part(parameter, heads, by_rows, partial(_narrow, dim=0 if by_rows else 1, start=start, length=length))


def interleaved(parameter: nn.Parameter, heads: int, place: int) -> Part:
    """The place-th of q, k and v where rows are stored head by head, each with its q, k and v (GPT-NeoX, BLOOM)."""
    return Part(parameter, heads, True, partial(_every_third, heads=heads, place=place))


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _narrow(tensor: Tensor, *, dim: int, start: int, length: int) -> Tensor:
    return tensor.narrow(dim, start, length)


def _every_third(tensor: Tensor, *, heads: int, place: int) -> Tensor:
    return tensor.unflatten(0, (heads, 3, -1))[:, place].flatten(0, 1)


def indexed(parameter: nn.Parameter, heads: Sequence[Sequence[int]], dim: int) -> Part:
    """The entries along `dim` that heads own, in any order, head after head; other axes are folded into columns."""
    places = torch.tensor([place for head in heads for place in head], device=parameter.device)
    return Part(parameter, len(heads), True, partial(_chosen, places=places, dim=dim))


def _chosen(tensor: Tensor, *, places: Tensor, dim: int) -> Tensor:
    return tensor.movedim(dim, 0).index_select(0, places.to(tensor.device)).flatten(1)


def entries(part: Part) -> list[tuple[int, ...]]:
    """The flat indices into the parameter that each head owns, sorted."""
    every = torch.arange(part.parameter.numel()).view(part.parameter.shape)
    picked = part.pick(every)
    return [tuple(sorted(part.head(picked, head).flatten().tolist())) for head in range(part.heads)]
