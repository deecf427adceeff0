"""Reports and verdicts as the rows of their answers."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.api.http.base import fields_of
from experiments.spec.identity import Identity
from experiments.verdicts.judge import Finding, Values, Verdict, plain_interval
from experiments.verdicts.keys import Choice, ExcludedRuns
from experiments.verdicts.report import Comparison, Report, VariantReport
from experiments.verdicts.rules import Term
from experiments.verdicts.sameness import Alarm
from experiments.verdicts.samples import Pool
from experiments.verdicts.statistics import Corrected, Sample
from experiments.verdicts.wording import hypothesis

from .report_answers import (
    AlarmRow,
    EvidenceRow,
    FindingRow,
    LeftOutRow,
    PartRow,
    ReportAnswer,
    SeedValue,
    ShownRow,
    TermRow,
    TestRow,
    VariantRow,
    VerdictAnswer,
)


def report_answer(
    experiment_id: int,
    result: Report,
    verdict: VerdictAnswer | None,
    alarms: list[Alarm],
    pool: Pool,
    departs_in: list[str],
) -> ReportAnswer:
    return ReportAnswer(
        experiment=experiment_id,
        **fields_of(result, "metric", "metrics", "looks"),
        seeds=list(result.seeds),
        variants=[_variant(variant) for variant in result.variants],
        tests=[_test(result, comparison) for comparison in result.tests],
        verdict=verdict,
        departs_in=departs_in,
        alarms=[AlarmRow(**dataclasses.asdict(alarm)) for alarm in alarms],
        evidence=_evidence(pool.choice),
    )


def verdict_answer(verdict: Verdict, pool: Pool) -> VerdictAnswer:
    rule = verdict.rule
    return VerdictAnswer(
        preset=rule.preset,
        verdict=verdict.result,
        seeds_needed=rule.seeds,
        **fields_of(rule, "test_seeds", "pilot_seeds", "shows_not"),
        why=verdict.why,
        differs=rule.differences,
        comparisons=[_finding(finding) for finding in verdict.findings],
        shown=[ShownRow(label=shown.label, term=_term(shown.term, pool.term(shown.term))) for shown in rule.shown],
        evidence=_evidence(pool.choice),
    )


def _evidence(choice: Choice) -> EvidenceRow:
    key = choice.identities[0] if choice.identities else Identity()
    return EvidenceRow(
        **fields_of(key, "revision", "torch", "device_kind"),
        data_digests=[identity.data_digest for identity in choice.identities if identity.data_digest],
        unknown_data=choice.unknown_data,
        left_out=[_left_out(excluded) for excluded in choice.left_out],
    )


def _left_out(excluded: ExcludedRuns) -> LeftOutRow:
    differs = {part: PartRow(theirs=theirs, used=used) for part, (theirs, used) in excluded.differs.items()}
    return LeftOutRow(runs=excluded.runs, differs=differs, text=excluded.text)


def _count(sample: Sample | None) -> int:
    return sample.n if sample else 0


def _mean(sample: Sample | None) -> float | None:
    return sample.mean if sample else None


def _std(sample: Sample | None) -> float | None:
    return sample.std if sample else None


def _interval(interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {"low": low, "high": high}


def _p_values(corrected: Corrected | None) -> dict[str, float | None]:
    return {"p": corrected.p, "p_adjusted": corrected.adjusted} if corrected else {"p": None, "p_adjusted": None}


def _spread(values: Values) -> dict[str, Any]:
    sample, by_seed = values.sample, values.values
    return {
        "n": _count(sample),
        "mean": _mean(sample),
        "std": _std(sample),
        **_interval(plain_interval(sample)),
        "seeds": [SeedValue(seed=seed, run=values.runs[seed], value=by_seed[seed]) for seed in sorted(by_seed)],
        "missing": list(values.missing),
    }


def _variant(variant: VariantReport) -> VariantRow:
    return VariantRow(label=variant.label, params=dict(variant.params), **_spread(variant.values))


def _test(result: Report, comparison: Comparison) -> TestRow:
    sample = comparison.sample
    return TestRow(
        variant=result.variants[comparison.variant].label,
        reference=result.variants[comparison.reference].label,
        n=_count(sample),
        difference=_mean(sample),
        **_interval(comparison.interval),
        alpha=comparison.corrected.alpha,
        **_p_values(None if comparison.untested else comparison.corrected),
        effect=sample.effect if sample else None,
        **fields_of(comparison, "conclusion", "untested", "more_seeds", "chance"),
    )


def _term(term: Term, values: Values) -> TermRow:
    return TermRow(**fields_of(term, "metrics", "minus", "below", "where"), problem=values.problem, **_spread(values))


def _finding(finding: Finding) -> FindingRow:
    claim, sample = finding.claim, finding.sample
    corrected = finding.corrected if _std(sample) is not None else None
    return FindingRow(
        **fields_of(claim, "id", "claim", "kind", "decides", "margin", "refutable"),
        n=_count(sample),
        estimate=_mean(sample),
        std=_std(sample),
        alpha=corrected.alpha if corrected else None,
        hypothesis=hypothesis(finding),
        **_p_values(corrected),
        **fields_of(finding, "result", "low", "high", "effect", "look", "more_seeds", "chance"),
        value=_term(claim.value, finding.value),
        against=_term(claim.against, finding.against) if claim.against and finding.against else None,
    )
