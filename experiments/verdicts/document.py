"""docs/verdicts.md and its pictures, written from the engine and from nothing else."""

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

from .judge import Finding
from .picture import Bar, plot
from .report import VariantReport
from .rules import UNTESTED, Result, Term, rules
from .verdict import Judged, preset_verdict
from .wording import (
    estimate,
    estimate_name,
    in_one_sentence,
    interval,
    mean_and_interval,
    needs,
    number,
    open_because,
    p_of,
    seeds,
)

INTRODUCTION = """# Verdicts

What the claims of the notes came to when they were run. `make verdicts` writes this page from the stored series of
the runs; nothing in it is typed by hand. How each claim is decided stands in `experiments/verdicts/rules/`, which
comparison belongs to which claim in [claims.yaml](claims.yaml).
"""
QUICK = """**This is the quick pass** (`make verdicts QUICK=1`): three seeds, lookups only. Three seeds conclude
nothing, and nothing was trained on scenes; `make verdicts` runs the rest.
"""
READING = """
Intervals are t intervals over training seeds. Those of comparisons are paired and drawn at the level that Holm's
correction within the preset held them against, so an interval that clears the margin is a decision. A claim of
*no difference* takes an interval inside ± margin. d is Cohen's d_z. Every difference is written as what it is held
against taken off (full − const_q), and each p says which hypothesis it speaks against.

The seeds were fixed before they were trained: margins were chosen on the pilot's seeds (0-7, on scenes 0-4), which
never count. What the test seeds leave open is looked at once more, at twice as many; the first look spends an alpha of
.04 and the second .008, so that looking twice is not wrong more often than once. A rule that changes gets a line in
[verdict-changes.md](verdict-changes.md). Attention weights alone explain nothing (Jain &
Wallace 2019)."""
_TONE = {Result.SUPPORTED: "supported", Result.NOT_SUPPORTED: "not"}


def write(into: Path, reader: AnyUser, *, quick: bool) -> Path:
    """`into`/verdicts.md and `into`/images/verdicts/*.svg; returns the former."""
    pictures = into / "images" / "verdicts"
    pictures.mkdir(parents=True, exist_ok=True)
    judged = {name: found for name in _ordered() if (found := preset_verdict(name, reader))}
    lines = [*_head(judged, quick), *(line for name, one in judged.items() for line in _preset(name, one, pictures))]
    page = into / "verdicts.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def _ordered() -> list[str]:
    """As in the gallery; rules whose preset is not there yet come last."""
    return [name for name in presets() if name in rules()] + [name for name in rules() if name not in presets()]


def _head(judged: dict[str, Judged], quick: bool) -> Iterator[str]:
    yield INTRODUCTION
    if quick:
        yield QUICK
    yield _circumstances(judged)
    yield ""
    yield "| preset | verdict | seeds | in one sentence |"
    yield "|---|---|---|---|"
    for name, one in judged.items():
        cells = [
            f"[`{name}`](#{name})",
            f"**{one.verdict.result}**",
            seeds(one.verdict),
            in_one_sentence(one.verdict),
        ]
        yield f"| {' | '.join(cells)} |"
    yield READING


def _circumstances(judged: dict[str, Judged]) -> str:
    """Machine and durations, from the rows of workers and runs."""
    runs = {run for one in judged.values() for run in one.pool.runs.values()}
    # What counts is the time with a trainer: not the wait for a retry, nor the hours a machine was switched off.
    trained = Attempt.objects.filter(run__in=runs, outcome__in=[State.SUCCEEDED, Reason.PREEMPTED])
    spent = trained.aggregate(spent=Sum(F("ended") - F("claimed")))["spent"] or timedelta()
    worker = Worker.objects.order_by("-last_seen").first()
    machine = worker.device if worker else "no worker"
    if worker and (memory := worker.info.get("memory")):
        machine += f", {memory / 2**30:.0f} GiB"
    date = timezone.now().strftime("%Y-%m-%d")
    keys = sorted({one.pool.choice.text for one in judged.values()} - {""})
    spent_on = f"{date}; {len(runs)} distinct runs, {_time(spent)} of training in sum; {machine}"
    return ". ".join([spent_on, *keys]) + "."


