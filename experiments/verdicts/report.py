"""The report of an experiment: one series, variants × seeds, each variant against the first of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.models import Experiment, Headline
from experiments.models.definitions import AnyUser
from experiments.spec import flatten

from .cells import Cell
from .evidence import Pool
from .judge import Values, plain_interval
from .rules import rules
from .statistics import Corrected, Question, Sample, differences, holm, sample
from .verdict import experiment_pool

_USUAL = ("test/accuracy", "test/prompt_iou", "eval/accuracy", "eval/prompt_iou", "eval/loss", "loss/total")
_LISTED = ("test/", "eval/", "loss/")


@dataclass(frozen=True)
class Variant:
    """One cell of the experiment: its values over seeds."""

    params: Mapping[str, Any]
    values: Values

    @property
    def label(self) -> str:
        """What tells it apart, as short as that goes."""
        return label_of(self.params)

    @property
    def found(self) -> Sample | None:
        return self.values.sample

    @property
    def interval(self) -> tuple[float, float] | None:
        return plain_interval(self.found)


@dataclass(frozen=True)
class Comparison:
    """Paired differences variant − reference over the seeds that both have; positions in `Report.variants`."""

    variant: int
    reference: int
    found: Sample | None
    corrected: Corrected
    more_seeds: int | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """At the level that Holm held it against."""
        return self.found.interval(self.corrected.alpha) if self.found else None

    @property
    def conclusion(self) -> str:
        """larger, smaller, or inconclusive: of the variant, corrected."""
        if self.found is None or not self.corrected.decides:
            return "inconclusive"
        return "larger" if self.found.mean > 0 else "smaller"


@dataclass(frozen=True)
class Report:
    """What `GET /experiments/{id}/report/` tells."""

    metric: str
    metrics: list[str]  # that its runs have recorded, without the gradients
    seeds: Sequence[int]
    variants: list[Variant]
    tests: list[Comparison]


def report(experiment: Experiment, reader: AnyUser, metric: str | None = None) -> tuple[Report, Pool]:
    """The report of one series, and the runs it stands on, which hold the series of the preset's rule as well."""
    rule = rules().get(experiment.preset)
    recorded = _recorded(experiment)
    wanted = metric or _usual(rule.metrics if rule else (), recorded)
    pool = experiment_pool(experiment, reader, [wanted, *(rule.metrics if rule else ())])
    variants = [Variant(cell.params, pool.values_of(at, [wanted])) for at, cell in enumerate(pool.cells)]
    return Report(wanted, recorded, pool.seeds, variants, _tests(pool.cells, variants)), pool


def _tests(cells: Sequence[Cell], variants: Sequence[Variant]) -> list[Comparison]:
    pairs = [(at, ref) for at, ref in enumerate(_references(cells)) if ref != at]
    samples = [sample(differences(variants[at].values.values, variants[ref].values.values)) for at, ref in pairs]
    question = Question(0.0)
    corrected = holm([question.p(found) if found else 1.0 for found in samples])
    return [
        Comparison(at, ref, found, one, _more(question, found, one))
        for (at, ref), found, one in zip(pairs, samples, corrected, strict=True)
    ]


def _more(question: Question, found: Sample | None, corrected: Corrected) -> int | None:
    if found is None or corrected.decides:
        return None
    needed = question.seeds_needed(found, corrected.alpha)
    return None if needed is None else max(1, needed - found.n)


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
