"""docs/verdicts.md and its pictures, written only from computed verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from django.db.models import F, Sum
from django.utils import timezone

from experiments.models import Attempt, Worker
from experiments.models.definitions import AnyUser
from experiments.states import Reason, State
from experiments.submissions.presets import presets

from . import wording
from .judge import Finding, margin_test
from .picture import Bar, plot
from .report import VariantReport
from .rules import UNTESTED, Result, Term, rules
from .verdict import Judged, preset_verdict

INTRODUCTION = """# Verdicts

The verdict on each claim of the notes, computed from runs. `make verdicts` writes this page from their stored series;
nothing in it is typed by hand. The rules are in `experiments/verdicts/rules/`; [claims.yaml](claims.yaml) says which
comparison belongs to which claim.
"""
QUICK = """**This is the quick pass** (`make verdicts QUICK=1`): three seeds, lookups only. Three seeds decide nothing,
and nothing was trained on scenes; `make verdicts` runs the rest.
"""
READING = """
Intervals are t intervals over training seeds. Those of comparisons are paired and drawn at the level of Holm's
correction within the preset, so an interval that excludes the margin is a decision. A claim of *no difference* needs
an interval inside ± margin. d is Cohen's d_z. Each difference is the first variant minus the second (full − const_q),
and each p names the hypothesis that it refutes where it is small.

