"""The gradient on its way from the loss to W_q, station by station: loss → pred → queries → out → mix → weights →
logits → Q → W_q. The last four are worked out by hand and checked against autograd.

Shapes: B batch, T askers, S answerers, H heads, D = d_k, E = d_v, M = d_model.

With dO the gradient at the heads' mixed values and A = softmax(Q·Kᵀ·scale):
dA = dO·Vᵀ; dS = A∘(dA − rowsum(dA∘A)); dQ = dS·K·scale; dW_q = Xᵀ·dQ summed over the batch. The softmax step is the
Jacobian diag(A) − A·Aᵀ of Bridle (1990); the rest is the product rule.

In double precision every link is the formula. In single precision the softmax step is PyTorch's own kernel: where one
key has nearly all of the weight, or all keys are alike, dA and its row sum cancel to a few digits, and two orders of
summation are then up to 6e-5 of the result apart (measured on sam3-lite), autograd's own order among them. For the
same reason the forward pass is the explicit one, and factors are laid out as autograd has them.

A chain is one path of a sum: what reaches W_q through the layers above it is in dO already.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from workers.trainer.attention import MATRICES, Attention, Tap, attention_weights, plain_attention
from workers.trainer.sites import sites
from workers.trainer.taps import taps

STATIONS = ("pred", "queries", "out", "mix", "weights", "logits", "Q", "W_q")  # from the loss's side on
ERRORS = ("chain_error/fp32", "chain_error/fp64")
W_Q = MATRICES[0]
ROUNDINGS = 4


class Chained(Protocol):
    """A task whose gradient can be followed."""

    model: nn.Module

    def passed(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """The loss of a small fixed batch under `model`, in the precision of its weights, and the output that the
        loss reads (mask logits, class logits); both with a graph."""


def is_chained(task: Any) -> TypeGuard[Chained]:
    return callable(getattr(task, "passed", None)) and bool(chained_sites(task.model))


def chained_sites(model: nn.Module) -> dict[str, Attention]:
    """Sites whose queries depend on something that learns: elsewhere no gradient reaches Q."""
    return {name: site for name, site in sites(model).items() if site.asks}


def chain_names(model: nn.Module) -> list[str]:
    """The series of every site, stations in order, and its error."""
    found = chained_sites(model)
    stations = [f"flow/{name}/{station}" for name, site in found.items() for station in STATIONS if _has(site, station)]
    return [*stations, *(f"chain_error/{name}" for name in found)]


def chain(task: Chained, model: nn.Module) -> dict[str, Tensor]:
    """The norm at every station of every site, and the relative error of the analytic end. Costs a forward and a
    backward pass of the task's batch and four maps a site; leaves `.grad` alone."""
    found = chained_sites(model)
    with torch.enable_grad(), _explicit(found.values()), taps(model) as seen, _last_states(model) as states:
        loss, pred = task.passed(model)
    wanted = [pred, states[-1]]
    for name, site in found.items():
        wanted += [seen[name].out_BTM, seen[name].mix_BTN, seen[name].q_BHTD]
        wanted += [site.W_q] if _has(site, W_Q) else []
    at = iter(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))
    above = {"pred": _norm(next(at)), "queries": _norm(next(at))}
    values: dict[str, Tensor] = {}
    for name, site in found.items():
        out, mix, q = next(at), next(at), next(at)
        links = follow(site, seen[name], mix)
        norms = {**above, "out": _norm(out), "mix": _norm(mix), **{key: _norm(link) for key, link in links.items()}}
        values |= {f"flow/{name}/{station}": norms[station] for station in STATIONS if station in norms}
        end, truth = (links[W_Q], next(at)) if W_Q in links else (links["Q"], q)
        values[f"chain_error/{name}"] = relative_error(end, truth, rounding(seen[name], links["weights"]))
    return values


@torch.no_grad()
def follow(site: Attention, tap: Tap, d_mix_BTN: Tensor) -> dict[str, Tensor]:
    """Gradients at weights, logits, Q and W_q from the one at the mixed values, by the formulas alone. `Q` is what
    is compared: after QK-norm, where the spec asks for it. Pairs that may not ask have no weight and no gradient."""
    # Laid out as autograd's products have them, so that they round alike.
    d_out, v, k = (each.contiguous() for each in (site.split(d_mix_BTN), tap.v_BHSE, tap.k_BHSD))  # BHTE, BHSE, BHSD
    weights = attention_weights(tap.q_BHTD, tap.k_BHSD, tap.mask, tap.scale)
    d_weights = d_out @ v.transpose(-2, -1)  # BHTS
    if tap.mask is not None:
        d_weights = d_weights.masked_fill(~tap.mask, 0.0)
    d_logits = _through_softmax(weights, d_weights)
    d_q = d_logits @ k * tap.scale  # BHTD
    links = {"weights": d_weights, "logits": d_logits, "Q": d_q}
    if _has(site, W_Q):
        d_k = d_logits.transpose(-2, -1) @ tap.q_BHTD * tap.scale  # BHSD
        links[W_Q] = site.gradient_of_W_q(tap.x_BTM, tap.y_BSM, d_q, d_k)
    return links


def _through_softmax(weights: Tensor, d_weights: Tensor) -> Tensor:
    if weights.dtype == torch.float64:
        return weights * (d_weights - (d_weights * weights).sum(-1, keepdim=True))
    return torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)


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


def exact_error(task: Chained) -> float:
    """The largest error over all sites of a float64 copy of the model."""
    twin = copy.deepcopy(task.model).double()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # for constants that a forward pass makes
    try:
        return largest_error(chain(task, twin))
    finally:
        torch.set_default_dtype(before)


def largest_error(values: Mapping[str, Tensor | float]) -> float:
    """The largest of the sites' errors; NaN where one is."""
    errors = [float(value) for name, value in values.items() if name.startswith("chain_error/")]
    return math.nan if any(math.isnan(error) for error in errors) else max(errors, default=0.0)


@dataclass
class Worst:
    """The largest error of a run's probes so far; a checkpoint carries it."""

    task: Chained
    error: float = 0.0

    @classmethod
    def of(cls, task: Any) -> Worst | None:
        """None for a task without a chain."""
        return cls(task) if is_chained(task) else None

    def see(self, values: Mapping[str, Tensor | float]) -> None:
        found = largest_error(values)
        self.error = found if math.isnan(found) else max(self.error, found)

    def state(self) -> dict[str, Tensor]:
        return {"error": torch.tensor(self.error, dtype=torch.float64)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.error = state["error"].item()

    def finals(self) -> dict[str, float]:
        return {ERRORS[0]: self.error, ERRORS[1]: exact_error(self.task)}


@contextmanager
def _explicit(found: Iterable[Attention]) -> Iterator[None]:
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
def _last_states(model: Any) -> Iterator[list[Tensor]]:
    """Catch what the last attention layer hands to the heads."""
    layers = getattr(model, "decoder", None) or model.encoder
    seen: list[Tensor] = []
    hook = layers[-1].register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    try:
        yield seen
    finally:
        hook.remove()


def _has(site: Attention, station: str) -> bool:
    return station != W_Q or W_Q in site.owned


def _norm(gradient: Tensor) -> Tensor:
    return torch.linalg.vector_norm(gradient)
