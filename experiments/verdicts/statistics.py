"""Statistics over training seeds: means with intervals, paired differences, equivalence, Holm. Pure.

The unit is a seed. Everything is based on one interval, mean ± t·s/√n with n − 1 degrees of freedom; for two variants
the values are the differences over the seeds that both have (paired t). The place of the interval decides:

above        all of it above the margin
within       all of it inside ± margin: the two one-sided tests of equivalence (Schuirmann 1987), each at α/2
below        all of it below
None         across: open

Testing, adding seeds and testing again spends alpha each time: see `level`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .student import quantile, upper_tail

ALPHA = 0.05
_ROUNDING = 2.0**-22  # a difference of two values in single precision
_FIRST, _LATER = 0.8, 0.2  # of ALPHA: .04, .008, .0016, …, never more than ALPHA together


def level(look: int) -> float:
    """The alpha that a look may spend; looks are counted from 1.

    Testing, adding seeds and testing again gives several chances to be wrong. Each look therefore has its own share of
    ALPHA, and the shares sum to ALPHA: the probability that any of them is wrong stays below it, however the looks
    depend on each other (Bonferroni over looks).
    """
    return ALPHA * _FIRST * _LATER ** (look - 1)


@dataclass(frozen=True)
class Sample:
    """Values over seeds: how many, their mean, and their standard deviation (n − 1; None for a single one)."""

    n: int
    mean: float
    std: float | None

    def interval(self, alpha: float = ALPHA) -> tuple[float, float] | None:
        """The (1 − alpha) t interval of the mean; None with fewer than two values."""
        if self.std is None:
            return None
        half = _quantile(alpha / 2, self.n - 1) * self.std / math.sqrt(self.n)
        return self.mean - half, self.mean + half

    @property
    def effect(self) -> float | None:
        """Mean ÷ standard deviation; for paired differences this is Cohen's d_z. None where nothing varies."""
        return self.mean / self.std if self.std else None

    def tail_above(self, bound: float) -> float:
        """One-sided p of "the mean is at most `bound`"; small where it lies above. 1 with fewer than two values.

        Discrete values, such as a share of test cases, may all be equal: then the spread is unknown and t would be
        infinite, so the sign test is used, by which n values on one side have the p 2⁻ⁿ.
        """
        if self.std is None:
            return 1.0
        if self.std == 0:
            return 0.5**self.n if self.mean > bound else 1.0
        return upper_tail((self.mean - bound) * math.sqrt(self.n) / self.std, self.n - 1)

    def tail_below(self, bound: float) -> float:
        """One-sided p of "the mean is at least `bound`"."""
        return Sample(self.n, -self.mean, self.std).tail_above(-bound)


def sample(values: Sequence[float], *, largest: float = 0.0, resolution: float = 0.0) -> Sample | None:
    """None without values. Spread below the rounding of the values counts as none: they are stored in single precision
    and are differences of values up to `largest` in size. A spread below `resolution`, the step between possible
    values, counts as that."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Sample(1, mean, None)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    rounding = _ROUNDING * max(largest, *map(abs, values))
    return Sample(len(values), mean, max(std if std > rounding else 0.0, resolution))


def paired(ours: Mapping[int, float], theirs: Mapping[int, float], *, resolution: float = 0.0) -> Sample | None:
    """The sample of ours − theirs at the seeds that both have."""
    shared = sorted(ours.keys() & theirs.keys())
    largest = max((abs(side[seed]) for side in (ours, theirs) for seed in shared), default=0.0)
    return sample([ours[seed] - theirs[seed] for seed in shared], largest=largest, resolution=resolution)


@dataclass(frozen=True)
class MarginTest:
    """A test of the mean against a margin. `two_sided` tests against ± margin: equivalence refutes an effect, or is the
    claim itself."""

    margin: float
    two_sided: bool = False

    def p(self, sample: Sample) -> float:
        """The smallest alpha whose interval decides, at most 1: what Holm corrects."""
        return min(1.0, 2 * min(self._tails(sample).values()))

    def side(self, sample: Sample) -> str | None:
        """The side that `p` supports: above, within or below; None where it supports none."""
        tails = self._tails(sample)
        side = min(tails, key=lambda name: tails[name])
        return side if tails[side] < 0.5 else None

    def _tails(self, sample: Sample) -> dict[str, float]:
        if not self.two_sided:
            return {"above": sample.tail_above(self.margin), "below": sample.tail_below(self.margin)}
        return {
            "above": sample.tail_above(self.margin),
            "within": self.equivalence_p(sample),
            "below": sample.tail_below(-self.margin),
        }

    def equivalence_p(self, sample: Sample) -> float:
        """The p of the two one-sided tests (TOST): the larger one."""
        return max(sample.tail_above(-self.margin), sample.tail_below(self.margin))

    def deciding(self, half: float) -> list[tuple[float, float]]:
        """The ranges of the mean in which an interval of this half-width does not contain the margin."""
        if not self.two_sided:
            return [(-math.inf, self.margin - half), (self.margin + half, math.inf)]
        inner = self.margin - half
        within = [(-inner, inner)] if inner > 0 else []
        return [(-math.inf, -self.margin - half), *within, (self.margin + half, math.inf)]


@dataclass(frozen=True)
class Corrected:
    """A p-value of a family: Holm's adjusted one, and the alpha of its interval."""

    p: float
    adjusted: float
    alpha: float
    level: float = ALPHA  # of the whole family

    @property
    def decides(self) -> bool:
        return self.adjusted < self.level


def holm(ps: Sequence[float], alpha: float = ALPHA) -> list[Corrected]:
    """Holm 1979, in the order given. The i-th smallest of m (from 0) is compared with α/(m − i), and after the first
    that fails all fail. `alpha` of each is that bound, after a failure that of the failed one: so an interval at its
    alpha excludes the margin exactly where the corrected test decides."""
    corrected: dict[int, Corrected] = {}
    adjusted, bound, failed = 0.0, alpha, False
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        left = len(ps) - rank
        adjusted = max(adjusted, min(1.0, ps[index] * left))
        bound = bound if failed else alpha / left
        failed = failed or ps[index] >= bound
        corrected[index] = Corrected(ps[index], adjusted, bound, alpha)
    return [corrected[index] for index in range(len(ps))]


@lru_cache(maxsize=4096)
def _quantile(tail: float, dof: int) -> float:
    return quantile(tail, dof)
