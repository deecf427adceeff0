"""The gradient at every station between the loss and W_q: loss → pred → queries → out → mix → weights → logits → Q →
W_q. The last five are computed by formulas (by_hand.py) and checked against autograd.

Shapes: B batch, T queries, S keys, H heads, D = d_k, E = d_v, M = d_model.

With dO the gradient at the site's output and A = softmax(Q·Kᵀ·scale):
dmix = dO·W_oᵀ; dA = dmix·Vᵀ; dS = A∘(dA − rowsum(dA∘A)); dQ = dS·K·scale; dW_q = Xᵀ·dQ summed over the batch.

Every probe compares the last gradient with autograd's twice: in the model's own precision, in which two orders of
summation may differ by bound.bound, and in double precision on a copy of the model. Both use the explicit forward
pass. Between the loss and the sites' outputs the gradient is autograd's, except for tasks that are Followed.

A chain is one path of a sum: what reaches W_q through the layers above the site is already in dO.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from experiments.spec.sections.attention_names import STATIONS
from workers.trainer.attention.attention import MATRICES, Attention, Tap, attention_weights, plain_attention
from workers.trainer.attention.by_hand import product, softmax, through_softmax
from workers.trainer.attention.gradient_chain.bound import bound, is_bounded
from workers.trainer.attention.hooks import taps
from workers.trainer.attention.sites import sites

FROM_LOSS = "chain_error/from_loss/fp64"
W_Q = MATRICES[0]
ROUNDINGS = 4


class Chained(Protocol):
    """A task whose gradient can be followed to W_q."""

    model: nn.Module

    def passed(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """The loss of a small fixed batch under `model`, in the precision of its weights, and the output it is computed
        from (mask logits, class logits); both with a graph."""


class Followed(Chained, Protocol):
    """A task that also computes the links above a site by formulas."""

    def from_loss(self, model: Any) -> Tensor:
        """The largest relative error, against autograd, of the links from the loss to one site's W_q."""


def is_chained(task: Any) -> TypeGuard[Chained]:
    return callable(getattr(task, "passed", None)) and bool(chained_sites(task.model))


def is_followed(task: Any) -> TypeGuard[Followed]:
    return is_chained(task) and callable(getattr(task, "from_loss", None))


def chained_sites(model: nn.Module) -> dict[str, Attention]:
    """The sites at which a gradient reaches Q."""
    return {name: site for name, site in sites(model).items() if site.has_query_gradient}


def chain_names(task: Chained) -> list[str]:
    """The series of every site: its stations in order, and its errors."""
    own = chained_sites(task.model)
    stations = [f"flow/{name}/{station}" for name, site in own.items() for station in STATIONS if _has(site, station)]
    errors = [f"chain_error/{name}" for name in own]
    bounds = [f"chain_error/{name}/of_bound" for name, site in own.items() if is_bounded(site)]
    doubles = [f"chain_error/{name}/fp64" for name in own]
    return [*stations, *errors, *bounds, *doubles, *([FROM_LOSS] if is_followed(task) else [])]


def chain(task: Chained, model: nn.Module) -> dict[str, Tensor]:
    """The norm at every station of every site; the relative error of the last gradient, and its ratio to the bound
    where there is one. Costs a forward and a backward pass of the task's batch and some maps per site; does not change
    `.grad`."""
    own = chained_sites(model)
    with torch.enable_grad(), explicit(own.values()), taps(model) as calls, last_states(model) as states:
        loss, pred = task.passed(model)
    tensors = [pred, states[-1]]
    for name, site in own.items():
        tensors += [calls[name].out_BTM, calls[name].q_BHTD]
        tensors += [site.W_q] if _has(site, W_Q) else []
    gradients = iter(torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True))
    above = {"pred": _norm(next(gradients)), "queries": _norm(next(gradients))}
    values: dict[str, Tensor] = {}
    for name, site in own.items():
        d_out, d_q = next(gradients), next(gradients)
        links = follow(site, calls[name], d_out)
        norms = {**above, "out": _norm(d_out), **{station: _norm(link) for station, link in links.items()}}
        values |= {f"flow/{name}/{station}": norms[station] for station in STATIONS if station in norms}
        last, truth = (links[W_Q], next(gradients)) if W_Q in links else (links["Q"], d_q)
        values[f"chain_error/{name}"] = relative_error(last, truth, rounding(calls[name], links["weights"]))
        if is_bounded(site) and d_out.dtype != torch.float64:
            values[f"chain_error/{name}/of_bound"] = _ratio(_norm(last - truth), bound(site, calls[name], d_out))
    return values


