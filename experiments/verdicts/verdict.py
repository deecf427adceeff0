"""The verdict of a preset, and of an experiment made from one: computed from runs whenever it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.models import Experiment, Run
from experiments.models.definitions import AnyUser
from experiments.models.runs import RunQuerySet
from experiments.spec import Spec, SpecError, parse_spec
from experiments.submissions.presets import presets

from .cells import Cell, cells_of, preset_cells
from .judge import Verdict, judge
from .keys import Choice
from .rules import Rule, rules
from .samples import Measured, Pool, candidates, choice_of, gather, measured, pool_of


@dataclass(frozen=True)
class Judged:
    """A verdict and the pool of runs that it was computed from."""

    verdict: Verdict
    pool: Pool


def preset_verdict(name: str, reader: AnyUser) -> Judged | None:
    """From all runs that the reader may see whose spec is one of the preset's, at the seeds that its rule fixed;
    None where no rule stands."""
    rule = rules().get(name)
    return _judged([rule], reader)[name] if rule else None


def all_verdicts(reader: AnyUser) -> dict[str, Verdict]:
    """The verdict of every preset that has a rule, in as many queries as one of them takes."""
    known = [rule for name, rule in rules().items() if name in presets()]
    return {name: one.verdict for name, one in _judged(known, reader).items()}


def _judged(known: Sequence[Rule], reader: AnyUser) -> dict[str, Judged]:
    hashes = {cell.hash_at(seed) for rule in known for cell in preset_cells(rule.preset) for seed in rule.candidates}
    found = candidates(hashes, Run.objects.visible_to(reader))
    choices = {rule.preset: choice_of(preset_cells(rule.preset), rule.candidates, found) for rule in known}
    runs = {run for one in choices.values() for run in one.runs.values()}
    metrics = {name for rule in known for name in rule.metrics}
    values = measured(runs, metrics, {one for rule in known for one in rule.crossings})
    return {rule.preset: _judge(rule, choices[rule.preset], values) for rule in known}


def _judge(rule: Rule, choice: Choice, values: Measured) -> Judged:
    cells = preset_cells(rule.preset)
    begun = [seed for seed in rule.further_seeds if any(cell.hash_at(seed) in choice.runs for cell in cells)]
    pool = pool_of(cells, [*rule.test_seeds, *begun], choice, values)
    return Judged(judge(rule, pool.of(rule), pool.seeds), pool)


def experiment_cells(experiment: Experiment) -> list[Cell]:
    """The different specs of its runs, apart from the seed, in order."""
    rows = experiment.runs.order_by("index").values_list("params", "spec", "seed")
    first: dict[str, tuple[dict[str, object], dict[str, object]]] = {}
    for params, spec, _ in rows:
        first.setdefault(repr({**spec, "seed": 0}), (params, spec))
    return cells_of((params, parsed) for params, spec in first.values() if (parsed := _parsed(spec)) is not None)


def _parsed(spec: dict[str, object]) -> Spec | None:
    """None of a spec from an earlier version that today's bounds refuse: its hash would mean nothing."""
    try:
        return parse_spec(spec, stored=True)
    except SpecError:
        return None


def experiment_pool(experiment: Experiment, reader: AnyUser, metrics: list[str], rule: Rule | None = None) -> Pool:
    """The experiment's cells at its own seeds, in the order in which it got them; runs of others with the same hash
    count too. The pool holds these series, and those of the rule."""
    own = set(experiment.runs.values_list("pk", flat=True))
    visible = Run.objects.visible_to(reader)
    cells = _whole(experiment, experiment_cells(experiment), visible, own)
    wanted = [*metrics, *(rule.metrics if rule else ())]
    return gather(cells, experiment.seeds, wanted, visible, prefer=own, crossings=rule.crossings if rule else ())


def _whole(experiment: Experiment, own: list[Cell], visible: RunQuerySet, runs: set[int]) -> list[Cell]:
    """The preset's cells, where this experiment trained some of them and others have trained all the rest at its seeds
    with the same key (as `make verdicts` shares runs among presets); else its own."""
    every = preset_cells(experiment.preset) if experiment.preset in rules() else []
    if not {cell.hash_at(0) for cell in own} < {cell.hash_at(0) for cell in every}:
        return own
    hashes = {cell.hash_at(seed) for cell in every for seed in experiment.seeds}
    choice = choice_of(every, experiment.seeds, candidates(hashes, visible), runs)
    return every if choice.runs.keys() == hashes else own


def rule_of(experiment: Experiment) -> Rule | None:
    return rules().get(experiment.preset)


def own_verdict(experiment: Experiment, pool: Pool) -> tuple[Verdict | None, list[str]]:
    """The verdict of its preset from the experiment's own seeds, and the fields in which it trained something else
    than the preset's variants. No verdict where no rule stands, or where there are such fields."""
    rule, departs_in = rule_of(experiment), departures(experiment, pool)
    verdict = None if rule is None or departs_in else judge(rule, pool.of(rule), experiment.seeds)
    return verdict, departs_in


def departures(experiment: Experiment, pool: Pool) -> list[str]:
    """In which fields a variant of the experiment is none of its preset's: of the first such, against the nearest."""
    every = preset_cells(experiment.preset) if experiment.preset in rules() else []
    known = {cell.hash_at(0) for cell in every}
    strange = next((cell for cell in pool.cells if every and cell.hash_at(0) not in known), None)
    return min((_differing(strange, cell) for cell in every), key=len) if strange else []


def _differing(one: Cell, other: Cell) -> list[str]:
    paths = dict.fromkeys([*one.leaves, *other.leaves])
    return [path for path in paths if one.leaves.get(path, ...) != other.leaves.get(path, ...)]
