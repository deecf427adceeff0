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

LOOKS = 2  # a comparison that the last of them leaves open stays open


@dataclass(frozen=True)
class Values:
    """A term's value by seed, the run each came from, and the seeds that are still to be trained.

    `problem` says why there can be none: no cell of the definition is meant, or more than one.
    """

    values: Mapping[int, float] = field(default_factory=dict)
    runs: Mapping[int, int] = field(default_factory=dict)
    missing: Sequence[int] = ()
    problem: str = ""

    def at(self, seeds: Sequence[int]) -> Values:
        """Those of these seeds alone."""
        kept = {seed: self.values[seed] for seed in seeds if seed in self.values}
        missing = [seed for seed in seeds if seed in self.missing]
        return Values(kept, {seed: self.runs[seed] for seed in kept if seed in self.runs}, missing, self.problem)

    @property
    def sample(self) -> Sample | None:
        return sample([self.values[seed] for seed in sorted(self.values)])


@dataclass(frozen=True)
class Finding:
    """What one comparison came to. `found` is over seeds: of differences, ratios or values, as its kind says.
    `low` and `high` are its interval at the level that Holm held it against, (1 − alpha)."""

    claim: SubClaim
    result: Result
    sample: Sample | None
    low: float | None
    high: float | None
    corrected: Corrected | None
    look: int  # the one that this is from
    more_seeds: int | None  # how many the next look lacks; None where it is decided or was the last
    chance: float | None  # that the next look decides, as far as that is known
    seeds: int  # fewer cannot conclude
    value: Values
    against: Values | None

    @property
    def problem(self) -> str:
        return self.value.problem or (self.against.problem if self.against else "")

    @property
    def lacking(self) -> list[int]:
        """Seeds that were chosen and have no succeeded run in one of its terms: more seeds do not replace them."""
        terms = [self.value, self.against] if self.against else [self.value]
        return sorted({seed for term in terms for seed in term.missing})

    @property
    def effect(self) -> float | None:
        """Cohen's d_z, of differences alone."""
        paired = self.claim.kind in {"difference", "equivalence"}
        return self.sample.effect if self.sample and paired else None


@dataclass(frozen=True)
class Verdict:
    """A preset's answer with everything it stands on."""

    rule: Rule
    result: Result
    findings: list[Finding]
    why: Words | None  # None where no saying of the rule fits the results

    @property
    def most_seeds(self) -> int:
        """Of the comparison that has most."""
        return max((one.sample.n for one in self.findings if one.sample), default=0)


@dataclass(frozen=True)
class _LookResult:
    """A comparison at one look: its terms at the look's seeds, and whether all of these are there."""

    look: int
    terms: Sequence[Values]
    sample: Sample | None
    complete: bool
    corrected: Corrected | None = None

    @property
    def decides(self) -> bool:
        return self.corrected is not None and self.complete and self.corrected.decides


def judge(rule: Rule, samples: Mapping[str, Sequence[Values]], seeds: Sequence[int]) -> Verdict:
    """`samples` holds the values of each comparison's terms by its id; `seeds` are the candidates in the order in
    which they were chosen. Those of the pilot do not count.

    There are two looks, at the first n seeds and at the first 2n, where n is what the rule fixed beforehand; each
    spends its share of alpha (`level`), and the first that decides a comparison stands.
    """
    counted = [seed for seed in seeds if seed not in rule.pilot_seeds]
    looks = [_results_at(rule, samples, number, counted[: number * rule.seeds]) for number in range(1, LOOKS + 1)]
    findings = [_finding(rule, one, [look[one.id] for look in looks]) for one in rule.claims]
    return Verdict(rule, _together(findings), findings, _why(rule.why, findings))


def _results_at(
    rule: Rule, samples: Mapping[str, Sequence[Values]], number: int, seeds: Sequence[int]
) -> dict[str, _LookResult]:
    seen = {one.id: _look_result(rule, one, number, seeds, samples[one.id]) for one in rule.claims}
    tested = [one for one in rule.claims if one.kind not in UNTESTED]
    corrected = holm([_p(one, seen[one.id]) for one in tested], level(number))
    return seen | {
        one.id: dataclasses.replace(seen[one.id], corrected=held) for one, held in zip(tested, corrected, strict=True)
    }