def _time(spent: timedelta) -> str:
    minutes = spent.total_seconds() / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _preset(name: str, judged: Judged, pictures: Path) -> Iterator[str]:
    verdict, preset = judged.verdict, presets().get(name)
    yield f"\n## {name}\n"
    if preset:
        yield f"{preset.claim.en} {preset.claim.zh} (notes {preset.section})\n"
    yield f"**{str(verdict.result).capitalize()}.** {in_one_sentence(verdict)}\n"
    if not judged.pool.runs:
        yield "No run of it has been trained yet.\n" if preset else "The preset is not there yet.\n"
    else:
        yield from _measured(name, judged, pictures)
    if left_out := judged.pool.choice.left_out:
        yield "\n".join(f"- {one.text}." for one in left_out) + "\n"
    yield f"*What it does not show.* {verdict.rule.shows_not.en}"
    if verdict.rule.differs:
        yield "\nWhere the model differs from the notes' sketch and from SAM 3:\n"
        yield "\n".join(f"- {one.en}" for one in verdict.rule.differs)
    if other := verdict.rule.differs_as:
        yield f"\nOn scenes the model is that of [`{other}`](#{other}); the differences named there hold here, too."


def _measured(name: str, judged: Judged, pictures: Path) -> Iterator[str]:
    findings = judged.verdict.findings
    alike = [one for one in findings if one.claim.value.below is None]  # steps have a scale of their own
    tested = [one for one in alike if one.sample and one.claim.kind not in UNTESTED]
    if tested:
        (pictures / f"{name}.svg").write_text(plot([_bar(one) for one in tested], f"{name}: comparisons"), "utf-8")
        yield f"![Comparisons of {name} with their intervals and margins](images/verdicts/{name}.svg)\n"
    yield "| comparison | | measured | needs | n | p (Holm) of the hypothesis | d | result |"
    yield "|---|---|---|---|---|---|---|---|"
    yield from (_row(one) for one in findings)
    yield ""
    variants = _variants(judged)
    if len(variants) > 1:
        metric = judged.verdict.rule.metrics[0]
        bars = [_variant_bar(one) for one in variants]
        (pictures / f"{name}-variants.svg").write_text(plot(bars, f"{name}: {metric} by variant"), "utf-8")
        yield f"`{metric}` by variant, mean and uncorrected 95 % interval, a dot a seed:\n"
        yield f"![{metric} of every variant of {name}](images/verdicts/{name}-variants.svg)\n"
    for shown in judged.verdict.rule.shown:
        values = judged.pool.term(shown.term)
        if values.values:
            yield f"- {shown.label.en}: {mean_and_interval(VariantReport({}, values))}"
    if judged.verdict.rule.shown:
        yield ""


def _row(one: Finding) -> str:
    found = one.sample
    reason = open_because(one)
    cells = [
        one.claim.claim.en + ("" if one.claim.decides else " *(beside)*"),
        estimate_name(one),
        f"{number(estimate(one))} {interval(one.low, one.high)}".strip(),
        needs(one),
        str(found.n if found else 0),
        p_of(one),
        number(one.effect),
        f"{one.result}" + (f": {reason}" if reason else ""),
    ]
    return f"| {' | '.join(cells)} |"


def _bar(one: Finding) -> Bar:
    assert one.sample is not None
    margin = one.claim.margin
    margins = [margin, -margin] if one.claim.refutable or one.claim.kind == "equivalence" else [margin]
    tone = _TONE.get(one.result, "open")
    figures = f"{number(one.sample.mean)} {interval(one.low, one.high)}"
    return Bar(one.claim.id, figures, one.sample.mean, one.low, one.high, margins=margins, tone=tone)


def _variants(judged: Judged) -> Sequence[VariantReport]:
    """The cells that have the rule's first series, with values."""
    term = Term(metric=judged.verdict.rule.metrics[:1])
    found = [VariantReport(cell.params, judged.pool.values_of(at, term)) for at, cell in enumerate(judged.pool.cells)]
    return [one for one in found if one.values.values]


def _variant_bar(one: VariantReport) -> Bar:
    assert one.sample is not None
    low, high = one.interval or (None, None)
    seeds = [one.values.values[seed] for seed in sorted(one.values.values)]
    return Bar(one.label, mean_and_interval(one), one.sample.mean, low, high, seeds=seeds)
