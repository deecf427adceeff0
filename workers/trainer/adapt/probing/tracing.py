"""Attention as it runs: every softmax between two products, and every fused call, with the modules around it."""

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
LOGS = (F.log_softmax, torch.log_softmax, Tensor.log_softmax)  # whose exponential is the same thing
JOINS = (torch.cat, torch.concat, torch.concatenate, torch.stack)
PARTS = (torch.chunk, Tensor.chunk, torch.split, Tensor.split, torch.unbind, Tensor.unbind, Tensor.__getitem__)
KNOWN = F.multi_head_attention_forward  # torch's own: its layout is documented, and inside it calls pass no mode
SMALLEST = 0.4  # of a tagged tensor that a result must have to be taken for the same thing, moved or masked


@dataclass
class Event:
    """One attention. `path` names the modules that ran, the innermost last; `mix` is what its values are mixed to, and
    `step` how many products with weights ran before. What torch's own function computes is not taken apart.
    `heads_mixed` where a weight mixes heads between the scores and the values. `added` are further products that the
    scores are a sum of."""

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


@dataclass(frozen=True)
class Fed:
    """A product of a weight and an input: over which axis of both it goes. `positions` are the axes of `out` that the
    input brings: samples and tokens, never heads."""

    weight: nn.Parameter
    given: Tensor
    axis: int
    weight_axis: int
    out: Tensor
    positions: tuple[int, ...]


@dataclass(frozen=True)
class _Scores:
    """`joined` are products that stand beside the first in one tensor, `added` those that are summed with it."""

    product: Product
    shape: torch.Size
    heads_mixed: bool = False
    joined: tuple[Product, ...] = ()
    added: tuple[Product, ...] = ()


