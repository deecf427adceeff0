"""Holds what names say about W_q, W_k and W_v against what the model computes, and names what no site covers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from workers.trainer.adapt.compiled import modules_of
from workers.trainer.adapt.evaluating import evaluating
from workers.trainer.adapt.parts import Part, entries, indexed

from . import inputs
from .measuring import Owned, measured, owners
from .outputs import output
from .several import MIXED, ROLES, Call, Reading, Together, Weights, distinct_calls, others_of, together
from .tracing import Event, Fed, tracing
from .unseen import plain, unseen, why_none

Parts = Mapping[str, Part]
Output = Callable[[str, Parts], Mapping[str, Part]]  # W_o by its name, of a module and its other parts


@dataclass
class Verified:
    """By module name: the parts of what was measured; why a module, one of its matrices or one of several attentions in
    it is left out; why a claim could not be checked."""

    parts: dict[str, Parts] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)


def verified(
    model: nn.Module, claims: Mapping[str, Parts], run: Callable[[], object] | None, output_of: Output
) -> Verified:
    """Run the model once to see where attention happens and once to measure what it depends on. Weights, gradients,
    modes and random state are as before."""
    modules = modules_of(model)
    found = Verified()
    with evaluating(model), _kept_still(model):
        run, events = _first(model, run)
        if run is None:
            found.unchecked = dict.fromkeys(claims, "no batch was given, and none could be made up")
            return found
        mine = owners(events, modules, claims)
        with torch.enable_grad(), tracing(model, frozenset(name for name in mine if name)) as tracer:
            try:
                run()
            except Exception as error:  # without gradients it has just run
                return _unmeasured(claims, mine, f"runs only without gradients ({type(error).__name__}: {error})")
        seen = owners(tracer.events, modules, claims)
        for name, calls in seen.items():
            module = _Module(name, modules[name], _weights(modules[name], tracer.weights), tracer.fed, output_of)
            try:
                _judge(found, module, claims.get(name), calls)
            except RuntimeError as error:  # of a graph that somebody's hooks, kernels or compilers have made
                why = f"derivatives of its attention cannot be taken ({type(error).__name__}: {_first_line(error)})"
                _untold(found, name, claims.get(name), why)
    for name in (each for each in claims if each not in seen):
        if name in tracer.ran:
            found.left_out[name] = why_none(name, tracer)
        else:
            found.unchecked[name] = "did not run on the batch"
    found.left_out |= plain(owners(tracer.plain, modules, claims), seen)
    found.left_out |= unseen(modules, tracer, {*claims, *found.left_out})
    return found


@dataclass(frozen=True)
class _Module:
    name: str
    module: nn.Module
    weights: Weights
    fed: list[Fed]
    output_of: Output

    @property
    def where(self) -> str:
        return self.name or "(the model)"


def _unmeasured(claims: Mapping[str, Parts], seen: Collection[str], why: str) -> Verified:
    """No derivative can be taken: claims stay as they are, attention without a claim is left out."""
    left_out = {name or "(the model)": why for name in seen if name not in claims}
    return Verified(left_out=left_out, unchecked=dict.fromkeys(claims, why))


def _first(model: nn.Module, run: Callable[[], object] | None) -> tuple[Callable[[], object] | None, list[Event]]:
    """The way to call the model, and the attention that ran."""
    for each in [run] if run is not None else inputs.runs(model):
        with torch.no_grad(), tracing(model) as tracer:
            try:
                each()
            except Exception:  # a made-up batch may be refused in any way; a given one is the caller's
                if run is not None:
                    raise
                continue
        return each, tracer.events
    return None, []


@contextmanager
def _kept_still(model: nn.Module) -> Iterator[None]:
    """Every parameter takes part in the graph inside; flags and buffers are as before outside."""
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


def _judge(found: Verified, site: _Module, claim: Parts | None, events: list[Event]) -> None:
    """One module's attention: as claimed, laid out otherwise, or left out with the reason."""
    if any(event.torchs_own for event in events):
        if claim is None:
            found.left_out[site.where] = "computes torch's multi_head_attention_forward outside a module of torch"
        return
    followed = [event.query for event in events if event.query is not None]
    if followed and not any(each.tensor.requires_grad for each in followed):
        _untold(found, site.name, claim, "its attention ran without gradients")
        return
    calls = distinct_calls(events, site.weights, site.fed)
    if isinstance(calls, str):
        found.left_out[site.where] = calls
        return
    if claim is not None and all(_as_claimed_but_mixed(site, claim, call) for call in calls):
        as_said = {role: Owned(claim[role].parameter, 0, tuple(entries(claim[role]))) for role in ROLES}
        _take(found, site, claim, Together(calls, [as_said]), claim)
        return
    same = together(calls, None if claim is None else {role: claim[role].parameter for role in ROLES}, site.weights)
    others = [] if isinstance(same, str) else others_of(same, site.weights)
    if isinstance(same, str) or others is None:
        found.left_out[site.where] = same if isinstance(same, str) else OTHERWISE
        return
    _take_read(found, site, claim, same)
    for names in others:
        found.left_out[f"{site.where} ({names})"] = "another attention of this module, over weights of its own"


