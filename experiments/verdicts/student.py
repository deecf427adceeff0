"""Student's t distribution: its upper tail and its quantile. Pure; tests compare it with scipy.

The server needs one distribution, and scipy would double the size of its installation. See docs/decisions/0026.
"""

from __future__ import annotations

import math

_TINY = 1e-300
_EXACT = 1e-15


def upper_tail(t: float, dof: int) -> float:
    """P(T > t) for T of Student's t with `dof` ≥ 1 degrees of freedom.

    P(|T| > t) is the regularised incomplete beta function I_x(dof/2, 1/2) at x = dof / (dof + t²), by
    Abramowitz & Stegun 26.5.27. An infinite t has the tail 0 or 1.
    """
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    both = _beta_share(dof / 2, 0.5, dof / (dof + t * t))
    return both / 2 if t >= 0 else 1 - both / 2


def quantile(tail: float, dof: int) -> float:
    """The t ≥ 0 whose upper tail is `tail`, 0 < tail ≤ 1/2, by bisection to the last bits."""
    if not 0 < tail <= 0.5:
        raise ValueError(f"an upper tail lies in (0, 0.5], not {tail}")
    low, high = 0.0, 1.0
    while upper_tail(high, dof) > tail:
        low, high = high, high * 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if upper_tail(middle, dof) > tail else (low, middle)
    return (low + high) / 2


def _beta_share(a: float, b: float, x: float) -> float:
    """I_x(a, b) by its continued fraction, from the side where it converges fast."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of Abramowitz & Stegun 26.5.8, evaluated by Lentz's method."""
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 1000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away_from_zero(1 + numerator * d)
            c = _away_from_zero(1 + numerator / c)
            fraction *= c * d
        if abs(c * d - 1) < _EXACT:
            break
    return fraction


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
