"""The report of an experiment: one series by variant and seed, each variant against the first of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.models import Experiment, Headline, Run
from experiments.models.definitions import AnyUser
from experiments.spec import flatten
from experiments.spec.errors import did_you_mean

from .cells import Cell
from .judge import Values, plain_interval
from .prediction import chance
from .rules import Term, rules
from .samples import Pool
from .statistics import Corrected, MarginTest, Sample, holm, level, paired
from .verdict import experiment_pool

_USUAL = ("test/accuracy", "test/prompt_iou", "eval/accuracy", "eval/prompt_iou", "eval/loss", "loss/total")
_NONE = MarginTest(0.0)  # no difference
_LISTED = ("test/", "eval/", "loss/")


class UnknownMetric(ValueError):
    """A series that no run of the experiment has recorded and that is not one of the usual ones."""


@dataclass(frozen=True)
class VariantReport:
    """One cell of the experiment: its values over seeds."""

    params: Mapping[str, Any]
    values: Values

    @property
    def label(self) -> str:
        """A short name: the parameters in which it differs."""
        return label_of(self.params)

    @property
    def sample(self) -> Sample | None:
        return self.values.sample

    @property
    def interval(self) -> tuple[float, float] | None:
        return plain_interval(self.sample)


@dataclass(frozen=True)
class Comparison:
    """Paired differences reference − variant over the seeds that both have, as in verdicts (full − const_q). `variant`
    and `reference` are positions in `Report.variants`."""

    variant: int
    reference: int
    sample: Sample | None
    corrected: Corrected
    untested: str  # why there is no test, or ""
    more_seeds: int | None  # the same number again, where the test is open
    chance: float | None  # the probability that these decide

    @property
    def interval(self) -> tuple[float, float] | None:
        """At the level of Holm's correction; None where the values do not vary."""
        return self.sample.interval(self.corrected.alpha) if self.sample and self.sample.std else None

    @property
    def conclusion(self) -> str:
        """Whether the variant is larger or smaller, corrected; else inconclusive or untested."""
        if self.untested:
            return "untested"
        if self.sample is None or not self.corrected.decides:
            return "inconclusive"
        return "smaller" if self.sample.mean > 0 else "larger"


@dataclass(frozen=True)
class Report:
    """The content of `GET /experiments/{id}/report/`."""

    metric: str
    metrics: list[str]  # recorded by its runs, without those of gradients
    seeds: Sequence[int]
    looks: int  # how often seeds were chosen: once, and once more each time that some were added
    variants: list[VariantReport]
    tests: list[Comparison]

    @property
    def level(self) -> float:
        """The alpha of all its tests together."""
        return level(self.looks)

    @property
    def first_level(self) -> float:
        """The alpha if no seeds had been added."""
        return level(1)


def report(experiment: Experiment, reader: AnyUser, metric: str | None = None) -> tuple[Report, Pool]:
    """The report of one series, and its pool of runs, which holds the series of the preset's rule as well. Raises
    UnknownMetric; before a run has recorded anything, the rule's series and the usual ones are known."""
    rule = rules().get(experiment.preset)
    recorded = _recorded(experiment)
    if metric is not None:
        _check_metric(metric, experiment, [*(rule.metrics if rule else ()), *_USUAL])
    wanted = metric or _usual(rule.metrics if rule else (), recorded)
    pool = experiment_pool(experiment, reader, [wanted], rule)
    variants = [
        VariantReport(cell.params, pool.values_of(number, Term(metric=wanted)))
        for number, cell in enumerate(pool.cells)
    ]
    looks = looks_of(experiment, pool)
    tests = _tests(pool.cells, variants, looks, _awaited(experiment, pool))
    return Report(wanted, recorded, pool.seeds, looks, variants, tests), pool


def _check_metric(metric: str, experiment: Experiment, usual: Sequence[str]) -> None:
    recorded = Headline.objects.filter(run__experiment=experiment).order_by()
    if metric in usual or recorded.filter(key=metric).exists():
        return
    known = [*usual, *sorted(recorded.values_list("key", flat=True).distinct())]
    raise UnknownMetric(f"no run of this experiment has recorded '{metric}'{did_you_mean(metric, known)}")


