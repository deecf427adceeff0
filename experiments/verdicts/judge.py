"""From measured values to a verdict. Pure: the same values give the same verdict."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from experiments.presets import Words

from .rules import UNTESTED, Result, Rule, Saying, SubClaim
from .statistics import ALPHA, Corrected, Question, Sample, differences, holm, sample


@dataclass(frozen=True)
class Values:
    """A term's value by seed, the run each came from, and the seeds that are still to be trained.

    `problem` says why there can be none: no cell of the definition is meant, or more than one.
    """

    values: Mapping[int, float] = field(default_factory=dict)
    runs: Mapping[int, int] = field(default_factory=dict)
    missing: Sequence[int] = ()
    problem: str = ""

    @property
    def sample(self) -> Sample | None:
        return sample([self.values[seed] for seed in sorted(self.values)])


@dataclass(frozen=True)
class Finding:
    """What one comparison came to. `found` is over seeds: of differences, ratios or values, as its kind says.
    `low` and `high` are its interval at the level that Holm held it against, (1 − alpha)."""

    claim: SubClaim
    result: Result
    found: Sample | None
    low: float | None
    high: float | None
    corrected: Corrected | None
    more_seeds: int | None  # how many more would decide; None where it is decided, or where none would
    seeds: int  # fewer cannot conclude
    value: Values
    against: Values | None

    @property
    def problem(self) -> str:
        return self.value.problem or (self.against.problem if self.against else "")

    @property
    def side(self) -> str | None:
        """Where the corrected interval lies, whether or not the seeds are enough to conclude: above, within or below
        the margin; None across it."""
        decided = self.found is not None and self.corrected is not None and self.corrected.decides
        return question(self.claim).side(self.found) if decided and self.found else None

    @property
    def effect(self) -> float | None:
        """Cohen's d_z, of differences alone."""
        paired = self.claim.kind in {"difference", "equivalence"}
        return self.found.effect if self.found and paired else None


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
        return max((one.found.n for one in self.findings if one.found), default=0)


def judge(rule: Rule, evidence: Mapping[str, Sequence[Values]]) -> Verdict:
    """`evidence` holds the values of each comparison's terms by its id."""
    samples = {one.id: _sample(one, evidence[one.id]) for one in rule.claims}
    tested = [one for one in rule.claims if one.kind not in UNTESTED]
    corrected = dict(zip((one.id for one in tested), holm([_p(one, samples[one.id]) for one in tested]), strict=True))
    findings = [_finding(rule, one, samples[one.id], corrected.get(one.id), evidence[one.id]) for one in rule.claims]
    return Verdict(rule, _together(findings), findings, _why(rule.why, findings))


def question(claim: SubClaim) -> Question:
    return Question(claim.margin, claim.refutable or claim.kind == "equivalence")


def _sample(claim: SubClaim, terms: Sequence[Values]) -> Sample | None:
    ours = terms[0].values
    if claim.against is None:
        return terms[0].sample
    theirs = terms[1].values
    if claim.kind == "ratio":
        shared = sorted(ours.keys() & theirs.keys())
        ratios = [ours[seed] / theirs[seed] for seed in shared if theirs[seed] > 0]
        return sample(ratios) if len(ratios) == len(shared) else None  # a share of zero leaves nothing to divide by
    return sample(differences(ours, theirs))


def _p(claim: SubClaim, found: Sample | None) -> float:
    return question(claim).p(found) if found else 1.0


def _finding(
    rule: Rule, claim: SubClaim, found: Sample | None, corrected: Corrected | None, terms: Sequence[Values]
) -> Finding:
    if claim.kind in UNTESTED or corrected is None:
        result, interval = _held(rule, claim, found, terms[0]), None
    else:
        result = _tested(rule, claim, found, corrected)
        interval = found.interval(corrected.alpha) if found else None
    low, high = interval or (None, None)
    more = _more(rule, claim, found, corrected) if result == Result.INCONCLUSIVE else None
    against = terms[1] if claim.against else None
    return Finding(claim, result, found, low, high, corrected, more, rule.seeds, terms[0], against)


def _held(rule: Rule, claim: SubClaim, found: Sample | None, value: Values) -> Result:
    """A bound or a floor: one seed that breaks it refutes it; holding takes all the seeds."""
    holds = operator.gt if claim.kind == "floor" else operator.le
    if any(not holds(one, claim.margin) for one in value.values.values()):
        return Result.NOT_SUPPORTED
    return Result.SUPPORTED if found and found.n >= rule.seeds else Result.INCONCLUSIVE


def _tested(rule: Rule, claim: SubClaim, found: Sample | None, corrected: Corrected) -> Result:
    if found is None or found.n < rule.seeds or not corrected.decides:
        return Result.INCONCLUSIVE
    good = "within" if claim.kind == "equivalence" else "above"
    return Result.SUPPORTED if question(claim).side(found) == good else Result.NOT_SUPPORTED


def _more(rule: Rule, claim: SubClaim, found: Sample | None, corrected: Corrected | None) -> int | None:
    have = found.n if found else 0
    if have < rule.seeds:
        return rule.seeds - have
    if found is None or corrected is None:
        return None
    needed = question(claim).seeds_needed(found, corrected.alpha)
    return None if needed is None else max(1, needed - have)


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
