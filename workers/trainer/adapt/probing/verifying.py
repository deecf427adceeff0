"""Check claims about W_q, W_k and W_v against what the model computes, and name attention that is not a site."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from workers.trainer.adapt.compiled import modules_of
from workers.trainer.adapt.evaluating import evaluating
from workers.trainer.adapt.parts import Part, entries, indexed

from . import inputs
from .calls import MIXED, ROLES, Call, Combined, Layout, Weights, combined, distinct_calls, others_of
from .measuring import Owned, measured, owners
from .outputs import output
from .products import Operand
from .tracing import Event, Projection, Tracer, tracing
from .unseen import plain, unseen, why_none

Parts = Mapping[str, Part]
Output = Callable[[str, Parts], Mapping[str, Part]]  # of a module and its other parts: W_o by its name
OTHERWISE = "another of its calls of attention uses the same weights in another way"


@dataclass
class Verified:
    """By module name: the measured parts; why a module, one of its matrices or one of its attentions is left out; why a
    claim could not be checked."""

    parts: dict[str, Parts] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)


def verified(
    model: nn.Module, claims: Mapping[str, Parts], run: Callable[[], object] | None, output_of: Output
) -> Verified:
    """Run the model once to detect attention and once to measure what it depends on. Restores weights, gradients, modes
    and random state."""
    modules = modules_of(model)
    with evaluating(model), _unchanged(model):
        result = Verified()
        run, events = _first(model, run)
        if run is None:
            return _not_measured(result, claims, claims, "no batch was given, and none could be generated")
        by_module = owners(events, modules, claims)
        with torch.enable_grad(), tracing(model, frozenset(name for name in by_module if name)) as tracer:
            try:
                run()
            except Exception as error:  # without gradients it has just run
                why = f"runs only without gradients ({type(error).__name__}: {error})"
                return _not_measured(result, claims, [*claims, *by_module], why)
        by_module = owners(tracer.events, modules, claims)
        for name, events in by_module.items():
            weights = _weights(modules[name], tracer.weights)
            site = _Site(name, modules[name], weights, tracer.projections, output_of)
            try:
                _check(result, site, claims, events)
            except RuntimeError as error:  # of a graph with foreign hooks, kernels or compilers
                first_line = str(error).partition("\n")[0]
                why = f"derivatives of its attention cannot be taken ({type(error).__name__}: {first_line})"
                _not_measured(result, claims, [name], why)
    _none_detected(result, [name for name in claims if name not in by_module], tracer)
    result.left_out |= plain(owners(tracer.plain, modules, claims), by_module)
    result.left_out |= unseen(modules, tracer, {*claims, *result.left_out})
    return result


@dataclass(frozen=True)
class _Site:
    name: str
    module: nn.Module
    weights: Weights
    projections: list[Projection]
    output_of: Output

    @property
    def where(self) -> str:
        return self.name or "(the model)"


def _not_measured(result: Verified, claims: Collection[str], names: Iterable[str], why: str) -> Verified:
    """Claims stay unchecked, and attention without one is left out."""
    for name in names:
        if name in claims:
            result.unchecked[name] = why
        else:
            result.left_out[name or "(the model)"] = why
    return result


def _none_detected(result: Verified, claims: Iterable[str], tracer: Tracer) -> None:
    for name in claims:
        if name in tracer.ran:
            result.left_out[name] = why_none(name, tracer)
        else:
            result.unchecked[name] = "did not run on the batch"


def _first(model: nn.Module, run: Callable[[], object] | None) -> tuple[Callable[[], object] | None, list[Event]]:
    """A call of the model that succeeds, and the attention that ran in it."""
    for candidate in [run] if run is not None else inputs.runs(model):
        with torch.no_grad(), tracing(model) as tracer:
            try:
                candidate()
            except Exception:  # a generated batch may not fit; a given one has to
                if run is not None:
                    raise
                continue
        return candidate, tracer.events
    return None, []


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Inside, every parameter requires a gradient; afterwards flags and buffers are restored."""
    flags = [(each, each.requires_grad) for each in model.parameters() if each.is_floating_point()]
    buffers = [(each, each.detach().clone()) for each in model.buffers()]
    try:
        for each, _ in flags:
            each.requires_grad_(True)
        yield
    finally:
        for each, flag in flags:
            each.requires_grad_(flag)
        with torch.no_grad():
            for buffer, before in buffers:
                if buffer.shape == before.shape:
                    buffer.copy_(before)


