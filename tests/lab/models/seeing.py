"""Every softmax that a model computes, seen below autograd: what it came from and what it was multiplied with.

Fused attention is switched off inside, so that its parts show as the same few operators whoever wrote the model. A
tensor is followed by its storage, which views share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {"aten::mm": 0, "aten::bmm": 0, "aten::addmm": 1, "aten::baddbmm": 1, "aten::mv": 0}  # first factor's place
COPIES = ("copy", "cat", "pad", "scatter", "index_put", "stack", "slice_scatter")
REDUCTIONS = ("sum", "mean", "max", "min", "argmax", "topk", "std", "var", "any", "all", "norm", "sort")

OF_EACH = ("aten::maximum", "aten::minimum")


@dataclass
class Softmax:
    """One softmax. `path` names the modules that ran, outermost first, each with the number of its call. `fed` is what
    was multiplied with `value` to give `mixed`, contracted over their axes `over`."""

    path: tuple[tuple[str, int], ...]
    scores: Tensor
    weights: Tensor
    dim: int
    product: Tensor | None  # of queries and keys, before scale, mask and bias
    fed: Tensor | None = None
    value: Tensor | None = None
    mixed: Tensor | None = None
    over: tuple[int, int] = (-1, -2)

    @property
    def is_attention(self) -> bool:
        return self.product is not None and self.mixed is not None

    @property
    def modules(self) -> list[str]:
        return [name for name, _ in self.path]


Change = Callable[[Any, tuple[Any, ...], dict[str, Any], Tensor], Tensor]


class Recorder(TorchDispatchMode):
    """Keeps `softmaxes`. `change` may replace the result of any operator; `stop` ends the pass when it is true."""

    def __init__(self, model: nn.Module, change: Change | None = None) -> None:
        super().__init__()
        self.softmaxes: list[Softmax] = []
        self.path: list[tuple[str, int]] = []
        self.calls: dict[str, int] = {}
        self.change = change
        self._weights = {storage(each) for each in model.parameters()}
        self._kept: list[Tensor] = []  # so that no storage's address is used twice
        self._scores: dict[int, Tensor] = {}  # storage of scores: the product of queries and keys
        self._mixing: dict[int, Softmax] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        out = func(*args, **given)
        name = func._schema.name
        if isinstance(out, Tensor) and self.change is not None:
            out = self.change(func, args, given, out)
        for each in tensors((out,)):
            self._kept.append(each)
        if "softmax" in name and "backward" not in name and "log" not in name:
            self._softmax(args, given, first(out))
        elif name in PRODUCTS:
            place = PRODUCTS[name]
            self._product(args[place], args[place + 1], first(out))
        elif name in OF_EACH or not any(name.startswith(f"aten::{each}") for each in REDUCTIONS):
            self._follow(name, args, given, out)
        return out

    def _softmax(self, args: tuple[Any, ...], given: dict[str, Any], out: Tensor) -> None:
        scores = args[0]
        dim = args[1] if len(args) > 1 else given.get("dim", -1)
        seen = Softmax(
            tuple(self.path), scores.detach().clone(), out.detach().clone(), dim % out.ndim, self._of(scores)
        )
        self.softmaxes.append(seen)
        self._mixing[storage(out)] = seen

    def _of(self, tensor: Tensor) -> Tensor | None:
        """The product that these are scores of still, one for each of its entries, and not what was made of them."""
        product = self._scores.get(storage(tensor))
        if product is None or not 0.4 * product.numel() <= tensor.numel() <= 1.6 * product.numel():
            return None
        return product

    def _product(self, left: Tensor, right: Tensor, out: Tensor) -> None:
        one, other = storage(left), storage(right)
        if one in self._weights or other in self._weights:
            for each in (one, other):
                self._same(each, storage(out))
            return
        for factor, partner, over in ((left, right, (-1, -2)), (right, left, (-2, -1))):
            seen = self._mixing.get(storage(factor))
            if seen is not None and (seen.mixed is None):
                seen.fed, seen.value, seen.mixed = (each.detach().clone() for each in (factor, partner, out))
                seen.over = over
                return
            if seen is not None:
                return
        self._scores[storage(out)] = out.detach().clone()

    def _follow(self, name: str, args: tuple[Any, ...], given: dict[str, Any], out: Any) -> None:
        for result in tensors((out,)):
            if not result.is_floating_point():
                continue
            for source in tensors((*args, *given.values())):
                copied = any(each in name for each in COPIES)
                if copied or 0.4 * source.numel() <= result.numel() <= 1.5 * source.numel():
                    self._same(storage(source), storage(result))

    def _same(self, source: int, result: int) -> None:
        if source in self._scores:
            self._scores.setdefault(result, self._scores[source])
        if source in self._mixing:
            self._mixing.setdefault(result, self._mixing[source])


def storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # sparse tensors have none
        return id(tensor)


def first(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def tensors(items: Any) -> Iterator[Tensor]:
    for item in items:
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, list | tuple):
            yield from tensors(item)


@contextmanager
def seeing(model: nn.Module, change: Change | None = None) -> Iterator[Recorder]:
    """Record what runs inside."""
    recorder = Recorder(model, change)
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, was)
        for name, module in model.named_modules():
            _follow_module(stack, recorder, name, module)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(recorder)
        yield recorder


def _follow_module(stack: ExitStack, recorder: Recorder, name: str, module: nn.Module) -> None:
    def enter(*_: Any) -> None:
        recorder.calls[name] = recorder.calls.get(name, -1) + 1
        recorder.path.append((name, recorder.calls[name]))

    def leave(*_: Any) -> None:
        recorder.path.pop()

    stack.callback(module.register_forward_pre_hook(enter, prepend=True).remove)
    stack.callback(module.register_forward_hook(leave, always_call=True).remove)
