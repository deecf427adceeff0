"""Measures for each kind of site, to compare self-attention with cross-attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from experiments.spec import SegmenterModel
from workers.trainer.attention import Attention, Tap
from workers.trainer.attention.hooks import tapped
from workers.trainer.attention.instruments import Map, entropy
from workers.trainer.attention.sites import matrices, sites
from workers.trainer.tasks.segment.attention_rows import ForwardPass, query_attention, word_attention
from workers.trainer.tasks.segment.edges import same_object
from workers.trainer.tasks.segment.measures import mean_of

QKV_MATRICES = ("W_q", "W_k", "W_v")


def kinds(model: SegmenterModel) -> tuple[str, ...]:
    return "self", "text", "image", *(("text_to_image",) if model.text_to_image else ())


def kind_names(model: SegmenterModel) -> list[str]:
    """Names of what `kind_values` returns. Mass is not defined where words are the keys: all of them are the prompt."""
    of = {"self": ("mass",), "text": (), "image": ("mass",), "text_to_image": ("mass",)}
    return [f"kind/{kind}/{name}" for kind in kinds(model) for name in ("grad_norm", "entropy", *of[kind])]


def kind_values(model: nn.Module, forward: ForwardPass, patch: int, loss: Tensor) -> dict[str, float]:
    """By kind of site, means over its sites: the Frobenius norm of the gradients of W_q, W_k and W_v together; the
    entropy of the attention (instruments.entropy); the mean attention mass over heads on the target: of a thing's
    edges on the thing beyond their neighbours (self), of matched queries (image), of the words (text_to_image)."""
    masses: dict[str, list[Tensor]] = {
        "self": [mass for mass, _ in same_object(forward, patch).values()],
        "image": list(query_attention(forward, patch).values()),
        "text_to_image": [mass for mass, _ in word_attention(forward, patch).values()],
    }
    values = {f"kind/{kind}/mass": mean_of(by_head) for kind, by_head in masses.items() if by_head}
    values |= _by_kind("entropy", {site: float(entropy(Map.of(tap)).mean()) for site, tap in forward.taps.items()})
    return values | _by_kind("grad_norm", gradient_norms(model, loss))


def gradient_norms(model: nn.Module, loss: Tensor) -> dict[str, float]:
    """‖∂loss/∂(W_q, W_k, W_v)‖ of each site; the gradients that the model holds stay as they are."""
    own = {
        name: [weight for key, weight in matrices(site).items() if key in QKV_MATRICES]
        for name, site in sites(model).items()
    }
    flat = [weight for weights in own.values() for weight in weights]
    gradients = dict(zip(map(id, flat), torch.autograd.grad(loss, flat, allow_unused=True), strict=True))
    return {site: _norm([gradients[id(weight)] for weight in weights]) for site, weights in own.items()}


def cross_gradients(model: nn.Module, forward: ForwardPass) -> dict[str, float]:
    """Where Q, K and V come from, by autograd at the inputs of every site. `cross_grad/cross`: the largest of
    ‖∂Q/∂Y‖, ‖∂K/∂X‖ and ‖∂V/∂X‖ over the sites with queries from X and keys from Y. `cross_grad/self`: the smallest
    of ‖∂Q/∂X‖, ‖∂K/∂X‖ and ‖∂V/∂X‖ over the sites of self-attention on X. Norms are those of the gradient of a sum
    with fixed random weights."""
    cross, own = [0.0], []
    for name, site in sites(model).items():
        tap = forward.taps[name]
        (q_x, q_y), (k_x, _), (v_x, _) = _sources(site, tap, alone=name.endswith(".self"))
        if name.endswith(".self"):
            own += [q_x, k_x, v_x]
        else:
            cross += [q_y, k_x, v_x]
    return {"cross_grad/self": min(own), "cross_grad/cross": max(cross)}


@torch.enable_grad()
def _sources(site: Attention, tap: Tap, *, alone: bool) -> Sequence[tuple[float, float]]:
    """For Q, K and V: the norms of the gradient at X and at Y."""
    x = tap.x_BTM.detach().clone().requires_grad_()
    y = tap.y_BSM.detach().clone().requires_grad_()
    with tapped({"": site}) as calls:
        site(x, None if alone else y, tap.mask)
    call = calls[""]
    random = torch.Generator().manual_seed(0)
    return [_gradients(made, (x, y), random) for made in (call.q_BHTD, call.k_BHSD, call.v_BHSE)]


def _gradients(made: Tensor, inputs: tuple[Tensor, Tensor], random: torch.Generator) -> tuple[float, float]:
    if not made.requires_grad:  # made of no input: a uniform variant
        return 0.0, 0.0
    weights = torch.randn(made.shape, generator=random).to(made.device)
    at_x, at_y = torch.autograd.grad((made * weights).sum(), inputs, allow_unused=True)
    return _norm([at_x]), _norm([at_y])


def _norm(gradients: Sequence[Tensor | None]) -> float:
    squares = [float(gradient.double().square().sum()) for gradient in gradients if gradient is not None]
    return sum(squares) ** 0.5


def _by_kind(name: str, values: Mapping[str, float]) -> dict[str, float]:
    by_kind: dict[str, list[float]] = {}
    for site, value in values.items():
        by_kind.setdefault(site.rpartition(".")[2], []).append(value)
    return {f"kind/{kind}/{name}": sum(of_sites) / len(of_sites) for kind, of_sites in by_kind.items()}
