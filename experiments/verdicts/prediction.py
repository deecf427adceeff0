"""How likely more seeds decide what is open, from the mean and the spread of those that there are. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

from .statistics import MarginTest, Sample

_NORMAL = NormalDist()
_PARTS = 25


def chance(test: MarginTest, found: Sample, n: int, alpha: float) -> float | None:
    """The probability that `n` seeds in all decide the test at `alpha`; None of one seed, or where n adds none.

    Neither the true mean nor the true spread σ is known. Given σ, the mean of all n is normal about that of the first
    k, with variance σ²·(n − k)/(k·n); σ itself follows (k − 1)·s²/σ² ~ χ² with k − 1 degrees of freedom, and its
    distribution is cut into parts of equal weight (the predictive distribution of a normal sample under the prior
    that favours no mean and no scale; Gelman et al., Bayesian Data Analysis, section 3.2).
    """
    if found.std is None or n <= found.n:
        return None
    if found.std == 0:
        return float(test.p(found) < alpha)
    return sum(_given(test, found, n, alpha, spread) for spread in _spreads(found)) / _PARTS


def _spreads(found: Sample) -> Iterator[float]:
    """Values of σ of equal weight. χ² by Wilson & Hilferty 1931: its cube root is nearly normal."""
    dof, std = found.n - 1, found.std or 0.0
    for part in range(_PARTS):
        z = _NORMAL.inv_cdf((part + 0.5) / _PARTS)
        root = 1 - 2 / (9 * dof) + z * math.sqrt(2 / (9 * dof))
        yield std * math.sqrt(1 / max(root**3, 1e-3))


def _given(test: MarginTest, found: Sample, n: int, alpha: float, spread: float) -> float:
    """The probability for this σ; the spread of all n is taken as what is expected of it."""
    std = found.std or 0.0
    whole = math.sqrt(((found.n - 1) * std**2 + (n - found.n) * spread**2) / (n - 1))
    interval = Sample(n, 0.0, whole).interval(alpha)
    half = interval[1] if interval else math.inf
    mean = NormalDist(found.mean, spread * math.sqrt((n - found.n) / (found.n * n)))
    return sum(_up_to(mean, high) - _up_to(mean, low) for low, high in test.deciding(half))


def _up_to(mean: NormalDist, bound: float) -> float:
    return mean.cdf(bound) if math.isfinite(bound) else float(bound > 0)
