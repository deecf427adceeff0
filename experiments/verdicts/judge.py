"""From measured values to a verdict. Pure: the same values give the same verdict."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from experiments.submissions.presets import Words

from .prediction import chance
from .rules import UNTESTED, Result, Rule, Saying, SubClaim
from .statistics import ALPHA, Corrected, MarginTest, Sample, holm, level, paired, sample

LOOKS = 2  # a comparison that is open after the last one stays open


@dataclass(frozen=True)
class Values:
    """A term's values by seed, the run of each, and the seeds that are not trained yet.

    `problem` says why there are none: the term selects no cell of the definition, or more than one.
    """

    values: Mapping[int, float] = field(default_factory=dict)
    runs: Mapping[int, int] = field(default_factory=dict)
    missing: Sequence[int] = ()
    problem: str = ""

    def of_seeds(self, seeds: Sequence[int]) -> Values:
        """The values of these seeds only."""
        kept = {seed: self.values[seed] for seed in seeds if seed in self.values}
        missing = [seed for seed in seeds if seed in self.missing]
        return Values(kept, {seed: self.runs[seed] for seed in kept if seed in self.runs}, missing, self.problem)

    @property
    def sample(self) -> Sample | None:
        return sample([self.values[seed] for seed in sorted(self.values)])


@dataclass(frozen=True)
class Finding:
    """The result of one comparison. `sample` is over seeds: of differences, ratios or values, depending on its kind.
    `low` and `high` are its interval at the level 1 − alpha of Holm's correction."""

    claim: SubClaim
    result: Result
    sample: Sample | None
    low: float | None
    high: float | None
    corrected: Corrected | None
    look: int  # the look that gave this result
    more_seeds: int | None  # missing seeds of the next look; None where decided or at the last look
    chance: float | None  # the probability that the next look decides, where known
    seeds: int  # fewer decide nothing
    value: Values
    against: Values | None

    @property
    def problem(self) -> str:
        return self.value.problem or (self.against.problem if self.against else "")

    @property
    def lacking(self) -> list[int]:
        """Chosen seeds without a succeeded run for one of its terms; other seeds do not replace them."""
        terms = [self.value, self.against] if self.against else [self.value]
        return sorted({seed for term in terms for seed in term.missing})

    @property
    def effect(self) -> float | None:
        """Cohen's d_z; only of differences."""
        paired = self.claim.kind in {"difference", "equivalence"}
        return self.sample.effect if self.sample and paired else None


@dataclass(frozen=True)
class Verdict:
    """The verdict of a preset with its findings."""

    rule: Rule
    result: Result
    findings: list[Finding]
    why: Words | None  # None where no saying of the rule matches the results

    @property
    def most_seeds(self) -> int:
        """The number of seeds of the comparison that has most."""
        return max((finding.sample.n for finding in self.findings if finding.sample), default=0)


@dataclass(frozen=True)
class _LookResult:
    """A comparison at one look: its terms at the look's seeds, and whether all of these are trained."""

    number: int
    terms: Sequence[Values]
    sample: Sample | None
    complete: bool
    corrected: Corrected | None = None

    @property
    def decides(self) -> bool:
        return self.corrected is not None and self.complete and self.corrected.decides


def judge(rule: Rule, samples: Mapping[str, Sequence[Values]], seeds: Sequence[int]) -> Verdict:
    """`samples` holds the values of each comparison's terms by its id; `seeds` are the candidates in the order in which
    they were chosen. Those of the pilot do not count.

    There are two looks, at the first n seeds and at the first 2n, where the rule fixed n beforehand; each spends its
    share of alpha (`level`), and the first one that decides a comparison counts.
    """
    counted = [seed for seed in seeds if seed not in rule.pilot_seeds]
    looks = [_results_at(rule, samples, number, counted[: number * rule.seeds]) for number in range(1, LOOKS + 1)]
    findings = [_finding(rule, claim, [results[claim.id] for results in looks]) for claim in rule.claims]
    return Verdict(rule, _together(findings), findings, _why(rule.why, findings))


def _results_at(
    rule: Rule, samples: Mapping[str, Sequence[Values]], number: int, seeds: Sequence[int]
) -> dict[str, _LookResult]:
    results = {claim.id: _look_result(rule, claim, number, seeds, samples[claim.id]) for claim in rule.claims}
    tested = [claim for claim in rule.claims if claim.kind not in UNTESTED]
    corrected = holm([_p(claim, results[claim.id]) for claim in tested], level(number))
    for claim, own in zip(tested, corrected, strict=True):
        results[claim.id] = dataclasses.replace(results[claim.id], corrected=own)
    return results


