"""A bound on the rounding difference between two computations of W_q's gradient, from the lengths of the sums.

Both computations start with the same tensors: X, Q, K, V, W_o and dO, the gradient at the site's output. Each operation
is exact up to a factor 1 + δ, |δ| ≤ u = 2⁻²⁴ in single precision, and the δ are independent with mean zero: the model
of Higham & Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41 (2019), in which
√n·u replaces the worst case n·u. To first order in u the difference at an element of W_q is then a sum Σ c·δ, and by
Hoeffding's inequality |Σ c·δ| ≤ λ·u·√(Σ c²) except with probability 2·exp(−λ²/2). `variance` is Σ c².

In an inner product of length n a term passes through at most n roundings, and no partial sum is larger than |a|ᵀ|b|:
in any order Σ c² ≤ n·(|a|ᵀ|b|)². Each link contributes, with n in brackets: dO·W_oᵀ (M), dA (E), Q·Kᵀ·scale (D + 1),
logit − peak (1), exp (EXP²), the softmax's sum (S) and quotient (2), rowsum(dA∘A) (S), A∘(dA − row sum) (2),
dS·K·scale (S + 1), Xᵀ·dQ (B·T). The rounding of a link is propagated with the derivative of all later ones.
With K̄ = A·K, r = rowsum(dA∘A) and m = dS·K, a change of dQ/scale in column d is

    dS_s·(K_sd − K̄_d) − A_s·m_d       for each unit by which logit s changes
    A_s·(K_sd − K̄_d)                   … by which dA_s changes, and Σ_s of it times V_se where dO·W_oᵀ changes at e
    dS_s·K_sd − A_s·dA_s·K̄_d          for each relative unit of A_s; m_d − r·K̄_d for that of its whole row
    K̄_d                                … of r;   K_sd … of dS_s

which includes softmax's conditioning: A_s·dA_s·K̄_d remains where dA and its row sum cancel. Rows (b, h, t) round
independently, so that Xᵀ propagates variances with X². Both computations round, hence 2·Σ c². The norm over all
elements is at most λ·u·√(2·ΣΣ c²), with LAMBDA = 8 except with probability below 2·M·N·e⁻³², 1e-10 at M = N = 64.
Terms in u² and underflow are neglected.

Shapes as in attention.py: B batch, T queries, S keys, H heads, D = d_k, E = d_v, M = d_model.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from workers.trainer.attention.attention import Attention, Tap, attention_weights

LAMBDA = 8.0
EXP = 4.0  # roundings of an exponential with an error of two units in the last place


def is_bounded(site: Attention) -> bool:
    """Whether dW_q is Xᵀ·dQ of the Q that is compared: not with QK-norm, with W_q in the keys too, or in a variant that
    overrides `forward`."""
    variant = type(site)
    textbook = variant.gradient_of_W_q is Attention.gradient_of_W_q and variant.forward is Attention.forward
    return textbook and not site.spec.qk_norm


@torch.no_grad()
def bound(site: Attention, tap: Tap, d_out_BTM: Tensor) -> Tensor:
    """On the norm of the difference between two computations of dW_q (of dQ, for a site without W_q) in the precision
    of `d_out_BTM`; evaluated in double precision, a sample at a time."""
    unit, has_W_q = torch.finfo(d_out_BTM.dtype).eps / 2, "W_q" in site.owned
    variance = torch.zeros((), dtype=torch.float64, device=d_out_BTM.device)
    magnitudes: Tensor | float = 0.0  # |X|ᵀ·|dQ|
    for sample, d_out_TM in enumerate(d_out_BTM.double()):
        at_q, d_q = (site.merge(each) for each in _at_queries(site, _sample(tap, sample), d_out_TM.unsqueeze(0)))
        x = tap.x_BTM[sample].double()
        variance = variance + (x.square().T @ at_q[0] if has_W_q else at_q).sum()
        magnitudes = magnitudes + x.abs().T @ d_q[0].abs()
    if has_W_q:
        terms = len(d_out_BTM) * d_out_BTM.shape[1]
        variance = variance + terms * (magnitudes * torch.ones_like(variance)).square().sum()
    return LAMBDA * unit * (2 * variance).sqrt()


def _sample(tap: Tap, sample: int) -> Tap:
    """One sample of a call, in double precision."""
    batch_of_one = slice(sample, sample + 1)
    q, k, v = (tensor[batch_of_one].double() for tensor in (tap.q_BHTD, tap.k_BHSD, tap.v_BHSE))
    mask = tap.mask if tap.mask is None or len(tap.mask) == 1 or tap.mask.ndim < 4 else tap.mask[batch_of_one]
    return replace(tap, q_BHTD=q, k_BHSD=k, v_BHSE=v, mask=mask)


def _at_queries(site: Attention, tap: Tap, d_out_BTM: Tensor) -> tuple[Tensor, Tensor]:
    """Σ c² of dQ for one computation, and dQ: BHTD."""
    q, k, v, w_o = tap.q_BHTD, tap.k_BHSD, tap.v_BHSE, site.W_o.double()
    keys, values = k.transpose(-2, -1), v.transpose(-2, -1)
    d_mix = site.split(d_out_BTM @ w_o.T)  # BHTE
    mix_rounds = d_out_BTM.shape[-1] * site.split(d_out_BTM.abs() @ w_o.T.abs()).square()
    logits = q @ keys * tap.scale
    weights = attention_weights(q, k, tap.mask, tap.scale)
    d_weights = d_mix @ values
    terms, sums = weights * d_weights, k.shape[-2]
    row = terms.sum(-1, keepdim=True)  # r
    d_logits = weights * (d_weights - row)
    mean_key, move = weights @ k, d_logits @ k  # K̄, m

    logit_rounds = (q.shape[-1] + 1) * (q.abs() @ keys.abs() * tap.scale).square() + EXP**2
    logit_rounds = logit_rounds + _below_peak(logits, weights).square()
    weight_rounds = v.shape[-1] * (d_mix.abs() @ values.abs()).square()
    variance = spread((d_logits, -d_logits, -weights), k, mean_key, move, logit_rounds)
    variance = variance + spread((weights, -weights, None), k, mean_key, move, weight_rounds)
    variance = variance + spread((d_logits, -terms, None), k, mean_key, move, 2.0)
    variance = variance + through_values(weights, k, v, mean_key, mix_rounds)
    variance = variance + sums * (move - row * mean_key).square()
    variance = variance + sums * (terms.abs().sum(-1, keepdim=True) * mean_key).square()
    variance = variance + 2 * (terms.abs() + weights * row.abs()).square() @ k.square()
    variance = variance + (sums + 1) * (d_logits.abs() @ k.abs()).square()
    return tap.scale**2 * variance, move * tap.scale


def spread(
    on: tuple[Tensor, Tensor, Tensor | None], k: Tensor, mean_key: Tensor, move: Tensor, rounds: Tensor | float
) -> Tensor:
    """Σ_s rounds_s·(on₀_s·K_sd + on₁_s·K̄_d + on₂_s·m_d)², without a tensor of BHTSD; None means zeros."""
    on_key, on_mean, on_move = on
    once, twice = rounds * on_key, rounds * on_mean
    squares = (once * on_key) @ k.square() + 2 * ((once * on_mean) @ k) * mean_key
    squares = squares + (twice * on_mean).sum(-1, keepdim=True) * mean_key.square()
    if on_move is not None:
        squares = squares + 2 * ((once * on_move) @ k + (twice * on_move).sum(-1, keepdim=True) * mean_key) * move
        squares = squares + (rounds * on_move.square()).sum(-1, keepdim=True) * move.square()
    return squares.clamp(min=0)


def through_values(weights: Tensor, k: Tensor, v: Tensor, mean_key: Tensor, rounds_BHTE: Tensor) -> Tensor:
    """Σ_e rounds_e·(Σ_s A_s·(K_sd − K̄_d)·V_se)²."""
    pairs = (k.unsqueeze(-1) * v.unsqueeze(-2)).flatten(-2)  # BHS(DE)
    change = (weights @ pairs).unflatten(-1, (k.shape[-1], v.shape[-1]))  # BHTDE
    change = change - mean_key.unsqueeze(-1) * (weights @ v).unsqueeze(-2)
    return (change.square() @ rounds_BHTE.unsqueeze(-1)).squeeze(-1)


def _below_peak(logits: Tensor, weights: Tensor) -> Tensor:
    """How far each logit with a positive weight lies below the largest of its row; 0 for the others."""
    weighted = weights > 0
    peak = logits.masked_fill(~weighted, -math.inf).amax(-1, keepdim=True)
    return torch.where(weighted, logits - peak, torch.zeros_like(logits))