def looks_of(experiment: Experiment, pool: Pool) -> int:
    """The number of looks: one for each time that seeds of this experiment were chosen, and one for each other
    experiment that trained two or more of these variants and whose runs count here.

    The former follows from the order of its runs: they are ordered by variant, and added seeds start with the first
    variant again.
    """
    variants = [repr(params) for params in experiment.runs.order_by("index").values_list("params", flat=True)]
    own = max(
        1, sum(variant == variants[0] != before for before, variant in zip(["", *variants], variants, strict=False))
    )
    cell_of = {spec_hash: cell for (cell, _), spec_hash in pool.hashes.items()}
    others: dict[int, set[int]] = {}
    rows = Run.objects.filter(pk__in=pool.runs.values()).exclude(experiment=experiment)
    for other, spec_hash in rows.values_list("experiment_id", "spec_hash"):
        others.setdefault(other, set()).add(cell_of[spec_hash])
    return own + sum(len(cells) > 1 for cells in others.values())


def _awaited(experiment: Experiment, pool: Pool) -> dict[int, int]:
    """Position of a cell → the number of its runs that have not ended and that no other run replaces."""
    unfinished = set(experiment.runs.filter(finished=None).values_list("spec_hash", flat=True))
    counts: dict[int, int] = {}
    for (cell, _), spec_hash in pool.hashes.items():
        counts[cell] = counts.get(cell, 0) + (spec_hash in unfinished and spec_hash not in pool.runs)
    return counts


def _tests(
    cells: Sequence[Cell], variants: Sequence[VariantReport], looks: int, awaited: Mapping[int, int]
) -> list[Comparison]:
    pairs = [(own, ref) for own, ref in enumerate(_references(cells)) if ref != own]
    samples = [paired(variants[ref].values.values, variants[own].values.values) for own, ref in pairs]
    reasons = [
        _untested(sample, awaited[own] + awaited[ref]) for (own, ref), sample in zip(pairs, samples, strict=True)
    ]
    ps = [1.0 if why or sample is None else _NONE.p(sample) for sample, why in zip(samples, reasons, strict=True)]
    return [
        Comparison(own, ref, sample, corrected, why, *_more(sample, corrected, looks, why))
        for (own, ref), sample, corrected, why in zip(pairs, samples, holm(ps, level(looks)), reasons, strict=True)
    ]


def _untested(sample: Sample | None, awaited: int) -> str:
    """Why there is no test, or "". A test while runs are still training would be an additional look."""
    if awaited:
        return f"not tested until all runs have ended; unfinished: {awaited}"
    if sample is None:
        return "no seed that both have"
    return "one seed: no test" if sample.std is None else ""


def _more(sample: Sample | None, corrected: Corrected, looks: int, untested: str) -> tuple[int | None, float | None]:
    """The same number of seeds again, and the probability that they decide with the next look's share of alpha."""
    if sample is None or corrected.decides or (untested and sample.std is not None):
        return None, None
    share = corrected.alpha / level(looks)
    return sample.n, chance(_NONE, sample, 2 * sample.n, share * level(looks + 1))


def _references(cells: Sequence[Cell]) -> list[int]:
    """For each cell the first one that differs from it at most in the matrix's first field."""
    first: dict[str, int] = {}
    return [first.setdefault(_family(cell), position) for position, cell in enumerate(cells)]


def _family(cell: Cell) -> str:
    varied = next((path for path in cell.params if path != "task"), "")
    return repr([cell.spec.task, sorted((path, repr(value)) for path, value in cell.params.items() if path != varied)])


def _recorded(experiment: Experiment) -> list[str]:
    keys = Headline.objects.filter(run__experiment=experiment).values_list("key", flat=True).distinct()
    return [key for prefix in _LISTED for key in sorted(keys) if key.startswith(prefix)]


def _usual(ruled: Sequence[str], recorded: Sequence[str]) -> str:
    """The default series: the rule's own, else one of the test split, else the loss."""
    for name in (*ruled, *_USUAL, *recorded):
        if name in recorded:
            return name
    return ruled[0] if ruled else "loss/total"


def label_of(params: Mapping[str, Any]) -> str:
    """A short name of a variant: its parameters."""
    return ", ".join(_short(path, value) for path, value in params.items()) or "base spec"


def _short(path: str, value: Any) -> str:
    """`full` and `heads 4` instead of dotted paths; a mapping as its own fields."""
    name = path.rsplit(".", 1)[-1]
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_text(part)}" for key, part in flatten(value)) or f"{name} as it is"
    return _text(value) if isinstance(value, str) else f"{name} {_text(value)}"


def _text(value: Any) -> str:
    return "+".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)
