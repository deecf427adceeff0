"""Detect attention in a forward pass: every softmax between two products, and every fused call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from workers.trainer.adapt.compiled import written_name

from .products import Operand, Product, product_of
from .recomputing import nothing_recomputed
from .sides import sides_of

SDPA = F.scaled_dot_product_attention
SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
LOGS = (F.log_softmax, torch.log_softmax, Tensor.log_softmax)  # their exponential is a softmax
JOINS = (torch.cat, torch.concat, torch.concatenate, torch.stack)
PARTS = (torch.chunk, Tensor.chunk, torch.split, Tensor.split, torch.unbind, Tensor.unbind, Tensor.__getitem__)
KNOWN = F.multi_head_attention_forward  # its layout is documented; calls inside it bypass the mode
SMALLEST = 0.4  # share of a tagged tensor's elements that a result must have to inherit its tag


@dataclass
class Event:
    """One attention. `path` names the running modules, the innermost last; `mix` is softmax(…)·V, and `step` the number
    of products with weights before it. `torchs_own`: computed by torch's function, whose operands are not traced.
    `heads_mixed`: a weight mixes heads between the scores and the values. `added` are further products in a sum of
    scores."""

    path: tuple[str, ...]
    query: Operand | None = None
    key: Operand | None = None
    value: Operand | None = None
    mix: Operand | None = None
    step: int = 0
    torchs_own: bool = False
    heads_mixed: bool = False
    of_products: bool = True
    added: tuple[tuple[Operand, Operand], ...] = ()

    @property
    def operands(self) -> tuple[Operand | None, Operand | None, Operand | None]:
        return self.query, self.key, self.value


@dataclass(frozen=True)
class Projection:
    """A product of a weight and an input, contracted over `axis` of the input and `weight_axis`. `positions` are the
    axes of `out` that come from the input: samples and tokens, never heads."""

    weight: nn.Parameter
    input: Tensor
    axis: int
    weight_axis: int
    out: Tensor
    positions: tuple[int, ...]


@dataclass(frozen=True)
class _Scores:
    """`joined` are products concatenated with the first in one tensor, `added` those summed with it."""

    product: Product
    shape: torch.Size
    heads_mixed: bool = False
    joined: tuple[Product, ...] = ()
    added: tuple[Product, ...] = ()


class Tracer(TorchFunctionMode):
    """Collects `events`. The result of a product is tagged, and the tag is passed on through scaling, masks and
    reshaping to the softmax, and from there to the product with the values. `plain` are softmaxes of anything else that
    weight values, `softmaxed` the modules in which any softmax ran."""

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []
        self.ran: set[str] = set()
        self.softmaxed: set[str] = set()
        self.events: list[Event] = []
        self.plain: list[Event] = []
        self.projections: list[Projection] = []
        self.weights: set[int] = set()  # ids of the parameters that an input was multiplied with
        # The tensor is kept, so that its id is not reused.
        self._tags: dict[int, tuple[Tensor, _Scores | tuple[Event, ...]]] = {}

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
            self._fused(out, *args, **given)
        else:
            for each in _tensors((out,), {}):  # several of chunk, split, unbind
                self._follow(func, args, given, each)
        return out

    def _fused(self, out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> None:
        heads = tuple(f"batch{axis}" for axis in range(query.ndim - 2))
        queries, keys, values, mix = (
            Operand(tensor, (*heads, *own), frozenset(heads), frozenset("n"))
            for tensor, own in ((query, ("n", "k")), (key, ("m", "k")), (value, ("m", "d")), (out, ("n", "d")))
        )
        self.events.append(Event(tuple(self.path), queries, keys, values, mix, step=len(self.projections)))

    def _follow(self, func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor) -> None:
        tagged = [tag for tensor in _tensors(args, given) if (tag := self._tag(tensor, out, func)) is not None]
        product = product_of(func, args, given)
        if product is not None:
            self._product(product, out)
        elif func in SOFTMAX or func in LOGS:
            self.softmaxed |= set(self.path)
            self._softmax(next((tag for tag in tagged if isinstance(tag, _Scores)), None), out, args, given)
        elif tagged:
            self._keep(out, _combined(tagged, joined=func in JOINS))

    def _softmax(self, scores: _Scores | None, out: Tensor, args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
        plain = (Event(tuple(self.path), of_products=False),)
        if events := plain if scores is None else self._events(scores, out, *_logits(args, given)):
            self._keep(out, events)

    def _product(self, product: Product, out: Tensor) -> None:
        if weights := [side for side in (product.left, product.right) if _is_parameter(side.tensor)]:
            self._with_weight(product, weights, out)
            return
        for side, other in ((product.left, product.right), (product.right, product.left)):
            _, tag = self._tags.get(id(side.tensor), (None, None))
            if isinstance(tag, tuple):
                mix = Operand(out, product.out).of_product(product.kept, product.alone(side))
                for event in tag:
                    self._weighted(event, other.of_product(product.kept), mix)
                return
        if product.contracted:
            self._keep(out, _Scores(product, out.shape))

    def _weighted(self, event: Event, value: Operand, mix: Operand) -> None:
        """Attention weights times values; the same weights may be applied several times."""
        if event.value is not None:
            if not value.tensor.requires_grad:
                return
            event = replace(event)
        event.value, event.mix, event.step = value, mix, len(self.projections)
        (self.events if event.of_products else self.plain).append(event)

    def _with_weight(self, product: Product, weights: list[Operand], out: Tensor) -> None:
        """A projection; or a mix of heads of scores or attention weights (talking heads)."""
        for side in weights:
            other = product.right if side is product.left else product.left
            if not set(side.labels) & set(other.labels) & set(product.out):
                self.weights.add(id(_parameter(side.tensor)))
                self._note(product, side, other, out)
            tag = self._tag(other.tensor, out)
            if isinstance(tag, tuple) and all(event.of_products for event in tag):
                for event in tag:
                    event.heads_mixed = True
                self._keep(out, tag)
            elif isinstance(tag, _Scores):
                self._keep(out, replace(tag, heads_mixed=True))

    def _note(self, product: Product, side: Operand, other: Operand, out: Tensor) -> None:
        weight, inside = _parameter(side.tensor), side.axes(product.contracted)
        if not isinstance(weight, nn.Parameter) or len(inside) != 1 or side.tensor.numel() != weight.numel():
            return
        (place,) = inside
        axis = other.labels.index(side.labels[place])
        if side.tensor is not weight and weight.ndim == 2 and side.tensor.stride() != weight.stride():
            place = 1 - place  # its transpose
        positions = Operand(out, product.out).axes(other.labels)
        self.projections.append(Projection(weight, other.tensor, axis, place, out, positions))

    def _events(self, scores: _Scores, out: Tensor, logits: Tensor, dim: int) -> tuple[Event, ...]:
        """One for each product in the scores."""
        if scores.heads_mixed and (out.numel() != scores.shape.numel() or out.shape[dim] not in scores.shape):
            return ()  # a weight has turned the scores into something else
        path, events = tuple(self.path), []
        for product in (scores.product, *scores.joined):
            query, key = sides_of(product, logits, dim) or (None, None)
            events.append(Event(path, query, key, heads_mixed=scores.heads_mixed))
        events[0].added = tuple(sides for each in scores.added if (sides := sides_of(each, logits, dim)))
        return tuple(events)

    def _tag(
        self, tensor: Tensor, out: Tensor, func: Callable[..., Any] | None = None
    ) -> _Scores | tuple[Event, ...] | None:
        _, tag = self._tags.get(id(tensor), (None, None))
        if tag is None or not out.is_floating_point():
            return None
        small = out.numel() < SMALLEST * tensor.numel()
        return None if small and not (func in PARTS and isinstance(tag, tuple)) else tag

    def _keep(self, out: Tensor, tag: _Scores | tuple[Event, ...]) -> None:
        self._tags[id(out)] = (out, tag)


def _logits(args: tuple[Any, ...], given: Mapping[str, Any]) -> tuple[Tensor, int]:
    logits: Tensor = args[0] if args else given["input"]
    dim = given.get("dim", args[1] if len(args) > 1 else -1)
    return logits, dim if isinstance(dim, int) else -1


def _combined(tags: list[_Scores | tuple[Event, ...]], *, joined: bool) -> _Scores | tuple[Event, ...]:
    """The combined tag of several tensors: their attention weights, or their scores."""
    if isinstance(tags[0], tuple):
        return tuple({id(event): event for tag in tags if isinstance(tag, tuple) for event in tag}.values())
    others = [tag for tag in tags if isinstance(tag, _Scores) and tag is not tags[0]]
    return _with_others(tags[0], others, joined=joined)


def _with_others(first: _Scores, others: list[_Scores], *, joined: bool) -> _Scores:
    products = tuple(each for tag in others for each in (tag.product, *tag.joined))
    added = tuple(each for tag in others for each in tag.added)
    if joined:
        return replace(first, joined=(*first.joined, *_once(first, products)), added=(*first.added, *added))
    return replace(first, added=(*first.added, *_once(first, (*products, *added))))


def _once(first: _Scores, products: tuple[Product, ...]) -> tuple[Product, ...]:
    known = {id(each) for each in (first.product, *first.joined, *first.added)}
    return tuple(each for each in products if id(each) not in known)


def _tensors(args: tuple[Any, ...], given: Mapping[str, Any]) -> Iterator[Tensor]:
    for argument in (*args, *given.values()):
        candidates = argument if isinstance(argument, list | tuple) else (argument,)
        yield from (each for each in candidates if isinstance(each, Tensor))


def _is_parameter(tensor: Tensor) -> bool:
    """A parameter or a view of one: a product with it is a projection, not a comparison."""
    return isinstance(_parameter(tensor), nn.Parameter)


def _parameter(tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, nn.Parameter) or tensor._base is None else tensor._base


@contextmanager
def no_fast_path() -> Iterator[None]:
    """In inference torch's own attention uses a kernel that calls no hooks."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


@contextmanager
def tracing(model: nn.Module, cut: frozenset[str] = frozenset()) -> Iterator[Tracer]:
    """Trace what runs inside. Modules named in `cut` get detached inputs, so that what they compute depends on their
    own weights alone."""
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


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if type(value) in (list, tuple):
        return type(value)(_detached(each) for each in value)
    return {name: _detached(each) for name, each in value.items()} if type(value) is dict else value
