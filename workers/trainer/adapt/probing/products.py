"""Products of two tensors, by any function, with labelled axes: which are contracted, which are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Labels = tuple[str, ...]
MATMULS = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.mm, Tensor.mm}
REVERSED = {Tensor.__rmatmul__}
ADDED = {torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm}
CONVS = {F.conv1d, F.conv2d, F.conv3d}


@dataclass(frozen=True)
class Operand:
    """One factor. Equal labels mark equal axes; those in `kept` are in both factors and the result: samples and heads.
    `tokens` are the axes of queries, and of heads that share keys and so have no axis in common with them."""

    tensor: Tensor
    labels: Labels
    kept: frozenset[str] = frozenset()
    tokens: frozenset[str] = frozenset()

    def of_product(self, kept: set[str], tokens: Iterable[str] = ()) -> Operand:
        return Operand(self.tensor, self.labels, frozenset(kept), frozenset(tokens))

    @property
    def width(self) -> int:
        """The size of the other axes: the columns of a query."""
        rest = [axis for axis, label in enumerate(self.labels) if label not in self.kept | self.tokens]
        return math.prod(self.tensor.shape[axis] for axis in rest)

    def axes(self, labels: Collection[str]) -> tuple[int, ...]:
        return tuple(axis for axis, label in enumerate(self.labels) if label in labels)


@dataclass(frozen=True)
class Product:
    """`left` times `right`; `out` labels the result."""

    left: Operand
    right: Operand
    out: Labels
    depthwise: bool = False

    @property
    def contracted(self) -> set[str]:
        return set(self.left.labels) & set(self.right.labels) - set(self.out)

    @property
    def kept(self) -> set[str]:
        return set(self.left.labels) & set(self.right.labels) & set(self.out)

    def alone(self, operand: Operand) -> set[str]:
        """The labels of the result that only this factor has: the tokens of queries or keys."""
        other = self.right if operand is self.left else self.left
        return set(operand.labels) & set(self.out) - set(other.labels)


def product_of(func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> Product | None:
    """The product that a call computes; None where it computes none."""
    if func is F.linear:
        return _linear(_arg(args, given, 0, "input"), _arg(args, given, 1, "weight"))
    if func in MATMULS:
        return _matmul(args[0], args[1] if len(args) > 1 else _other(given))
    if func in REVERSED:
        return _matmul(args[1], args[0])
    if func in ADDED:
        first, second = ("mat1", "mat2") if "addmm" in func.__name__ else ("batch1", "batch2")
        return _matmul(_arg(args, given, 1, first), _arg(args, given, 2, second))
    if func is torch.einsum:
        return _einsum(args)
    if func in CONVS:
        return _conv(_arg(args, given, 0, "input"), _arg(args, given, 1, "weight"), _arg(args, given, 6, "groups", 1))
    return None


def _arg(args: tuple[Any, ...], given: Mapping[str, Any], place: int, name: str, default: Any = None) -> Any:
    return args[place] if len(args) > place else given.get(name, default)


def _other(given: Mapping[str, Any]) -> Any:
    return next((given[name] for name in ("other", "mat2", "tensor2") if name in given), None)


def _linear(x: Tensor, weight: Tensor) -> Product:
    batch = _batch(x.ndim - 1)
    return Product(Operand(x, (*batch, "k")), Operand(weight, ("m", "k")[-weight.ndim :]), (*batch, "m"))


def _matmul(left: object, right: object) -> Product | None:
    if not isinstance(left, Tensor) or not isinstance(right, Tensor) or not left.ndim or not right.ndim:
        return None
    before: Labels = (*_batch(left.ndim - 2), "n", "k") if left.ndim > 1 else ("k",)
    after: Labels = (*_batch(right.ndim - 2), "k", "m") if right.ndim > 1 else ("k",)
    out = _batch(max(left.ndim, right.ndim) - 2) + ("n",) * (left.ndim > 1) + ("m",) * (right.ndim > 1)
    return Product(Operand(left, before), Operand(right, after), out)


def _batch(count: int) -> Labels:
    """Batch axes broadcast from the right."""
    return tuple(f"batch{count - place}" for place in range(max(0, count)))


def _conv(x: Tensor, weight: Tensor, groups: int) -> Product:
    space = tuple(f"space{axis}" for axis in range(weight.ndim - 2))
    window = tuple(f"window{axis}" for axis in range(weight.ndim - 2))
    batch = ("batch",) if x.ndim == weight.ndim else ()
    inside = "k" if groups == 1 else "grouped"
    return Product(
        Operand(x, (*batch, inside, *space)),
        Operand(weight, ("m", "k", *window)),
        (*batch, "m", *space),
        depthwise=groups > 1 and groups == weight.shape[0] == x.shape[-weight.ndim + 1],
    )


def _einsum(args: tuple[Any, ...]) -> Product | None:
    tensors = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
    if not isinstance(args[0], str) or len(tensors) != 2:
        return None
    terms, arrow, result = args[0].replace(" ", "").partition("->")
    names = terms.split(",")
    rooms = [tensor.ndim - len(name.replace("...", "")) for name, tensor in zip(names, tensors, strict=True)]
    left, right = map(Operand, tensors, map(_letters, names, rooms))
    return Product(left, right, _letters(result if arrow else _implied(terms), max(rooms)))


def _implied(terms: str) -> str:
    """The result of an equation without an arrow."""
    letters = sorted(letter for letter in terms if letter.isalpha() and terms.count(letter) == 1)
    return ("..." if "..." in terms else "") + "".join(letters)


def _letters(term: str, room: int) -> Labels:
    before, dots, after = term.partition("...")
    return (*before, *(_batch(room) if dots else ()), *after)
