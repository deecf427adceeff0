"""What report and verdict answer: numbers over seeds, with the runs they come from."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import BaseModel, Field

from experiments.spec.identity import Identity
from experiments.submissions.presets import Words
from experiments.verdicts.judge import Finding, Values, Verdict, plain_interval
from experiments.verdicts.keys import Choice, ExcludedRuns
from experiments.verdicts.report import Comparison, Report, VariantReport
from experiments.verdicts.rules import Kind, Result, Term
from experiments.verdicts.sameness import Alarm
from experiments.verdicts.samples import Pool
from experiments.verdicts.verdict import Judged
from experiments.verdicts.wording import hypothesis


class SeedValue(BaseModel):
    """The value of one seed, and the run that it was read from."""

    seed: int
    run: int
    value: float


class Spread(BaseModel):
    """Over seeds: mean, sample standard deviation (null for one seed) and the uncorrected 95 % t interval."""

    n: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    seeds: list[SeedValue]
    missing: list[int] = Field(description="seeds that no succeeded run has trained yet")


class VariantRow(Spread):
    label: str
    params: dict[str, Any]


class TestRow(BaseModel):
    """Paired t over shared seeds, reference − variant, the sign of a verdict's differences; Holm over all tests of the
    answer. `low` and `high` are the interval at the level 1 − `alpha` that Holm held the test against."""

    variant: str
    reference: str
    n: int
    difference: float | None
    low: float | None
    high: float | None
    alpha: float
    p: float | None = Field(description="of no difference; null where nothing is tested")
    p_adjusted: float | None
    effect: float | None = Field(description="Cohen's d_z; null where nothing varies")
    conclusion: str = Field(description="the variant is larger, smaller, inconclusive, or untested")
    untested: str = Field(description="why there is no test: one seed, or runs that have not ended; else empty")
    more_seeds: int | None = Field(description="as many again, where it is open")
    chance: float | None = Field(description="the probability that these decide, as far as the spread tells it")


class TermRow(Spread):
    """A measured quantity of a comparison."""

    metrics: list[str]
    minus: list[str] = Field(description="the mean of these series is taken off")
    below: float | None = Field(description="if given, the value is the first step at which the series lies below it")
    where: dict[str, Any]
    problem: str


class FindingRow(BaseModel):
    """One comparison of a verdict; `estimate` is a difference, a ratio or a mean, as `kind` says."""

    id: str
    claim: Words
    kind: Kind
    decides: bool = Field(description="false: stands beside and does not count towards the verdict")
    result: Result
    margin: float
    refutable: bool = Field(description="a difference that only equivalence within ± margin refutes")
    n: int
    estimate: float | None
    std: float | None
    low: float | None
    high: float | None
    alpha: float | None
    hypothesis: str = Field(description="what a small p speaks against")
    p: float | None
    p_adjusted: float | None
    effect: float | None = Field(description="Cohen's d_z, of differences alone")
    look: int = Field(description="the look that this is from: 1 at the seeds fixed beforehand, 2 at twice as many")
    more_seeds: int | None = Field(description="how many the next look takes besides; null where there is none")
    chance: float | None = Field(description="the probability that the next look decides")
    value: TermRow
    against: TermRow | None


class ShownRow(BaseModel):
    label: Words
    term: TermRow


class PartRow(BaseModel):
    theirs: str
    used: str


class LeftOutRow(BaseModel):
    """Succeeded runs of the same specs that do not count, and the parts of the evidence key in which they differ."""

    runs: int
    differs: dict[str, PartRow]
    text: str


class EvidenceRow(BaseModel):
    """What the runs that count have in common besides their specs: the revision of the training code, torch's
    major.minor, the kind of device, and the digests of the files that were read (one for each source of data)."""

    revision: int | None
    torch: str
    device_kind: str
    data_digests: list[str]
    unknown_data: bool = Field(description="they read files of which no digest was kept")
    left_out: list[LeftOutRow]


class VerdictAnswer(BaseModel):
    """What a preset comes to, computed from runs when asked."""

    preset: str
    verdict: Result
    seeds_needed: int
    test_seeds: list[int] = Field(description="fixed beforehand; the first look takes these")
    pilot_seeds: list[int] = Field(description="the margins were chosen on these: they never count")
    why: Words | None = Field(description="null where no sentence of the rule fits the results")
    shows_not: Words
    differs: list[Words]
    comparisons: list[FindingRow]
    shown: list[ShownRow]
    evidence: EvidenceRow


class AlarmRow(BaseModel):
    """Variants that are one: `same_training` where a varied field has no part in the training, `identical` where the
    recorded series are equal to the bit although the specs differ."""

    kind: str
    fields: list[str]
    variants: list[str]
    text: str


class ReportAnswer(BaseModel):
    """One series of an experiment: variants × seeds."""

    experiment: int
    metric: str
    metrics: list[str]
    seeds: list[int]
    looks: int = Field(description="how often seeds were chosen; each time costs a share of alpha")
    variants: list[VariantRow]
    tests: list[TestRow]
    verdict: VerdictAnswer | None
    departs_in: list[str] = Field(
        description="fields in which it trained something else than its preset: then the preset's verdict is not given"
    )
    alarms: list[AlarmRow]
    evidence: EvidenceRow


def report_answer(
    experiment_id: int,
    found: Report,
    verdict: VerdictAnswer | None,
    alarms: list[Alarm],
    pool: Pool,
    departs_in: list[str],
) -> ReportAnswer:
    return ReportAnswer(
        experiment=experiment_id,
        metric=found.metric,
        metrics=found.metrics,
        seeds=list(found.seeds),
        looks=found.looks,
        variants=[_variant(one) for one in found.variants],
        tests=[_test(found, one) for one in found.tests],
        verdict=verdict,
        departs_in=departs_in,
        alarms=[AlarmRow(**dataclasses.asdict(alarm)) for alarm in alarms],
        evidence=_evidence(pool.choice),
    )


def verdict_answer(judged: Judged) -> VerdictAnswer:
    return verdict_rows(judged.verdict, judged.pool)


def verdict_rows(verdict: Verdict, pool: Pool) -> VerdictAnswer:
    rule = verdict.rule
    return VerdictAnswer(
        preset=rule.preset,
        verdict=verdict.result,
        seeds_needed=rule.seeds,
        test_seeds=rule.test_seeds,
        pilot_seeds=rule.pilot_seeds,
        why=verdict.why,
        shows_not=rule.shows_not,
        differs=rule.differences,
        comparisons=[_finding(one) for one in verdict.findings],
        shown=[ShownRow(label=one.label, term=_term(one.term, pool.term(one.term))) for one in rule.shown],
        evidence=_evidence(pool.choice),
    )


def _evidence(choice: Choice) -> EvidenceRow:
    key = choice.identities[0] if choice.identities else Identity()
    return EvidenceRow(
        revision=key.revision,
        torch=key.torch,
        device_kind=key.device_kind,
        data_digests=[one.data_digest for one in choice.identities if one.data_digest],
        unknown_data=choice.unknown_data,
        left_out=[_left_out(one) for one in choice.left_out],
    )


def _left_out(one: ExcludedRuns) -> LeftOutRow:
    differs = {part: PartRow(theirs=theirs, used=used) for part, (theirs, used) in one.differs.items()}
    return LeftOutRow(runs=one.runs, differs=differs, text=one.text)


def _spread(values: Values) -> dict[str, Any]:
    found, interval = values.sample, plain_interval(values.sample)
    low, high = interval or (None, None)
    return {
        "n": found.n if found else 0,
        "mean": found.mean if found else None,
        "std": found.std if found else None,
        "low": low,
        "high": high,
        "seeds": [SeedValue(seed=s, run=values.runs[s], value=values.values[s]) for s in sorted(values.values)],
        "missing": list(values.missing),
    }


def _variant(one: VariantReport) -> VariantRow:
    return VariantRow(label=one.label, params=dict(one.params), **_spread(one.values))


def _test(report: Report, one: Comparison) -> TestRow:
    low, high = one.interval or (None, None)
    return TestRow(
        variant=report.variants[one.variant].label,
        reference=report.variants[one.reference].label,
        n=one.sample.n if one.sample else 0,
        difference=one.sample.mean if one.sample else None,
        low=low,
        high=high,
        alpha=one.corrected.alpha,
        p=None if one.untested else one.corrected.p,
        p_adjusted=None if one.untested else one.corrected.adjusted,
        effect=one.sample.effect if one.sample else None,
        conclusion=one.conclusion,
        untested=one.untested,
        more_seeds=one.more_seeds,
        chance=one.chance,
    )


def _term(term: Term, values: Values) -> TermRow:
    return TermRow(
        metrics=term.metrics,
        minus=term.minus,
        below=term.below,
        where=term.where,
        problem=values.problem,
        **_spread(values),
    )


def _finding(one: Finding) -> FindingRow:
    claim, found = one.claim, one.sample
    corrected = one.corrected if found and found.std is not None else None
    against = _term(claim.against, one.against) if claim.against and one.against else None
    return FindingRow(
        id=claim.id,
        claim=claim.claim,
        kind=claim.kind,
        decides=claim.decides,
        result=one.result,
        margin=claim.margin,
        refutable=claim.refutable,
        n=found.n if found else 0,
        estimate=found.mean if found else None,
        std=found.std if found else None,
        low=one.low,
        high=one.high,
        alpha=corrected.alpha if corrected else None,
        hypothesis=hypothesis(one),
        p=corrected.p if corrected else None,
        p_adjusted=corrected.adjusted if corrected else None,
        effect=one.effect,
        look=one.look,
        more_seeds=one.more_seeds,
        chance=one.chance,
        value=_term(claim.value, one.value),
        against=against,
    )