class Tracer(TorchFunctionMode):
    """Collects `events`. A tensor that came out of a product is followed through scaling, masks and shapes to the
    softmax, and the weights from there to the product with the values. `plain` are softmaxes of anything else that
    weigh values, `softmaxed` the modules in which any softmax ran."""

    def __init__(self) -> None:
        super().__init__()
        self.path: list[str] = []
        self.ran: set[str] = set()
        self.softmaxed: set[str] = set()
        self.events: list[Event] = []
        self.plain: list[Event] = []
        self.fed: list[Fed] = []
        self.weights: set[int] = set()  # ids of the parameters that an input was multiplied with
        # The tensor is kept, so that its id stays its own.
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
        elif isinstance(out, Tensor):
            self._follow(func, args, given, out)
        elif isinstance(out, list | tuple):  # of chunk, split, unbind
            for each in out:
                if isinstance(each, Tensor):
                    self._follow(func, args, given, each)
        return out

    def _fused(self, out: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> None:
        heads = tuple(f"batch{axis}" for axis in range(query.ndim - 2))
        asked, key_side, value_side, mix = (
            Operand(tensor, (*heads, *own), frozenset(heads), frozenset("n"))
            for tensor, own in ((query, ("n", "k")), (key, ("m", "k")), (value, ("m", "d")), (out, ("n", "d")))
        )
        self.events.append(Event(tuple(self.path), asked, key_side, value_side, mix, step=len(self.fed)))

    def _follow(self, func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any], out: Tensor) -> None:
        tagged = [tag for tensor in _tensors(args, given) if (tag := self._tag(tensor, out, func)) is not None]
        product = product_of(func, args, given)
        if product is not None:
            self._product(product, out)
        elif func in SOFTMAX or func in LOGS:
            self.softmaxed |= set(self.path)
            self._softmax(next((tag for tag in tagged if isinstance(tag, _Scores)), None), out, args, given)
        elif tagged:
            self._keep(out, _together(tagged, joined=func in JOINS))

    def _softmax(self, scores: _Scores | None, out: Tensor, args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
        if scores is None:
            self._keep(out, (Event(tuple(self.path), of_products=False),))
        elif found := self._events(scores, out, args, given):
            self._keep(out, found)

    def _product(self, product: Product, out: Tensor) -> None:
        if weights := [side for side in (product.left, product.right) if _is_parameter(side.tensor)]:
            self._with_weight(product, weights, out)
            return
        for side, other in ((product.left, product.right), (product.right, product.left)):
            known = self._tags.get(id(side.tensor))
            if known is not None and isinstance(known[1], tuple):
                mix = Operand(out, product.out).of_product(product.kept, product.alone(side))
                for event in known[1]:
                    self._weighed(event, other.of_product(product.kept), mix)
                return
        if product.contracted:
            self._keep(out, _Scores(product, out.shape))

    def _weighed(self, event: Event, value: Operand, mix: Operand) -> None:
        """Attention weights times values; the same weights may weigh several."""
        if event.value is not None:
            if not value.tensor.requires_grad:
                return
            event = replace(event)
        event.value, event.mix, event.step = value, mix, len(self.fed)
        (self.events if event.of_products else self.plain).append(event)

    def _with_weight(self, product: Product, weights: list[Operand], out: Tensor) -> None:
        """A projection; or heads of scores, or of attention weights, mixed with each other (talking heads)."""
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
        weight, inside = _parameter(side.tensor), [label for label in side.labels if label in product.contracted]
        if not isinstance(weight, nn.Parameter) or len(inside) != 1 or side.tensor.numel() != weight.numel():
            return
        place = side.labels.index(inside[0])
        if side.tensor is not weight and weight.ndim == 2 and side.tensor.stride() != weight.stride():
            place = 1 - place  # its transpose
        positions = tuple(axis for axis, label in enumerate(product.out) if label in other.labels)
        self.fed.append(Fed(weight, other.tensor, other.labels.index(inside[0]), place, out, positions))

    def _events(
        self, scores: _Scores, out: Tensor, args: tuple[Any, ...], given: Mapping[str, Any]
    ) -> tuple[Event, ...]:
        """One for each product that stands in the scores."""
        logits, dim = _logits(args, given)
        if scores.heads_mixed and (out.numel() != scores.shape.numel() or out.shape[dim] not in scores.shape):
            return ()  # no longer scores: a weight has made something else of them
        path, found = tuple(self.path), []
        for product in (scores.product, *scores.joined):
            sides = sides_of(product, logits, dim)
            query, key = sides or (None, None)
            found.append(Event(path, query, key, heads_mixed=scores.heads_mixed))
        found[0].added = tuple(sides for each in scores.added if (sides := sides_of(each, logits, dim)))
        return tuple(found)

    def _tag(
        self, tensor: Tensor, out: Tensor, func: Callable[..., Any] | None = None
    ) -> _Scores | tuple[Event, ...] | None:
        known = self._tags.get(id(tensor))
        if known is None or not out.is_floating_point():
            return None
        small = out.numel() < SMALLEST * tensor.numel()
        if small and not (func in PARTS and isinstance(known[1], tuple)):
            return None
        return known[1]

    def _keep(self, out: Tensor, tag: _Scores | tuple[Event, ...]) -> None:
        self._tags[id(out)] = (out, tag)


def _logits(args: tuple[Any, ...], given: Mapping[str, Any]) -> tuple[Tensor, int]:
    logits: Tensor = args[0] if args else given["input"]
    dim = given.get("dim", args[1] if len(args) > 1 else -1)
    return logits, dim if isinstance(dim, int) else -1


def _together(tags: list[_Scores | tuple[Event, ...]], *, joined: bool) -> _Scores | tuple[Event, ...]:
    """What several tensors are, as one: attention weights of all, or scores."""
    if isinstance(tags[0], tuple):
        events = {id(event): event for tag in tags if isinstance(tag, tuple) for event in tag}
        return tuple(events.values())
    first, others = tags[0], [tag for tag in tags[1:] if isinstance(tag, _Scores) and tag is not tags[0]]
    products = tuple(each for tag in others for each in (tag.product, *tag.joined))
    added = tuple(each for tag in others for each in tag.added)
    if joined:
        return replace(first, joined=(*first.joined, *_once(first, products)), added=(*first.added, *added))
    return replace(first, added=(*first.added, *_once(first, (*products, *added))))


def _once(first: _Scores, products: tuple[Product, ...]) -> tuple[Product, ...]:
    known = {id(each) for each in (first.product, *first.joined, *first.added)}
    return tuple(each for each in products if id(each) not in known)


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