def followed(task: Chained) -> dict[str, Tensor]:
    """What a probe records: the model's chain, and the errors in double precision."""
    return {**chain(task, task.model), **exact_errors(task)}


@torch.no_grad()
def follow(site: Attention, tap: Tap, d_out_BTM: Tensor) -> dict[str, Tensor]:
    """Gradients at mix, weights, logits, Q and W_q from the one at the site's output, by formulas. `Q` is the one after
    QK-norm, where the spec has it. Masked pairs have no weight and no gradient."""
    weights = softmax(product(tap.q_BHTD, tap.k_BHSD.transpose(-2, -1)) * tap.scale, tap.mask)
    d_mix = product(d_out_BTM, site.W_o.T)  # BTN
    d_weights = product(site.split(d_mix), tap.v_BHSE.transpose(-2, -1))  # BHTS
    if tap.mask is not None:
        d_weights = d_weights.masked_fill(~tap.mask, 0.0)
    d_logits = through_softmax(weights, d_weights)
    d_q = product(d_logits, tap.k_BHSD) * tap.scale  # BHTD
    links = {"mix": d_mix, "weights": d_weights, "logits": d_logits, "Q": d_q}
    if _has(site, W_Q):
        d_k = product(d_logits.transpose(-2, -1), tap.q_BHTD) * tap.scale  # BHSD
        links[W_Q] = site.gradient_of_W_q(tap.x_BTM, tap.y_BSM, d_q, d_k)
    return links


def relative_error(computed: Tensor, truth: Tensor, rounding: Tensor) -> Tensor:
    """‖computed − truth‖ ÷ ‖truth‖; 0 where both norms are within the rounding of the terms they sum."""
    both_zero = (_norm(computed) <= rounding) & (_norm(truth) <= rounding)
    error = _norm(computed - truth) / _norm(truth)
    return torch.where(both_zero, torch.zeros_like(error), error)


def rounding(tap: Tap, d_weights: Tensor) -> Tensor:
    """What rounding leaves of a gradient that cancels, as with a single key: ROUNDINGS · eps of the product of its
    factors' norms."""
    weights = attention_weights(tap.q_BHTD, tap.k_BHSD, tap.mask, tap.scale)
    inputs = _norm(tap.x_BTM) * _norm(tap.k_BHSD) + _norm(tap.y_BSM) * _norm(tap.q_BHTD)
    return ROUNDINGS * torch.finfo(weights.dtype).eps * tap.scale * inputs * _norm(weights * d_weights)


def exact_errors(task: Chained) -> dict[str, Tensor]:
    """The relative error of every site of a float64 copy of the model, and of the links above it, as `…/fp64`."""
    twin = copy.deepcopy(task.model).double()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # for constants made in the forward pass
    try:
        values = chain(task, twin)
        errors = {f"chain_error/{name}/fp64": values[f"chain_error/{name}"] for name in chained_sites(twin)}
        return errors | ({FROM_LOSS: task.from_loss(twin)} if is_followed(task) else {})
    finally:
        torch.set_default_dtype(before)


@contextmanager
def explicit(own_sites: Iterable[Attention]) -> Iterator[None]:
    """Inside, these sites use `plain_attention` instead of the fused kernel."""
    before = [(site, site.attend) for site in own_sites]
    for site, _ in before:
        site.attend = plain_attention
    try:
        yield
    finally:
        for site, attend in before:
            site.attend = attend


@contextmanager
def last_states(model: Any) -> Iterator[list[Tensor]]:
    """Record the output of the last attention layer."""
    layers = getattr(model, "decoder", None) or model.encoder
    outputs: list[Tensor] = []
    hook = layers[-1].register_forward_hook(lambda _module, _inputs, out: outputs.append(out))
    try:
        yield outputs
    finally:
        hook.remove()


def _ratio(error: Tensor, limit: Tensor) -> Tensor:
    """error ÷ limit; 0 where the error is 0, as with a single key, where the limit is 0 too."""
    return torch.where(error == 0, torch.zeros_like(limit), error.double() / limit)


def _has(site: Attention, station: str) -> bool:
    return station != W_Q or W_Q in site.owned


def _norm(gradient: Tensor) -> Tensor:
    return torch.linalg.vector_norm(gradient)