The seeds were fixed before training: margins were chosen on pilot seeds (0-7, on scenes 0-4), which never count. A
comparison that the test seeds leave open gets a second look, at twice as many seeds; the first look spends an alpha of
.04 and the second .008, so that two looks are not wrong more often than one. A rule that changes gets a line in
[verdict-changes.md](verdict-changes.md). Attention weights alone explain nothing (Jain & Wallace 2019)."""
_TONE = {Result.SUPPORTED: "supported", Result.NOT_SUPPORTED: "not"}


def write(into: Path, reader: AnyUser, *, quick: bool) -> Path:
    """Write `into`/verdicts.md and `into`/images/verdicts/*.svg; returns the page's path."""
    pictures = into / "images" / "verdicts"
    pictures.mkdir(parents=True, exist_ok=True)
    by_preset = {name: judged for name in _ordered() if (judged := preset_verdict(name, reader))}
    lines = list(_head(by_preset, quick))
    for name, judged in by_preset.items():
        lines += _preset(name, judged, pictures)
    page = into / "verdicts.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def _ordered() -> list[str]:
    """As in the gallery; rules whose preset does not exist yet come last."""
    return [name for name in presets() if name in rules()] + [name for name in rules() if name not in presets()]


def _head(by_preset: dict[str, Judged], quick: bool) -> Iterator[str]:
    yield INTRODUCTION
    if quick:
        yield QUICK
    yield _circumstances(by_preset)
    yield ""
    yield "| preset | verdict | seeds | in one sentence |"
    yield "|---|---|---|---|"
    for name, judged in by_preset.items():
        verdict, sentence = judged.verdict, wording.in_one_sentence(judged.verdict)
        yield f"| [`{name}`](#{name}) | **{verdict.result}** | {wording.seeds(verdict)} | {sentence} |"
    yield READING


def _circumstances(by_preset: dict[str, Judged]) -> str:
    """Machine and durations, from the rows of workers and runs."""
    pools = [judged.pool for judged in by_preset.values()]
    runs = {run for pool in pools for run in pool.runs.values()}
    # Only time with a trainer counts, not that of waiting for a retry or of a machine that was switched off.
    trained = Attempt.objects.filter(run__in=runs, outcome__in=[State.SUCCEEDED, Reason.PREEMPTED])
    spent = trained.aggregate(spent=Sum(F("ended") - F("claimed")))["spent"] or timedelta()
    worker = Worker.objects.order_by("-last_seen").first()
    machine = worker.device if worker else "no worker"
    if worker and (memory := worker.info.get("memory")):
        machine += f", {memory / 2**30:.0f} GiB"
    date = timezone.now().strftime("%Y-%m-%d")
    keys = sorted({pool.choice.text for pool in pools} - {""})
    spent_on = f"{date}; {len(runs)} distinct runs, {_time(spent)} of training in total; {machine}"
    return ". ".join([spent_on, *keys]) + "."


def _time(spent: timedelta) -> str:
    minutes = spent.total_seconds() / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _preset(name: str, judged: Judged, pictures: Path) -> Iterator[str]:
    verdict, preset = judged.verdict, presets().get(name)
    yield f"\n## {name}\n"
    if preset:
        yield f"{preset.claim.en} {preset.claim.zh} (notes {preset.section})\n"
    yield f"**{str(verdict.result).capitalize()}.** {wording.in_one_sentence(verdict)}\n"
    if not judged.pool.runs:
        yield "No run has been trained yet.\n" if preset else "The preset does not exist yet.\n"
    else:
        yield from _measured(name, judged, pictures)
    if left_out := judged.pool.choice.left_out:
        yield "\n".join(f"- {excluded.text}." for excluded in left_out) + "\n"
    yield f"*What it does not show.* {verdict.rule.shows_not.en}"
    if verdict.rule.differs:
        yield "\nWhere the model differs from the notes' sketch and from SAM 3:\n"
        yield "\n".join(f"- {difference.en}" for difference in verdict.rule.differs)
    if other := verdict.rule.differs_as:
        yield f"\nOn scenes the model is that of [`{other}`](#{other}), with the differences named there."


def _measured(name: str, judged: Judged, pictures: Path) -> Iterator[str]:
    yield from _comparisons(name, judged.verdict.findings, pictures)
    yield from _by_variant(name, judged, pictures)
    for shown in judged.verdict.rule.shown:
        values = judged.pool.term(shown.term)
        if values.values:
            yield f"- {shown.label.en}: {wording.mean_and_interval(VariantReport({}, values))}"
    if judged.verdict.rule.shown:
        yield ""


def _comparisons(name: str, findings: Sequence[Finding], pictures: Path) -> Iterator[str]:
    bars = [_bar(finding) for finding in findings if _is_drawn(finding)]
    if bars:
        (pictures / f"{name}.svg").write_text(plot(bars, f"{name}: comparisons"), "utf-8")
        yield f"![Comparisons of {name} with their intervals and margins](images/verdicts/{name}.svg)\n"
    yield "| comparison | | measured | needs | n | p (Holm) of the hypothesis | d | result |"
    yield "|---|---|---|---|---|---|---|---|"
    yield from map(_row, findings)
    yield ""


def _is_drawn(finding: Finding) -> bool:
    """Numbers of steps have another scale than all else; bounds and floors have no interval."""
    claim = finding.claim
    return claim.value.below is None and finding.sample is not None and claim.kind not in UNTESTED


def _by_variant(name: str, judged: Judged, pictures: Path) -> Iterator[str]:
    variants = _variants(judged)
    if len(variants) > 1:
        metric = judged.verdict.rule.metrics[0]
        picture = plot([_variant_bar(variant) for variant in variants], f"{name}: {metric} by variant")
        (pictures / f"{name}-variants.svg").write_text(picture, "utf-8")
        yield f"`{metric}` by variant: mean and uncorrected 95 % interval; each dot is a seed.\n"
        yield f"![{metric} of every variant of {name}](images/verdicts/{name}-variants.svg)\n"


def _row(finding: Finding) -> str:
    reason = wording.open_because(finding)
    cells = [
        finding.claim.claim.en + ("" if finding.claim.decides else " *(does not count)*"),
        wording.estimate_name(finding),
        f"{wording.number(wording.estimate(finding))} {wording.interval(finding.low, finding.high)}".strip(),
        wording.needs(finding),
        str(finding.sample.n if finding.sample else 0),
        wording.p_of(finding),
        wording.number(finding.effect),
        f"{finding.result}" + (f": {reason}" if reason else ""),
    ]
    return f"| {' | '.join(cells)} |"


def _bar(finding: Finding) -> Bar:
    assert finding.sample is not None
    margin = finding.claim.margin
    margins = [margin, -margin] if margin_test(finding.claim).two_sided else [margin]
    tone = _TONE.get(finding.result, "open")
    figures = f"{wording.number(finding.sample.mean)} {wording.interval(finding.low, finding.high)}"
    return Bar(finding.claim.id, figures, finding.sample.mean, finding.low, finding.high, margins=margins, tone=tone)


def _variants(judged: Judged) -> Sequence[VariantReport]:
    """The cells that have values of the rule's first series."""
    term, pool = Term(metric=judged.verdict.rule.metrics[:1]), judged.pool
    every = [VariantReport(cell.params, pool.values_of(position, term)) for position, cell in enumerate(pool.cells)]
    return [variant for variant in every if variant.values.values]


def _variant_bar(variant: VariantReport) -> Bar:
    assert variant.sample is not None
    low, high = variant.interval or (None, None)
    seeds = [variant.values.values[seed] for seed in sorted(variant.values.values)]
    return Bar(variant.label, wording.mean_and_interval(variant), variant.sample.mean, low, high, seeds=seeds)
