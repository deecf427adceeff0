"""Findings and intervals as pages write them."""

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
def estimate(one: Finding) -> str:
    return wording.number(wording.estimate(one))


@register.filter
def bounds(one: Finding | VariantReport | Comparison) -> str:
    """Its interval; empty where there is none."""
    low, high = (one.low, one.high) if isinstance(one, Finding) else one.interval or (None, None)
    return wording.interval(low, high)


@register.filter
def p(one: Comparison) -> str:
    """Holm's adjusted p, or why there is none."""
    return one.untested or wording.p_value(one.corrected.adjusted)


@register.filter
def conclusion(one: Comparison) -> str:
    """What the test says of the variant, and where it is open, how likely more seeds decide."""
    match one.conclusion:
        case "untested":
            return "not tested"
        case "inconclusive":
            more = f"; {one.more_seeds} more seeds would decide with probability {wording.percent(one.chance)}"
            return f"not told apart{more if one.more_seeds else ''}"
    return f"the latter is {one.conclusion}"


@register.filter
def effect(one: Finding) -> str:
    """Cohen's d_z; past a hundred its size says no more than that the seeds agree."""
    value = one.effect
    if value is None:
        return "–"
    if abs(value) > 100:
        return "> 100" if value > 0 else "< −100"
    return f"{value:.1f}"


@register.filter
def in_one_sentence(one: Verdict) -> str:
    return wording.in_one_sentence(one)
