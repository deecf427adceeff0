"""Numbers and results as text, for pages and docs/verdicts.md. Pure."""

from __future__ import annotations

from .judge import LOOKS, Finding, Verdict, margin_test
from .report import VariantReport
from .rules import UNTESTED, Result

_ESTIMATE = {
    "difference": "difference",
    "equivalence": "difference",
    "threshold": "mean",
    "ratio": "ratio",
    "bound": "largest",
    "floor": "smallest",
}


def number(value: float | None) -> str:
    """Three decimals, or three digits for very small and large numbers."""
    if value is None:
        return "–"
    if value and abs(value) < 0.0005:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.3g}"


def p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def p_of(finding: Finding) -> str:
    """Holm's p with its hypothesis."""
    text = hypothesis(finding)
    tested = finding.corrected and finding.sample and finding.sample.std is not None
    return f"{p_value(finding.corrected.adjusted)} of: {text}" if tested and finding.corrected else text


def estimate(finding: Finding) -> float | None:
    """What is compared with the margin: for a bound the largest value, for a floor the smallest, else the mean."""
    if finding.claim.kind in UNTESTED:
        worst = max if finding.claim.kind == "bound" else min
        return worst(finding.value.values.values(), default=None)
    return finding.sample.mean if finding.sample else None


def estimate_name(finding: Finding) -> str:
    return _ESTIMATE[finding.claim.kind]


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def needs(finding: Finding) -> str:
    """The requirement, as a formula."""
    margin = f"{finding.claim.margin:g}"
    match finding.claim.kind:
        case "equivalence":
            return f"within ± {margin}"
        case "bound":
            return f"≤ {margin} at every seed"
        case "floor":
            return f"> {margin} at every seed"
        case "ratio":
            return f"> {margin} ×"
    return f"> {margin}" + (f" (equality within ± {margin} refutes)" if finding.claim.refutable else "")


def open_because(finding: Finding) -> str:
    """Why a comparison is inconclusive, and what would decide it; empty for all others."""
    if finding.result != Result.INCONCLUSIVE:
        return ""
    if finding.problem:
        return finding.problem
    have = finding.sample.n if finding.sample else 0
    if have < finding.seeds:
        lacking = ", ".join(map(str, finding.lacking))
        return f"{have} of {finding.seeds} seeds" + (f", none trained at {lacking}" if lacking else "")
    if finding.more_seeds is None:
        return f"open after {LOOKS} looks, the last at {have} seeds"
    return f"{finding.more_seeds} more seeds would decide with probability {percent(finding.chance)}"


def percent(value: float | None) -> str:
    """A probability in steps of five percent; it is not known more precisely."""
    if value is None:
        return "unknown"
    return "< 5 %" if value < 0.05 else "> 95 %" if value > 0.95 else f"{5 * round(value * 20)} %"


def hypothesis(finding: Finding) -> str:
    """The hypothesis that a small p refutes."""
    margin = f"{finding.claim.margin:g}"
    if finding.claim.kind in UNTESTED:
        return "no test: it must hold at every seed"
    if finding.sample is None or finding.sample.std is None:
        return "one seed: no test" if finding.sample else "no test yet"
    name = estimate_name(finding)
    match margin_test(finding.claim).side(finding.sample):
        case "within":
            return f"absolute {name} ≥ {margin}"
        case "below":
            bound = f"−{margin}" if margin_test(finding.claim).two_sided else margin
            return f"{name} ≥ {bound}"
    return f"{name} ≤ {margin}"


def seeds(verdict: Verdict) -> str:
    """The number of trained seeds, and the required number."""
    have, required = verdict.most_seeds, verdict.rule.seeds
    return f"{have} of {required}" if have <= required else f"{have} ({required} required)"


def mean_and_interval(variant: VariantReport) -> str:
    if variant.sample is None:
        return "–"
    low, high = variant.interval or (None, None)
    return f"{number(variant.sample.mean)} {interval(low, high)}".strip()


def in_one_sentence(verdict: Verdict) -> str:
    """The rule's sentence where one matches, else the numbers of results."""
    if verdict.why:
        return verdict.why.en
    results = [finding.result for finding in verdict.findings if finding.claim.decides]
    counts = ", ".join(f"{count} {result}" for result in Result if (count := results.count(result)))
    short = f"; {verdict.most_seeds} of {verdict.rule.seeds} required seeds have been trained"
    return f"Of {len(results)} comparisons: {counts}{short if verdict.most_seeds < verdict.rule.seeds else ''}."
