"""Attention as it runs: every softmax between two products, and every fused call, with the modules around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from workers.trainer.adapt.compiled import written_name

from .products import Operand, Product, product_of
from .recomputing import nothing_recomputed

SDPA = F.scaled_dot_product_attention
SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
KNOWN = F.multi_head_attention_forward  # torch's own: its layout is documented, and inside it calls pass no mode
SMALLEST = 0.4  # of a tagged tensor that a result must have to be taken for the same thing, moved or masked


@dataclass
class Event:
    """One attention. `path` names the modules that ran, the innermost last. What torch's own function computes is not
    taken apart. `heads_mixed` where a weight mixes heads between the scores and the values."""

    path: tuple[str, ...]
    query: Operand | None = None
    key: Operand | None = None
    value: Operand | None = None
    torchs_own: bool = False
    heads_mixed: bool = False


@dataclass(frozen=True)
class _Scores:
    product: Product
    shape: torch.Size
    heads_mixed: bool = False


class Tracer(TorchFunctionMode):
    """Collects `events`. A tensor that came out of a product is followed through scaling, masks and shapes to the
    softmax, and the weights from there to the product with the values."""

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []
        self.ran: set[str] = set()
        self.events: list[Event] = []
        self.weights: set[int] = set()  # ids of the parameters that an input was multiplied with
        self._tags: dict[int, tuple[Tensor, _Scores | Event]] = {}  # the tensor is kept, so that its id stays its own

    def clear(self) -> None:
        self._tags = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        out = func(*args, **given)
        if func is KNOWN:
            self.events.append(Event(tuple(self.path), torchs_own=True))
        elif func is SDPA:
            self._fused(*args, **given)
        elif isinstance(out, Tensor):
            self._follow(func, args, given, out)
        return out

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> None:
        heads = tuple(f"batch{axis}" for axis in range(query.ndim - 2))
        sides = (
            Operand(query, (*heads, "n", "k"), frozenset(heads)),
            Operand(key, (*heads, "m", "k"), frozenset(heads)),
            Operand(value, (*heads, "m", "d"), frozenset(heads)),
        )
        self.events.append(Event(tuple(self.path), *sides))

    def _follow(self, func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor) -> None:
        tagged = [tag for tensor in _tensors(args, given) if (tag := self._tag(tensor, out)) is not None]
        product = product_of(func, args, given)
        if product is not None:
            self._product(product, out)
        elif func in SOFTMAX:
            scores = next((tag for tag in tagged if isinstance(tag, _Scores)), None)
            if scores is not None and (event := self._event(scores, out, args, given)):
                self._keep(out, event)
        elif tagged:
            self._keep(out, tagged[0])

    def _product(self, product: Product, out: Tensor) -> None:
        if weights := [side for side in (product.left, product.right) if _is_parameter(side.tensor)]:
            self._with_weight(product, weights, out)
            return
        for side, other in ((product.left, product.right), (product.right, product.left)):
            known = self._tags.get(id(side.tensor))
            if known is not None and isinstance(known[1], Event):
                event = known[1]
                if event.value is None:
                    event.value = other.of_product(product.kept)
                    self.events.append(event)
                return
        if product.contracted:
            self._keep(out, _Scores(product, out.shape))

    def _with_weight(self, product: Product, weights: list[Operand], out: Tensor) -> None:
        """A projection; or heads of scores, or of attention weights, mixed with each other (talking heads)."""
        for side in weights:
            other = product.right if side is product.left else product.left
            if not set(side.labels) & set(other.labels) & set(product.out):
                self.weights.add(id(_parameter(side.tensor)))
            tag = self._tag(other.tensor, out)
            if isinstance(tag, Event):
                tag.heads_mixed = True
                self._keep(out, tag)
            elif tag is not None:
                self._keep(out, _Scores(tag.product, tag.shape, heads_mixed=True))

    def _event(self, scores: _Scores, out: Tensor, args: tuple[Any, ...], given: Mapping[str, Any]) -> Event | None:
        """Queries bring the axis before the last of the logits, keys the last, over which the softmax goes."""
        dim = given.get("dim", args[1] if len(args) > 1 else -1)
        if scores.heads_mixed and (out.numel() != scores.shape.numel() or out.shape[dim] not in scores.shape):
            return None  # no longer scores: a weight has made something else of them
        if dim not in (-1, out.ndim - 1) or out.ndim < 2:
            return Event(tuple(self.path))  # over queries, say: seen, and not taken apart
        product = scores.product
        left, right = product.alone(product.left), product.alone(product.right)
        keys_last = bool(product.out) and product.out[-1] in right and product.out[-1] not in left
        sides = (product.left, product.right) if keys_last else (product.right, product.left)
        sides = (sides[0].of_product(product.kept), sides[1].of_product(product.kept))
        return Event(tuple(self.path), *sides, heads_mixed=scores.heads_mixed)

    def _tag(self, tensor: Tensor, out: Tensor) -> _Scores | Event | None:
        known = self._tags.get(id(tensor))
        if known is None or out.numel() < SMALLEST * tensor.numel() or not out.is_floating_point():
            return None
        return known[1]

    def _keep(self, out: Tensor, tag: _Scores | Event) -> None:
        self._tags[id(out)] = (out, tag)


def _tensors(args: tuple[Any, ...], given: Mapping[str, Any]) -> Iterator[Tensor]:
    for item in (*args, *given.values()):
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, list | tuple):
            yield from (each for each in item if isinstance(each, Tensor))


def _is_parameter(tensor: Tensor) -> bool:
    """A parameter as it stands, or a view of one: what is multiplied with it is projected, and not compared."""
    return isinstance(_parameter(tensor), nn.Parameter)


def _parameter(tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, nn.Parameter) or tensor._base is None else tensor._base


@contextmanager
def no_fast_path() -> Iterator[None]:
    """torch's own attention takes, in inference, a kernel that shows nothing."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


@contextmanager
def tracing(model: nn.Module, cut: frozenset[str] = frozenset()) -> Iterator[Tracer]:
    """Trace what runs inside. Modules named in `cut` get inputs that no gradient passes, so that what they compute
    depends on their own weights alone."""
    tracer = Tracer()
    with ExitStack() as stack:
        stack.enter_context(no_fast_path())
        stack.enter_context(nothing_recomputed())
        for name, module in model.named_modules():
            _hook(stack, tracer, written_name(name), module, written_name(name) in cut)
        stack.enter_context(tracer)
        yield tracer


def _hook(stack: ExitStack, tracer: Tracer, name: str, module: nn.Module, cut: bool) -> None:
    def enter(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        tracer.path.append(name)
        tracer.ran.add(name)
        return (_detached(args), _detached(given)) if cut else None

    def leave(*_: Any) -> None:
        tracer.path.pop()
        if cut:
            tracer.clear()

    stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(leave, always_call=True).remove)


def _detached(item: Any) -> Any:
    if isinstance(item, Tensor):
        return item.detach()
    if type(item) in (list, tuple):
        return type(item)(_detached(each) for each in item)
    return {name: _detached(each) for name, each in item.items()} if type(item) is dict else item