def _look_result(
    rule: Rule, claim: SubClaim, number: int, seeds: Sequence[int], samples: Sequence[Values]
) -> _LookResult:
    terms = [term.of_seeds(seeds) for term in samples]
    own = _sample(claim, terms)
    needed = rule.seeds if claim.kind in UNTESTED else number * rule.seeds
    return _LookResult(number, terms, own, own is not None and own.n >= needed)


def margin_test(claim: SubClaim) -> MarginTest:
    return MarginTest(claim.margin, claim.refutable or claim.kind == "equivalence")


def _sample(claim: SubClaim, terms: Sequence[Values]) -> Sample | None:
    ours = terms[0].values
    if claim.against is None:
        return sample([ours[seed] for seed in sorted(ours)], resolution=claim.resolution)
    theirs = terms[1].values
    if claim.kind == "ratio":
        shared = sorted(ours.keys() & theirs.keys())
        ratios = [ours[seed] / theirs[seed] for seed in shared if theirs[seed] > 0]
        return sample(ratios) if len(ratios) == len(shared) else None  # a ratio to zero is undefined
    return paired(ours, theirs, resolution=claim.resolution)


def _p(claim: SubClaim, look: _LookResult) -> float:
    """The p-value to correct. A comparison that lacks seeds decides nothing and does not weaken those that do not."""
    return margin_test(claim).p(look.sample) if look.sample and look.complete else 1.0


def _finding(rule: Rule, claim: SubClaim, looks: Sequence[_LookResult]) -> Finding:
    look = looks[-1] if claim.kind in UNTESTED else _deciding(looks)
    sample, corrected = look.sample, look.corrected
    result = _tested(claim, look) if corrected else _held(claim, look)
    low, high = (sample.interval(corrected.alpha) if sample and corrected else None) or (None, None)
    more, likely = _next(rule, claim, look) if result == Result.INCONCLUSIVE else (None, None)
    against = look.terms[1] if claim.against else None
    known = (result, sample, low, high, corrected, look.number, more, likely)
    return Finding(claim, *known, seeds=rule.seeds, value=look.terms[0], against=against)


def _deciding(looks: Sequence[_LookResult]) -> _LookResult:
    """The first look that decides, else the last that has all its seeds, else the first."""
    complete = [look for look in looks if look.complete]
    return next((look for look in complete if look.decides), complete[-1] if complete else looks[0])


def _held(claim: SubClaim, look: _LookResult) -> Result:
    """A bound or a floor: one seed that violates it refutes it; supporting it needs all seeds."""
    holds = operator.gt if claim.kind == "floor" else operator.le
    if any(not holds(value, claim.margin) for value in look.terms[0].values.values()):
        return Result.NOT_SUPPORTED
    return Result.SUPPORTED if look.complete else Result.INCONCLUSIVE


def _tested(claim: SubClaim, look: _LookResult) -> Result:
    if look.sample is None or not look.decides:
        return Result.INCONCLUSIVE
    good = "within" if claim.kind == "equivalence" else "above"
    return Result.SUPPORTED if margin_test(claim).side(look.sample) == good else Result.NOT_SUPPORTED


def _next(rule: Rule, claim: SubClaim, look: _LookResult) -> tuple[int | None, float | None]:
    """The seeds that the next look lacks, and the probability that it decides."""
    have = look.sample.n if look.sample else 0
    if not look.complete:
        return rule.seeds - have or None, None
    if look.number == LOOKS or look.sample is None or look.corrected is None:
        return None, None
    share = look.corrected.alpha / level(look.number)  # Holm's share, assumed to be the same at the next look
    return rule.seeds, chance(margin_test(claim), look.sample, have + rule.seeds, share * level(look.number + 1))


def _together(findings: Sequence[Finding]) -> Result:
    """Mixed where two comparisons disagree; else inconclusive where one is open."""
    results = {finding.result for finding in findings if finding.claim.decides}
    if {Result.SUPPORTED, Result.NOT_SUPPORTED} <= results:
        return Result.MIXED
    return Result.INCONCLUSIVE if Result.INCONCLUSIVE in results else results.pop()


def _why(sayings: Sequence[Saying], findings: Sequence[Finding]) -> Words | None:
    results = {finding.claim.id: finding.result for finding in findings}
    matching = (saying.say for saying in sayings if saying.when.items() <= results.items())
    return next(matching, None)


def plain_interval(sample: Sample | None) -> tuple[float, float] | None:
    """The 95 % interval of one mean, for tables; uncorrected, since it decides nothing."""
    interval = sample.interval(ALPHA) if sample else None
    return interval if interval and all(map(math.isfinite, interval)) else None
