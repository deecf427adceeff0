"""Numbers and outcomes in words, the same on pages and in docs/verdicts.md. Pure."""

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
    """Three decimals, or three digits where those would say nothing."""
    if value is None:
        return "–"
    if value and abs(value) < 0.0005:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.3g}"


def p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def p_of(one: Finding) -> str:
    """Holm's p with the hypothesis that it belongs to."""
    told = hypothesis(one)
    tested = one.corrected and one.sample and one.sample.std is not None
    return f"{p_value(one.corrected.adjusted)} of: {told}" if tested and one.corrected else told


def estimate(one: Finding) -> float | None:
    """What is held against the margin: of a bound the largest value, of a floor the smallest, else the mean."""
    if one.claim.kind in UNTESTED:
        worst = max if one.claim.kind == "bound" else min
        return worst(one.value.values.values(), default=None)
    return one.sample.mean if one.sample else None


def estimate_name(one: Finding) -> str:
    return _ESTIMATE[one.claim.kind]


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def needs(one: Finding) -> str:
    """The bar, as a formula."""
    margin = f"{one.claim.margin:g}"
    match one.claim.kind:
        case "equivalence":
            return f"within ± {margin}"
        case "bound":
            return f"≤ {margin} at every seed"
        case "floor":
            return f"> {margin} at every seed"
        case "ratio":
            return f"> {margin} ×"
    return f"> {margin}" + (f" (equal within ± {margin} refutes)" if one.claim.refutable else "")


def open_because(one: Finding) -> str:
    """Why an inconclusive comparison is open, and what would close it; empty for the others."""
    if one.result != Result.INCONCLUSIVE:
        return ""
    if one.problem:
        return one.problem
    have = one.sample.n if one.sample else 0
    if have < one.seeds:
        lacking = ", ".join(map(str, one.lacking))
        return f"{have} of {one.seeds} seeds" + (f", none trained at {lacking}" if lacking else "")
    if one.more_seeds is None:
        return f"open after {LOOKS} looks, the last at {have} seeds"
    return f"{one.more_seeds} more seeds would decide with probability {percent(one.chance)}"


def percent(value: float | None) -> str:
    """A probability in steps of five percent; more would promise more than is known."""
    if value is None:
        return "unknown"
    return "< 5 %" if value < 0.05 else "> 95 %" if value > 0.95 else f"{5 * round(value * 20)} %"


def hypothesis(one: Finding) -> str:
    """What its p speaks against: the hypothesis that it refutes where it is small."""
    margin = f"{one.claim.margin:g}"
    if one.claim.kind in UNTESTED:
        return "no test: it has to hold at every seed"
    if one.sample is None or one.sample.std is None:
        return "one seed: no test" if one.sample else "no test yet"
    name = estimate_name(one)
    match margin_test(one.claim).side(one.sample):
        case "within":
            return f"{name} is at least {margin} in size"
        case "below":
            bound = f"−{margin}" if margin_test(one.claim).two_sided else margin
            return f"{name} ≥ {bound}"
    return f"{name} ≤ {margin}"


def seeds(verdict: Verdict) -> str:
    """How many seeds there are, and how many it takes."""
    have, takes = verdict.most_seeds, verdict.rule.seeds
    return f"{have} of {takes}" if have <= takes else f"{have}, takes {takes}"


def mean_and_interval(one: VariantReport) -> str:
    found = one.sample
    if found is None:
        return "–"
    low, high = one.interval or (None, None)
    return f"{number(found.mean)} {interval(low, high)}".strip()


def in_one_sentence(verdict: Verdict) -> str:
    """The rule's sentence where one fits, else how many comparisons came to what."""
    if verdict.why:
        return verdict.why.en
    deciding = [one for one in verdict.findings if one.claim.decides]
    counts = [(sum(one.result == result for one in deciding), result) for result in Result]
    told = ", ".join(f"{count} {result}" for count, result in counts if count)
    short = f"; {verdict.most_seeds} of the {verdict.rule.seeds} seeds that it takes have been trained"
    return f"Of {len(deciding)} comparisons: {told}{short if verdict.most_seeds < verdict.rule.seeds else ''}."
