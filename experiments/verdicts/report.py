"""The report of an experiment: one series, variants × seeds, each variant against the first of its kind."""

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
    """A series that none of the experiment's runs has recorded, nor one of the usual."""


@dataclass(frozen=True)
class VariantReport:
    """One cell of the experiment: its values over seeds."""

    params: Mapping[str, Any]
    values: Values

    @property
    def label(self) -> str:
        """What tells it apart, as short as that goes."""
        return label_of(self.params)

    @property
    def sample(self) -> Sample | None:
        return self.values.sample

    @property
    def interval(self) -> tuple[float, float] | None:
        return plain_interval(self.sample)


@dataclass(frozen=True)
class Comparison:
    """Paired differences reference − variant over the seeds that both have, as verdicts write them (full − const_q);
    positions in `Report.variants`."""

    variant: int
    reference: int
    sample: Sample | None
    corrected: Corrected
    untested: str  # why there is no test; empty where there is one
    more_seeds: int | None  # as many again, where it is open
    chance: float | None  # that these decide

    @property
    def interval(self) -> tuple[float, float] | None:
        """At the level that Holm held it against; none where no spread was seen."""
        return self.sample.interval(self.corrected.alpha) if self.sample and self.sample.std else None

    @property
    def conclusion(self) -> str:
        """larger, smaller or inconclusive: of the variant, corrected; or untested."""
        if self.untested:
            return "untested"
        if self.sample is None or not self.corrected.decides:
            return "inconclusive"
        return "smaller" if self.sample.mean > 0 else "larger"


@dataclass(frozen=True)
class Report:
    """What `GET /experiments/{id}/report/` tells."""

    metric: str
    metrics: list[str]  # that its runs have recorded, without the gradients
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
        """What it would be, had no seeds been added."""
        return level(1)


def report(experiment: Experiment, reader: AnyUser, metric: str | None = None) -> tuple[Report, Pool]:
    """The report of one series, and the runs it stands on, which hold the series of the preset's rule as well.
    Raises UnknownMetric: before the first run has recorded anything, the rule's series and the usual ones are known."""
    rule = rules().get(experiment.preset)
    recorded = _recorded(experiment)
    if metric is not None:
        _check_metric(metric, experiment, [*(rule.metrics if rule else ()), *_USUAL])
    wanted = metric or _usual(rule.metrics if rule else (), recorded)
    pool = experiment_pool(experiment, reader, [wanted], rule)
    variants = [
        VariantReport(cell.params, pool.values_of(at, Term(metric=wanted))) for at, cell in enumerate(pool.cells)
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
    """How often somebody may have looked: once for each time that this experiment's seeds were chosen, and once for
    each other experiment that trained two or more of these variants, whose runs count here.

    The former is read off the order of its runs: they lie variant by variant, and what is added later begins with the
    first variant again.
    """
    variants = [repr(params) for params in experiment.runs.order_by("index").values_list("params", flat=True)]
    own = max(1, sum(one == variants[0] != before for before, one in zip(["", *variants], variants, strict=False)))
    cell_of = {spec_hash: at for (at, _), spec_hash in pool.hashes.items()}
    others: dict[int, set[int]] = {}
    rows = Run.objects.filter(pk__in=pool.runs.values()).exclude(experiment=experiment)
    for other, spec_hash in rows.values_list("experiment_id", "spec_hash"):
        others.setdefault(other, set()).add(cell_of[spec_hash])
    return own + sum(len(cells) > 1 for cells in others.values())


def _awaited(experiment: Experiment, pool: Pool) -> dict[int, int]:
    """Position of a cell → how many of its runs have not ended, nor has any that counts in their place."""
    on_their_way = set(experiment.runs.filter(finished=None).values_list("spec_hash", flat=True))
    found: dict[int, int] = {}
    for (at, _), spec_hash in pool.hashes.items():
        found[at] = found.get(at, 0) + (spec_hash in on_their_way and spec_hash not in pool.runs)
    return found


def _tests(
    cells: Sequence[Cell], variants: Sequence[VariantReport], looks: int, awaited: Mapping[int, int]
) -> list[Comparison]:
    pairs = [(at, ref) for at, ref in enumerate(_references(cells)) if ref != at]
    samples = [paired(variants[ref].values.values, variants[at].values.values) for at, ref in pairs]
    why_not = [_untested(found, awaited[at] + awaited[ref]) for (at, ref), found in zip(pairs, samples, strict=True)]
    ps = [1.0 if reason or found is None else _NONE.p(found) for found, reason in zip(samples, why_not, strict=True)]
    return [
        Comparison(at, ref, found, one, reason, *_more(found, one, looks, reason))
        for (at, ref), found, one, reason in zip(pairs, samples, holm(ps, level(looks)), why_not, strict=True)
    ]


def _untested(found: Sample | None, awaited: int) -> str:
    """Why nothing is tested. A test while seeds are still coming would be a look at each of them."""
    if awaited:
        return f"not tested before its runs have ended: {awaited} to come"
    if found is None:
        return "no seed that both have"
    return "one seed: no test" if found.std is None else ""


def _more(found: Sample | None, corrected: Corrected, looks: int, untested: str) -> tuple[int | None, float | None]:
    """As many seeds again, and how likely they decide at the next look's share of alpha."""
    if found is None or corrected.decides or (untested and found.std is not None):
        return None, None
    share = corrected.alpha / level(looks)
    return found.n, chance(_NONE, found, 2 * found.n, share * level(looks + 1))


def _references(cells: Sequence[Cell]) -> list[int]:
    """For each cell the first one that agrees with it in everything but the matrix's first field."""
    first: dict[str, int] = {}
    return [first.setdefault(_family(cell), at) for at, cell in enumerate(cells)]


def _family(cell: Cell) -> str:
    varied = next((path for path in cell.params if path != "task"), "")
    return repr([cell.spec.task, sorted((path, repr(value)) for path, value in cell.params.items() if path != varied)])


def _recorded(experiment: Experiment) -> list[str]:
    keys = Headline.objects.filter(run__experiment=experiment).values_list("key", flat=True).distinct()
    return [key for prefix in _LISTED for key in sorted(keys) if key.startswith(prefix)]


def _usual(ruled: Sequence[str], recorded: Sequence[str]) -> str:
    """What one most likely wants to see: the rule's own series, else a final, else the loss."""
    for name in (*ruled, *_USUAL, *recorded):
        if name in recorded:
            return name
    return ruled[0] if ruled else "loss/total"


def label_of(params: Mapping[str, Any]) -> str:
    """What tells a variant apart, as short as that goes."""
    return ", ".join(_short(path, value) for path, value in params.items()) or "as it stands"


def _short(path: str, value: Any) -> str:
    """`full` and `heads 4` rather than dotted paths; a mapping as its own fields."""
    name = path.rsplit(".", 1)[-1]
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_text(part)}" for key, part in flatten(value)) or f"{name} as it is"
    return _text(value) if isinstance(value, str) else f"{name} {_text(value)}"


def _text(value: Any) -> str:
    return "+".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)
