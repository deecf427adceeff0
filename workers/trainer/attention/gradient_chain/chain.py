"""The gradient on its way from the loss to W_q, station by station: loss → pred → queries → out → mix → weights →
logits → Q → W_q. The last five are worked out by hand (by_hand.py) and checked against autograd.

Shapes: B batch, T askers, S answerers, H heads, D = d_k, E = d_v, M = d_model.

With dO the gradient at the site's output and A = softmax(Q·Kᵀ·scale):
dmix = dO·W_oᵀ; dA = dmix·Vᵀ; dS = A∘(dA − rowsum(dA∘A)); dQ = dS·K·scale; dW_q = Xᵀ·dQ summed over the batch.

At every probe the end is compared with autograd's gradient twice: in the model's own precision, where rounding may put
two orders of summation as far apart as chain_bound.bound says, and in double precision on a copy of the model. The
forward pass is the explicit one in both. Between the loss and the sites' outputs the gradient is autograd's, but for
what a task works out itself (Followed).

A chain is one path of a sum: what reaches W_q through the layers above it is in dO already.
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
    """A task whose gradient can be followed."""

    model: nn.Module

    def passed(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """The loss of a small fixed batch under `model`, in the precision of its weights, and the output that the
        loss reads (mask logits, class logits); both with a graph."""


class Followed(Chained, Protocol):
    """One that works out the links above a site, too."""

    def from_loss(self, model: Any) -> Tensor:
        """The largest relative error, against autograd, of the links from the loss to one site's W_q, all by
        formulas."""


def is_chained(task: Any) -> TypeGuard[Chained]:
    return callable(getattr(task, "passed", None)) and bool(chained_sites(task.model))


def is_followed(task: Any) -> TypeGuard[Followed]:
    return is_chained(task) and callable(getattr(task, "from_loss", None))


def chained_sites(model: nn.Module) -> dict[str, Attention]:
    """Sites whose queries depend on something that learns: elsewhere no gradient reaches Q."""
    return {name: site for name, site in sites(model).items() if site.has_query_gradient}


def chain_names(task: Chained) -> list[str]:
    """The series of every site, stations in order, and its errors."""
    found = chained_sites(task.model)
    stations = [f"flow/{name}/{station}" for name, site in found.items() for station in STATIONS if _has(site, station)]
    errors = [f"chain_error/{name}" for name in found]
    bounds = [f"chain_error/{name}/of_bound" for name, site in found.items() if is_bounded(site)]
    doubles = [f"chain_error/{name}/fp64" for name in found]
    return [*stations, *errors, *bounds, *doubles, *([FROM_LOSS] if is_followed(task) else [])]


def chain(task: Chained, model: nn.Module) -> dict[str, Tensor]:
    """The norm at every station of every site; the relative error of the analytic end, and its ratio to the bound
    where there is one. Costs a forward and a backward pass of the task's batch and some maps a site; leaves `.grad`
    alone."""
    found = chained_sites(model)
    with torch.enable_grad(), explicit(found.values()), taps(model) as seen, last_states(model) as states:
        loss, pred = task.passed(model)
    wanted = [pred, states[-1]]
    for name, site in found.items():
        wanted += [seen[name].out_BTM, seen[name].q_BHTD]
        wanted += [site.W_q] if _has(site, W_Q) else []
    at = iter(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))
    above = {"pred": _norm(next(at)), "queries": _norm(next(at))}
    values: dict[str, Tensor] = {}
    for name, site in found.items():
        out, q = next(at), next(at)
        links = follow(site, seen[name], out)
        norms = {**above, "out": _norm(out), **{key: _norm(link) for key, link in links.items()}}
        values |= {f"flow/{name}/{station}": norms[station] for station in STATIONS if station in norms}
        end, truth = (links[W_Q], next(at)) if W_Q in links else (links["Q"], q)
        values[f"chain_error/{name}"] = relative_error(end, truth, rounding(seen[name], links["weights"]))
        if is_bounded(site) and out.dtype != torch.float64:
            values[f"chain_error/{name}/of_bound"] = _share(_norm(end - truth), bound(site, seen[name], out))
    return values


def followed(task: Chained) -> dict[str, Tensor]:
    """What a probe records: the chain of the model as it is, and the errors in double precision."""
    return {**chain(task, task.model), **exact_errors(task)}


@torch.no_grad()
def follow(site: Attention, tap: Tap, d_out_BTM: Tensor) -> dict[str, Tensor]:
    """Gradients at mix, weights, logits, Q and W_q from the one at the site's output, by the formulas alone. `Q` is
    what is compared: after QK-norm, where the spec asks for it. Pairs that may not ask have no weight and no
    gradient."""
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


def relative_error(found: Tensor, truth: Tensor, rounding: Tensor) -> Tensor:
    """‖found − truth‖ ÷ ‖truth‖; 0 where both are no more than the rounding of what they are sums of."""
    nothing = (_norm(found) <= rounding) & (_norm(truth) <= rounding)
    error = _norm(found - truth) / _norm(truth)
    return torch.where(nothing, torch.zeros_like(error), error)


def rounding(tap: Tap, d_weights: Tensor) -> Tensor:
    """What rounding leaves of a gradient that cancels, as that of a site with a single key to choose from does:
    ROUNDINGS · eps of the product of its factors' norms."""
    weights = attention_weights(tap.q_BHTD, tap.k_BHSD, tap.mask, tap.scale)
    ends = _norm(tap.x_BTM) * _norm(tap.k_BHSD) + _norm(tap.y_BSM) * _norm(tap.q_BHTD)
    return ROUNDINGS * torch.finfo(weights.dtype).eps * tap.scale * ends * _norm(weights * d_weights)


def exact_errors(task: Chained) -> dict[str, Tensor]:
    """The relative error of every site of a float64 copy of the model, and of the links above, as `…/fp64`."""
    twin = copy.deepcopy(task.model).double()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # for constants that a forward pass makes
    try:
        found = chain(task, twin)
        errors = {f"chain_error/{name}/fp64": found[f"chain_error/{name}"] for name in chained_sites(twin)}
        return errors | ({FROM_LOSS: task.from_loss(twin)} if is_followed(task) else {})
    finally:
        torch.set_default_dtype(before)


@contextmanager
def explicit(found: Iterable[Attention]) -> Iterator[None]:
    """These sites compare and mix as the formulas are written, not through the fused kernel."""
    before = [(site, site.attend) for site in found]
    for site, _ in before:
        site.attend = plain_attention
    try:
        yield
    finally:
        for site, attend in before:
            site.attend = attend


@contextmanager
def last_states(model: Any) -> Iterator[list[Tensor]]:
    """Catch what the last attention layer hands to the heads."""
    layers = getattr(model, "decoder", None) or model.encoder
    seen: list[Tensor] = []
    hook = layers[-1].register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    try:
        yield seen
    finally:
        hook.remove()


def _share(error: Tensor, most: Tensor) -> Tensor:
    """error ÷ most; 0 where nothing differs, which a site with a single key to choose from has, its bound included."""
    return torch.where(error == 0, torch.zeros_like(most), error.double() / most)


def _has(site: Attention, station: str) -> bool:
    return station != W_Q or W_Q in site.owned


def _norm(gradient: Tensor) -> Tensor:
    return torch.linalg.vector_norm(gradient)