def _untold(found: Verified, name: str, claim: Parts | None, why: str) -> None:
    """Nothing was measured: a claim stands unchecked, and attention without one is left out."""
    (found.left_out if claim is None else found.unchecked)[name if claim is not None else name or "(the model)"] = why


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


OTHERWISE = "another of its calls of attention uses the same weights in another way"


def _take_read(found: Verified, site: _Module, claim: Parts | None, same: Together) -> None:
    """The claimed parts where they are what the calls read together, else the measured ones."""
    for reading in same.readings if claim is not None else []:
        if claim is not None and (order := _order(claim, reading, free=len(same.calls) > 1)) is not None:
            _take(found, site, claim, same, claim, order)
            return
    _take(found, site, claim, same, _measured(same.readings[0]))


def _take(
    found: Verified, site: _Module, claim: Parts | None, same: Together, parts: Parts, order: Sequence[int] = ()
) -> None:
    """These parts, and W_o where there is one. `order` says where their heads lie among those of the calls."""
    own = {role: parts[role] for role in ROLES}
    claimed = (claim or {}).get("W_o") or site.output_of(site.name, own).get("W_o")
    part, why = output(same, site.weights, site.fed, claimed, order)
    found.parts[site.name] = own if part is None else {**own, "W_o": part}
    if why:
        found.left_out[f"{site.where}/W_o"] = why


def _measured(reading: Reading) -> dict[str, Part]:
    return {role: _part(owned) for role, owned in reading.items()}


def _weights(module: nn.Module, multiplied: set[int]) -> dict[str, nn.Parameter]:
    """The module's parameters that an input is multiplied with: no learned queries, no biases of heads. What adapts
    a layer (peft) belongs to the layer's own weight."""
    named = dict(module.named_parameters())
    adapted = {name.partition("base_layer.")[0] for name in named if "base_layer." in name}
    own = {
        name: each
        for name, each in named.items()
        if "base_layer." in name or not any(name.startswith(layer) for layer in adapted)
    }
    return {name: each for name, each in own.items() if each.ndim > 1 and id(each) in multiplied}


def _order(claim: Parts, reading: Reading, *, free: bool) -> list[int] | None:
    """Where the claimed heads lie among the measured ones; None where a claim is not what was measured. Where heads
    have calls of their own (`free`), the order of the calls says nothing; it is the same for all roles."""
    found = [_places(claim[role], reading[role]) for role in ROLES]
    orders = [each for each in found if each is not None]
    if len(orders) < len(ROLES) or not (free or all(order == sorted(order) for order in orders)):
        return None
    own = [order for order in orders if len(order) == len(orders[0])]
    return own[0] if all(order == own[0] for order in own) else None


def _places(claim: Part, owned: Owned) -> list[int] | None:
    """Of each claimed head, which measured one it is; heads that share may be listed once."""
    claimed, own = list(dict.fromkeys(entries(claim))), entries(_part(owned))
    if claim.parameter is not owned.weight or sorted(claimed) != sorted(own):
        return None
    return [own.index(each) for each in claimed]


def _part(owned: Owned) -> Part:
    return indexed(owned.weight, owned.heads, owned.dim)


def _as_claimed_but_mixed(site: _Module, claim: Parts, call: Call) -> bool:
    """A declared exception: a norm over the whole width of queries and keys makes each head depend on all of them.
    The parameter still has to be the one, and the values to be as claimed."""
    if call.reading != MIXED or not any("norm" in name.lower() for name, _ in site.module.named_children()):
        return False
    event = call.event
    assert event.query is not None
    assert event.key is not None
    assert event.value is not None
    for role, operand in (("W_q", event.query), ("W_k", event.key)):
        told = measured(operand, site.weights, site.fed)
        if [id(each) for each in told.mixed] != [id(claim[role].parameter)] or told.owned:
            return False
    values = measured(event.value, site.weights, site.fed).owned
    places = _places(claim["W_v"], values[0]) if len(values) == 1 else None
    return places is not None and places == sorted(places)
