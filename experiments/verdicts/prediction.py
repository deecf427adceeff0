"""The probability that more seeds decide an open test, from the mean and spread of the present ones. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

from .statistics import MarginTest, Sample

_NORMAL = NormalDist()
_PARTS = 25


def chance(test: MarginTest, sample: Sample, n: int, alpha: float) -> float | None:
    """The probability that `n` seeds in total decide the test at `alpha`; None for one seed, or where n adds none.

    Neither the true mean nor the true spread σ is known. Given σ, the mean of all n is normal about that of the first
    k, with variance σ²·(n − k)/(k·n); σ itself follows (k − 1)·s²/σ² ~ χ² with k − 1 degrees of freedom, and its
    distribution is cut into parts of equal weight (the predictive distribution of a normal sample under the
    uninformative prior; Gelman et al., Bayesian Data Analysis, section 3.2).
    """
    if sample.std is None or n <= sample.n:
        return None
    if sample.std == 0:
        return float(test.p(sample) < alpha)
    return sum(_given(test, sample, n, alpha, spread) for spread in _spreads(sample)) / _PARTS


def _spreads(sample: Sample) -> Iterator[float]:
    """Values of σ of equal weight. χ² by Wilson & Hilferty 1931: its cube root is nearly normal."""
    dof, std = sample.n - 1, sample.std or 0.0
    for part in range(_PARTS):
        z = _NORMAL.inv_cdf((part + 0.5) / _PARTS)
        root = 1 - 2 / (9 * dof) + z * math.sqrt(2 / (9 * dof))
        yield std * math.sqrt(1 / max(root**3, 1e-3))


def _given(test: MarginTest, sample: Sample, n: int, alpha: float, spread: float) -> float:
    """The probability for this σ; the spread of all n is set to its expectation."""
    std = sample.std or 0.0
    whole = math.sqrt(((sample.n - 1) * std**2 + (n - sample.n) * spread**2) / (n - 1))
    interval = Sample(n, 0.0, whole).interval(alpha)
    half = interval[1] if interval else math.inf
    mean = NormalDist(sample.mean, spread * math.sqrt((n - sample.n) / (sample.n * n)))
    return sum(_up_to(mean, high) - _up_to(mean, low) for low, high in test.deciding(half))


def _up_to(mean: NormalDist, bound: float) -> float:
    return mean.cdf(bound) if math.isfinite(bound) else float(bound > 0)
