"""Findings and intervals as text of pages."""

from __future__ import annotations

from django import template

from experiments.verdicts import wording
from experiments.verdicts.judge import Finding, Verdict
from experiments.verdicts.report import Comparison, VariantReport

register = template.Library()
register.filter("needs", wording.needs)
register.filter("estimate_name", wording.estimate_name)
register.filter("open_because", wording.open_because)
register.filter("p_of", wording.p_of)
register.filter("mean_and_interval", wording.mean_and_interval)


@register.filter
def estimate(finding: Finding) -> str:
    return wording.number(wording.estimate(finding))


@register.filter
def bounds(result: Finding | VariantReport | Comparison) -> str:
    """Its interval; empty where there is none."""
    low, high = (result.low, result.high) if isinstance(result, Finding) else result.interval or (None, None)
    return wording.interval(low, high)


@register.filter
def p(test: Comparison) -> str:
    """Holm's adjusted p, or why there is none."""
    return test.untested or wording.p_value(test.corrected.adjusted)


@register.filter
def conclusion(test: Comparison, variant: str) -> str:
    """The test's result for the variant; where it is open, the probability that more seeds decide it."""
    match test.conclusion:
        case "untested":
            return "not tested"
        case "inconclusive":
            more = f"; {test.more_seeds} more seeds would decide with probability {wording.percent(test.chance)}"
            return f"no significant difference{more if test.more_seeds else ''}"
    return f"{variant} is {test.conclusion}"


@register.filter
def effect(finding: Finding) -> str:
    """Cohen's d_z; beyond 100 its size only says that the seeds agree."""
    value = finding.effect
    if value is None:
        return "–"
    if abs(value) > 100:
        return "> 100" if value > 0 else "< −100"
    return f"{value:.1f}"


@register.filter
def in_one_sentence(verdict: Verdict) -> str:
    return wording.in_one_sentence(verdict)