def _look_result(
    rule: Rule, claim: SubClaim, number: int, seeds: Sequence[int], samples: Sequence[Values]
) -> _LookResult:
    terms = [term.at(seeds) for term in samples]
    found = _sample(claim, terms)
    takes = rule.seeds if claim.kind in UNTESTED else number * rule.seeds
    return _LookResult(number, terms, found, found is not None and found.n >= takes)


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
        return sample(ratios) if len(ratios) == len(shared) else None  # a share of zero leaves nothing to divide by
    return paired(ours, theirs, resolution=claim.resolution)


def _p(claim: SubClaim, seen: _LookResult) -> float:
    """What Holm corrects: a comparison that lacks seeds decides nothing, and takes no place among those that do."""
    return margin_test(claim).p(seen.sample) if seen.sample and seen.complete else 1.0


def _finding(rule: Rule, claim: SubClaim, looks: Sequence[_LookResult]) -> Finding:
    seen = looks[-1] if claim.kind in UNTESTED else _deciding(looks)
    result = _tested(claim, seen) if seen.corrected else _held(rule, claim, seen)
    interval = seen.sample.interval(seen.corrected.alpha) if seen.sample and seen.corrected else None
    low, high = interval or (None, None)
    more, likely = _next(rule, claim, seen) if result == Result.INCONCLUSIVE else (None, None)
    against = seen.terms[1] if claim.against else None
    return Finding(
        claim,
        result,
        seen.sample,
        low,
        high,
        seen.corrected,
        seen.look,
        more,
        likely,
        rule.seeds,
        seen.terms[0],
        against,
    )


def _deciding(looks: Sequence[_LookResult]) -> _LookResult:
    """The first look that decides, else the last that has all its seeds, else the first."""
    complete = [one for one in looks if one.complete]
    return next((one for one in complete if one.decides), complete[-1] if complete else looks[0])


def _held(rule: Rule, claim: SubClaim, seen: _LookResult) -> Result:
    """A bound or a floor: one seed that breaks it refutes it; holding takes all the seeds."""
    holds = operator.gt if claim.kind == "floor" else operator.le
    if any(not holds(one, claim.margin) for one in seen.terms[0].values.values()):
        return Result.NOT_SUPPORTED
    return Result.SUPPORTED if seen.complete else Result.INCONCLUSIVE


def _tested(claim: SubClaim, seen: _LookResult) -> Result:
    if seen.sample is None or not seen.decides:
        return Result.INCONCLUSIVE
    good = "within" if claim.kind == "equivalence" else "above"
    return Result.SUPPORTED if margin_test(claim).side(seen.sample) == good else Result.NOT_SUPPORTED


def _next(rule: Rule, claim: SubClaim, seen: _LookResult) -> tuple[int | None, float | None]:
    """How many seeds the next look lacks, and how likely it decides."""
    have = seen.sample.n if seen.sample else 0
    if not seen.complete:
        return rule.seeds - have or None, None
    if seen.look == LOOKS or seen.sample is None or seen.corrected is None:
        return None, None
    family = seen.corrected.alpha / level(seen.look)  # Holm's share, which it is taken to have at the next look too
    return rule.seeds, chance(margin_test(claim), seen.sample, have + rule.seeds, family * level(seen.look + 1))


def _together(findings: Sequence[Finding]) -> Result:
    """Mixed as soon as two comparisons disagree; one that is open leaves the rest open."""
    results = {one.result for one in findings if one.claim.decides}
    if {Result.SUPPORTED, Result.NOT_SUPPORTED} <= results:
        return Result.MIXED
    return Result.INCONCLUSIVE if Result.INCONCLUSIVE in results else results.pop()


def _why(sayings: Sequence[Saying], findings: Sequence[Finding]) -> Words | None:
    results = {one.claim.id: one.result for one in findings}
    fitting = (one.say for one in sayings if all(results[name] == result for name, result in one.when.items()))
    return next(fitting, None)


def plain_interval(found: Sample | None) -> tuple[float, float] | None:
    """The 95 % interval of one mean, for tables; uncorrected, since nothing is decided by it."""
    interval = found.interval(ALPHA) if found else None
    return interval if interval and all(map(math.isfinite, interval)) else None
