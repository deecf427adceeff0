"""The verdict of a preset, or of an experiment made from one, computed from runs on request."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from experiments.models import Experiment, Run
from experiments.models.definitions import AnyUser
from experiments.models.runs import RunQuerySet
from experiments.spec import Spec, SpecError, parse_spec
from experiments.submissions.presets import presets

from .cells import Cell, cells_of, preset_cells
from .judge import Verdict, judge
from .keys import Choice
from .rules import Rule, rules
from .samples import Pool, RunValues, candidates, choice_of, gather, measured, pool_of


@dataclass(frozen=True)
class Judged:
    """A verdict and the pool of runs that it was computed from."""

    verdict: Verdict
    pool: Pool


def preset_verdict(name: str, reader: AnyUser) -> Judged | None:
    """From all runs with the preset's specs that the reader may see, at the seeds that its rule fixed; None without a
    rule."""
    rule = rules().get(name)
    return _judged([rule], reader)[name] if rule else None


def all_verdicts(reader: AnyUser) -> dict[str, Verdict]:
    """The verdicts of all presets that have a rule, in as many queries as one of them costs."""
    known = [rule for name, rule in rules().items() if name in presets()]
    return {name: judged.verdict for name, judged in _judged(known, reader).items()}


def _judged(known: Sequence[Rule], reader: AnyUser) -> dict[str, Judged]:
    hashes = {spec_hash for rule in known for spec_hash in _hashes(preset_cells(rule.preset), rule.candidates)}
    succeeded = candidates(hashes, Run.objects.visible_to(reader))
    choices = {rule.preset: choice_of(preset_cells(rule.preset), rule.candidates, succeeded) for rule in known}
    runs = {run for choice in choices.values() for run in choice.runs.values()}
    metrics, crossings = chain(*(rule.metrics for rule in known)), chain(*(rule.crossings for rule in known))
    values = measured(runs, set(metrics), set(crossings))
    return {rule.preset: _judge(rule, choices[rule.preset], values) for rule in known}


def _hashes(cells: Iterable[Cell], seeds: Collection[int]) -> set[str]:
    return {cell.hash_at(seed) for cell in cells for seed in seeds}


def _judge(rule: Rule, choice: Choice, values: RunValues) -> Judged:
    cells = preset_cells(rule.preset)
    started = [seed for seed in rule.further_seeds if any(cell.hash_at(seed) in choice.runs for cell in cells)]
    pool = pool_of(cells, [*rule.test_seeds, *started], choice, values)
    return Judged(judge(rule, pool.of(rule), pool.seeds), pool)


def experiment_cells(experiment: Experiment) -> list[Cell]:
    """The distinct specs of its runs, apart from the seed, in order."""
    rows = experiment.runs.order_by("index").values_list("params", "spec", "seed")
    first: dict[str, tuple[dict[str, object], dict[str, object]]] = {}
    for params, spec, _ in rows:
        first.setdefault(repr({**spec, "seed": 0}), (params, spec))
    return cells_of((params, parsed) for params, spec in first.values() if (parsed := _parsed(spec)) is not None)


def _parsed(spec: dict[str, object]) -> Spec | None:
    """None for a spec of an older version that today's bounds refuse, since it has no hash."""
    try:
        return parse_spec(spec, stored=True)
    except SpecError:
        return None


def experiment_pool(experiment: Experiment, reader: AnyUser, metrics: list[str], rule: Rule | None = None) -> Pool:
    """The experiment's cells at its own seeds, in the order in which they were added; runs of other experiments with
    the same hash count too. The pool holds these series and those of the rule."""
    own = set(experiment.runs.values_list("pk", flat=True))
    visible = Run.objects.visible_to(reader)
    cells = _whole(experiment, experiment_cells(experiment), visible, own)
    wanted = [*metrics, *(rule.metrics if rule else ())]
    return gather(cells, experiment.seeds, wanted, visible, prefer=own, crossings=rule.crossings if rule else ())


def _whole(experiment: Experiment, own: list[Cell], visible: RunQuerySet, runs: set[int]) -> list[Cell]:
    """The preset's cells, where this experiment trained some of them and other experiments all the rest, at its seeds
    and with the same key (since `make verdicts` shares runs among presets); else its own."""
    every = preset_cells(experiment.preset) if experiment.preset in rules() else []
    if not _hashes(own, [0]) < _hashes(every, [0]):
        return own
    hashes = _hashes(every, experiment.seeds)
    choice = choice_of(every, experiment.seeds, candidates(hashes, visible), runs)
    return every if choice.runs.keys() == hashes else own


def rule_of(experiment: Experiment) -> Rule | None:
    return rules().get(experiment.preset)


def own_verdict(experiment: Experiment, pool: Pool) -> tuple[Verdict | None, list[str]]:
    """The verdict of its preset from the experiment's own seeds, and the fields in which it differs from the preset's
    variants. No verdict without a rule, or where there are such fields."""
    rule, departs_in = rule_of(experiment), departures(experiment, pool)
    verdict = None if rule is None or departs_in else judge(rule, pool.of(rule), experiment.seeds)
    return verdict, departs_in


def departures(experiment: Experiment, pool: Pool) -> list[str]:
    """The fields in which the first variant that is not the preset's differs from the preset's most similar one."""
    every = preset_cells(experiment.preset) if experiment.preset in rules() else []
    known = _hashes(every, [0])
    foreign = next((cell for cell in pool.cells if every and cell.hash_at(0) not in known), None)
    return min((_differing(foreign, cell) for cell in every), key=len) if foreign else []


def _differing(cell: Cell, other: Cell) -> list[str]:
    paths = dict.fromkeys([*cell.leaves, *other.leaves])
    return [path for path in paths if cell.leaves.get(path, ...) != other.leaves.get(path, ...)]
