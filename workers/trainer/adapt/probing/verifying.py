"""Holds what names say about W_q, W_k and W_v against what the model computes, and names what no site covers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from workers.trainer.adapt.compiled import modules_of
from workers.trainer.adapt.parts import Part, entries, indexed
from workers.trainer.evaluating import evaluating

from . import inputs
from .measuring import Measured, Owned, measured, owners
from .tracing import Event, tracing
from .unseen import unseen
from .whole import whole

Parts = Mapping[str, Part]
ROLES = ("W_q", "W_k", "W_v")


@dataclass
class Verified:
    """By module name: the parts where they were measured to be others than claimed; why a module is left out; why a
    claim could not be checked."""

    parts: dict[str, Parts] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)


def verified(model: nn.Module, claims: Mapping[str, Parts], run: Callable[[], object] | None) -> Verified:
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
            weights = _weights(modules[name], tracer.weights)
            try:
                _judge(found, name, modules[name], weights, claims.get(name), calls)
            except RuntimeError as error:  # of a graph that somebody's hooks, kernels or compilers have made
                why = f"derivatives of its attention cannot be taken ({type(error).__name__}: {_first_line(error)})"
                _untold(found, name, claims.get(name), why)
    for name in (each for each in claims if each not in seen):
        if name in tracer.ran:
            found.left_out[name] = "computes no attention that can be seen: no softmax over products ran in it"
        else:
            found.unchecked[name] = "did not run on the batch"
    found.left_out |= unseen(modules, tracer, {*claims, *found.left_out})
    return found


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


def _judge(
    found: Verified,
    name: str,
    module: nn.Module,
    weights: Mapping[str, nn.Parameter],
    claim: Parts | None,
    calls: list[Event],
) -> None:
    """One module's attention: as claimed, laid out otherwise, or left out with the reason."""
    where = name or "(the model)"
    if any(call.torchs_own for call in calls):
        if claim is None:
            found.left_out[where] = "computes torch's multi_head_attention_forward outside a module of torch"
        return
    if reason := whole(calls, weights):
        found.left_out[where] = reason
        return
    if not any(call.query is not None and call.query.tensor.requires_grad for call in calls):
        _untold(found, name, claim, "its attention ran without gradients")
        return
    reading = _read(weights, calls[0])
    if isinstance(reading, str):
        if claim is not None and reading == MIXED and _as_claimed_but_mixed(module, weights, claim, calls[0]):
            return
        found.left_out[where] = reading
        return
    if claim is not None and all(_equal(claim[role], reading[role]) for role in ROLES):
        return
    found.parts[name] = {role: _part(owned) for role, owned in reading.items()}


def _untold(found: Verified, name: str, claim: Parts | None, why: str) -> None:
    """Nothing was measured: a claim stands unchecked, and attention without one is left out."""
    (found.left_out if claim is None else found.unchecked)[name if claim is not None else name or "(the model)"] = why


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


MIXED = "every head depends on whole matrices: a norm across heads, or a latent that heads share"


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


def _read(weights: Mapping[str, nn.Parameter], call: Event) -> dict[str, Owned] | str:
    """What each role is laid out like; else why it cannot be told."""
    if call.query is None or call.key is None or call.value is None:
        return "computes attention whose values cannot be followed"
    reading = {}
    for role, operand in (("W_q", call.query), ("W_k", call.key), ("W_v", call.value)):
        told = measured(operand, weights)
        if not told.owned and told.mixed:
            return MIXED
        if len(told.owned) != 1:
            return _why(role, told)
        reading[role] = told.owned[0]
    return reading


def _why(role: str, told: Measured) -> str:
    what = {"W_q": "queries", "W_k": "keys", "W_v": "values"}[role]
    if not told.owned:
        return f"its {what} come from no weight of this module"
    return f"its {what} come from {len(told.owned)} weights side by side"


def _equal(claim: Part, owned: Owned) -> bool:
    """Whether the claimed entries of each head are the measured ones; heads that share may be listed once."""
    if claim.parameter is not owned.weight:
        return False
    return list(dict.fromkeys(entries(claim))) == entries(_part(owned))


def _part(owned: Owned) -> Part:
    return indexed(owned.weight, owned.heads, owned.dim)


def _as_claimed_but_mixed(module: nn.Module, weights: Mapping[str, nn.Parameter], claim: Parts, call: Event) -> bool:
    """A declared exception: a norm over the whole width of queries and keys makes each head depend on all of them.
    The parameter still has to be the one, and the values to be as claimed."""
    if not any("norm" in name.lower() for name, _ in module.named_children()):
        return False
    if call.query is None or call.key is None or call.value is None:
        return False
    for role, operand in (("W_q", call.query), ("W_k", call.key)):
        told = measured(operand, weights)
        if [id(each) for each in told.mixed] != [id(claim[role].parameter)] or told.owned:
            return False
    values = measured(call.value, weights).owned
    return len(values) == 1 and _equal(claim["W_v"], values[0])
