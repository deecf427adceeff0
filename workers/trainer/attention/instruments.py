"""What a probe measures at one attention site, per head: its map, and the matrix W_q·W_kᵀ behind its scores.

Shapes: B batch, H heads, T queries, S keys, D = d_k, M = d_model, N cells that an object may cover.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.trainer.adapt.maps import masked_softmax, normalized_entropy
from workers.trainer.attention.attention import Attention, Tap


@dataclass(frozen=True)
class Map:
    """The attention map of a call in fp32. Masked pairs have a logit of −∞ and a weight of 0."""

    logits_BHTS: Tensor
    weights_BHTS: Tensor
    allowed_BHT: Tensor  # how many keys each query may attend to

    @classmethod
    def of(cls, tap: Tap) -> Map:
        logits = tap.q_BHTD.float() @ tap.k_BHSD.float().transpose(-2, -1) * tap.scale
        masked, weights = masked_softmax(logits, tap.mask)
        keys = torch.full_like(logits[..., 0], logits.shape[-1])
        return cls(masked, weights, keys if tap.mask is None else tap.mask.expand_as(logits).sum(-1).float())


def entropy(attention: Map) -> Tensor:
    """Mean of −Σ_j A_ij ln A_ij ÷ ln(number of allowed keys) over the queries i that have an allowed key: 1 is uniform,
    0 is one key: [H], NaN where no query has one. Low entropy precedes collapse: Zhai et al. 2023,
    arXiv:2303.06296."""
    entropies = normalized_entropy(attention.weights_BHTS, attention.allowed_BHT)  # BHT, 0 where no key is allowed
    return entropies.sum((0, 2)) / (attention.allowed_BHT > 0).sum((0, 2))


def logit_max(attention: Map) -> Tensor:
    """max_ij ⟨q_i, k_j⟩·scale over the allowed pairs: [H], NaN where there is none. Its growth precedes divergence:
    Wortsman et al. 2023, arXiv:2309.14322."""
    return attention.logits_BHTS.amax((0, 2, 3)).where((attention.allowed_BHT > 0).any(2).any(0), math.nan)


def asymmetry(attention: Map) -> Tensor:
    """‖A − Aᵀ‖_F ÷ ‖A‖_F of a square map, mean over the maps that allow any pair: [H]. 0: symmetric; √2: no
    two positions attend to each other."""
    weights = attention.weights_BHTS
    apart, whole = (torch.linalg.matrix_norm(each) for each in (weights - weights.transpose(-2, -1), weights))
    return (apart / whole).masked_fill(whole == 0, 0.0).sum(0) / (whole != 0).sum(0)


def singular_values(site: Attention) -> Tensor:
    """Of W_q^h·W_k^hᵀ, [M, M] of rank ≤ D, largest first: [H, min(D, M)]. With W_q^h = Q₁R₁ and W_k^h = Q₂R₂ they are
    those of R₁·R₂ᵀ, which is D by D. A matrix that a variant does not have counts as the identity. NaN where a weight
    is not finite."""
    device = next(site.parameters()).device
    eye = torch.eye(site.W_o.shape[1], device=device)
    projections = (project(eye[None])[0].float() for project in (site.queries, site.keys))  # M, H·D
    left, right = (matrix.unflatten(-1, (site.heads, -1)).transpose(0, 1) for matrix in projections)  # H, M, D
    core = torch.linalg.qr(left, mode="r").R @ torch.linalg.qr(right, mode="r").R.mT
    broken = ~core.isfinite().all(-1).all(-1)  # a decomposition would raise
    values = torch.linalg.svdvals(core.masked_fill(broken[:, None, None], 0.0))
    return values.masked_fill(broken[:, None], math.nan)


def spectral_norm(values_HD: Tensor) -> Tensor:
    """σ₁(W_q^h·W_k^hᵀ): [H]. It bounds how sharp attention can get: Zhai et al. 2023, arXiv:2303.06296."""
    return values_HD[:, 0]


def effective_rank(values_HD: Tensor) -> Tensor:
    """exp(−Σ p ln p), p = σ ÷ Σσ: [H]. The number of directions in which a head compares: Roy & Vetterli 2007,
    EUSIPCO. 0 where all σ are 0."""
    whole = values_HD.sum(-1, keepdim=True)
    shares = values_HD / whole
    return torch.where(whole[:, 0] == 0, whole[:, 0], torch.special.entr(shares).sum(-1).exp())


def object_mass(weights: Tensor, cover: Tensor) -> Tensor:
    """Σ_j A_j·cover_j over the last dimension: the share of attention on the object, where `cover` says how much of
    each cell it covers. The energy-based pointing game of Wang et al. 2020, arXiv:1910.01279."""
    return (weights * cover).sum(-1)


def pointing(weights: Tensor, cover: Tensor) -> Tensor:
    """Whether the object covers at least half of the cell with the largest weight: the pointing game of Zhang et al.
    2016, arXiv:1608.00507."""
    peak = weights.argmax(-1, keepdim=True)
    return (cover.expand_as(weights).gather(-1, peak).squeeze(-1) >= 0.5).float()


def same_object(weights_BHNN: Tensor, cover_BN: Tensor) -> Tensor:
    """Mean over the cells i of an object, weighted by their cover, of Σ_j A_ij·cover_j: [H]. Chance is the share of the
    image that the object covers. Images without an object do not count; NaN where none has one."""
    mass = (weights_BHNN * cover_BN[:, None, None]).sum(-1)  # BHN
    means = (mass * cover_BN[:, None]).sum(-1) / cover_BN.sum(-1)[:, None]  # BH
    return means[cover_BN.sum(-1) > 0].mean(0)


Reduce = Callable[[Tensor], Tensor]  # from the heads' values to the site's
OF_MAP: Mapping[str, tuple[Callable[[Map], Tensor], Reduce]] = {
    "entropy": (entropy, torch.mean),
    "logit_max": (logit_max, torch.max),
    "asymmetry": (asymmetry, torch.mean),
}
OF_SPECTRUM: Mapping[str, tuple[Callable[[Tensor], Tensor], Reduce]] = {
    "spectral_norm": (spectral_norm, torch.max),
    "effective_rank": (effective_rank, torch.mean),
}


def measured(name: str, site: Attention) -> list[str]:
    """The measures that apply to a site: asymmetry to self-attention, whose maps are square; those of W_q·W_kᵀ where
    scores are bilinear."""
    of_map = [measure for measure in OF_MAP if measure != "asymmetry" or name.rpartition(".")[2] == "self"]
    return [*of_map, *(OF_SPECTRUM if site.bilinear else ())]


def series_of(name: str, site: Attention, per_head: bool) -> list[str]:
    """`attn/<measure>/<site>`, followed by one a head with `per_head`, in the order of `values_of`."""
    heads = [f"/head.{head}" for head in range(site.heads)] if per_head else []
    return [f"attn/{measure}/{name}{end}" for measure in measured(name, site) for end in ("", *heads)]


def values_of(name: str, site: Attention, tap: Tap, per_head: bool) -> dict[str, Tensor]:
    """The values of `series_of`, on the device. Costs one map and two small decompositions a head."""
    attention, spectrum_HD = Map.of(tap), singular_values(site) if site.bilinear else torch.empty(0)
    values: list[Tensor] = []
    for measure in measured(name, site):
        if measure in OF_MAP:
            read_map, reduce = OF_MAP[measure]
            heads = read_map(attention)
        else:
            read_spectrum, reduce = OF_SPECTRUM[measure]
            heads = read_spectrum(spectrum_HD)
        values += [reduce(heads), *(heads if per_head else ())]
    return dict(zip(series_of(name, site, per_head), values, strict=True))