def _check(result: Verified, site: _Site, claims: Mapping[str, Parts], events: list[Event]) -> None:
    """One module's attention: as claimed, with another layout, or left out with the reason."""
    claim = claims.get(site.name)
    if any(event.torchs_own for event in events):
        if claim is None:
            result.left_out[site.where] = "computes torch's multi_head_attention_forward outside a module of torch"
    elif not _has_graph(events):
        _not_measured(result, claims, [site.name], "its attention ran without gradients")
    elif isinstance(calls := distinct_calls(events, site.weights, site.projections), str):
        result.left_out[site.where] = calls
    elif claim is not None and all(_as_claimed_but_mixed(site, claim, call) for call in calls):
        claimed = {role: Owned(claim[role].parameter, 0, tuple(entries(claim[role]))) for role in ROLES}
        _accept(result, site, claim, Combined(calls, [claimed]), claim)
    else:
        _check_calls(result, site, claim, calls)


def _has_graph(events: list[Event]) -> bool:
    queries = [event.query for event in events if event.query is not None]
    return not queries or any(query.tensor.requires_grad for query in queries)


def _check_calls(result: Verified, site: _Site, claim: Parts | None, calls: list[Call]) -> None:
    same = combined(calls, None if claim is None else {role: claim[role].parameter for role in ROLES}, site.weights)
    if isinstance(same, str) or (others := others_of(same, site.weights)) is None:
        result.left_out[site.where] = same if isinstance(same, str) else OTHERWISE
        return
    _accept_measured(result, site, claim, same)
    for names in others:
        result.left_out[f"{site.where} ({names})"] = "another attention of this module, over weights of its own"


def _accept_measured(result: Verified, site: _Site, claim: Parts | None, same: Combined) -> None:
    """The claimed parts where the measurement confirms them, else the measured ones."""
    for layout in same.layouts if claim is not None else []:
        if claim is not None and (order := _order(claim, layout, free=len(same.calls) > 1)) is not None:
            _accept(result, site, claim, same, claim, order)
            return
    _accept(result, site, claim, same, {role: _part(owned) for role, owned in same.layouts[0].items()})


def _accept(
    result: Verified, site: _Site, claim: Parts | None, same: Combined, parts: Parts, order: Sequence[int] = ()
) -> None:
    """These parts, and W_o if there is one. `order` has the positions of their heads among those of the calls."""
    own = {role: parts[role] for role in ROLES}
    claimed = (claim or {}).get("W_o") or site.output_of(site.name, own).get("W_o")
    part, why = output(same, site.weights, site.projections, claimed, order)
    result.parts[site.name] = own if part is None else {**own, "W_o": part}
    if why:
        result.left_out[f"{site.where}/W_o"] = why


def _weights(module: nn.Module, multiplied: set[int]) -> dict[str, nn.Parameter]:
    """The module's parameters that an input is multiplied with: not learned queries or biases of heads. Adapters (peft)
    belong to the weight of their layer."""
    named = dict(module.named_parameters())
    adapted = {name.partition("base_layer.")[0] for name in named if "base_layer." in name}
    own = {
        name: each
        for name, each in named.items()
        if "base_layer." in name or not any(name.startswith(layer) for layer in adapted)
    }
    return {name: each for name, each in own.items() if each.ndim > 1 and id(each) in multiplied}


def _order(claim: Parts, layout: Layout, *, free: bool) -> list[int] | None:
    """The positions of the claimed heads among the measured ones; None where the measurement contradicts the claim.
    Where heads have their own calls (`free`), any order is accepted that is the same for all roles."""
    orders = [order for role in ROLES if (order := _places(claim[role], layout[role])) is not None]
    if len(orders) < len(ROLES) or not (free or all(order == sorted(order) for order in orders)):
        return None
    return orders[0] if all(order == orders[0] for order in orders if len(order) == len(orders[0])) else None


def _places(claim: Part, owned: Owned) -> list[int] | None:
    """For each claimed head the index of the measured one; heads that share are listed once."""
    claimed, own = list(dict.fromkeys(entries(claim))), entries(_part(owned))
    if claim.parameter is not owned.weight or sorted(claimed) != sorted(own):
        return None
    return [own.index(each) for each in claimed]


def _part(owned: Owned) -> Part:
    return indexed(owned.weight, owned.heads, owned.dim)


def _as_claimed_but_mixed(site: _Site, claim: Parts, call: Call) -> bool:
    """The one exception: a norm over the whole width of queries and keys makes each head depend on all of them. The
    parameters and the values still have to be as claimed."""
    if call.layout != MIXED or not any("norm" in name.lower() for name, _ in site.module.named_children()):
        return False
    operands = zip(ROLES, call.event.operands, strict=True)
    return all(_confirms(site, role, claim[role], operand) for role, operand in operands)


def _confirms(site: _Site, role: str, claim: Part, operand: Operand | None) -> bool:
    """Whether values own their heads' entries as claimed; whether queries or keys depend on the whole parameter."""
    assert operand is not None
    dependence = measured(operand, site.weights, site.projections)
    if role != "W_v":
        return [id(each) for each in dependence.mixed] == [id(claim.parameter)] and not dependence.owned
    places = _places(claim, dependence.owned[0]) if len(dependence.owned) == 1 else None
    return places is not None and places == sorted(places)
