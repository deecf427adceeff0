"""The verdict of a preset, and of an experiment made from one: computed from runs whenever it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from experiments import store
from experiments.models import Experiment, Run
from experiments.models.definitions import AnyUser
from experiments.models.runs import RunQuerySet
from experiments.presets import presets
from experiments.spec import Spec, SpecError, parse_spec

from .cells import Cell, cells_of, preset_cells
from .evidence import Pool, candidates, choice_of, gather, pool_of
from .judge import Verdict, judge
from .rules import Rule, rules


@dataclass(frozen=True)
class Judged:
    """A verdict and the pool of runs that it was computed from."""

    verdict: Verdict
    pool: Pool


def preset_verdict(name: str, reader: AnyUser) -> Judged | None:
    """From all runs that the reader may see whose spec is one of the preset's; None where no rule stands."""
    rule, preset = rules().get(name), presets().get(name)
    if rule is None:
        return None
    seeds = set(preset.seeds if preset else ())
    for more in Experiment.objects.visible_to(reader).filter(preset=name).values_list("seeds", flat=True):
        seeds.update(more)
    pool = gather(preset_cells(name), seeds, rule.metrics, Run.objects.visible_to(reader))
    return Judged(judge(rule, pool.of(rule)), pool)


def all_verdicts(reader: AnyUser) -> dict[str, Verdict]:
    """The verdict of every preset that has a rule, in as many queries as one of them takes."""
    known = [rule for name, rule in rules().items() if name in presets()]
    seeds = {rule.preset: set(presets()[rule.preset].seeds) for rule in known}
    for name, more in Experiment.objects.visible_to(reader).filter(preset__in=seeds).values_list("preset", "seeds"):
        seeds[name].update(more)
    every = [(cell, seed) for name, mine in seeds.items() for cell in preset_cells(name) for seed in mine]
    metrics = {metric for rule in known for metric in rule.metrics}
    found = candidates({cell.hash_at(seed) for cell, seed in every}, Run.objects.visible_to(reader))
    choices = {rule.preset: choice_of(preset_cells(rule.preset), seeds[rule.preset], found) for rule in known}
    values = store.last_values(sorted({run for one in choices.values() for run in one.runs.values()}), metrics)
    pools = {name: pool_of(preset_cells(name), seeds[name], choice, values) for name, choice in choices.items()}
    return {rule.preset: judge(rule, pools[rule.preset].of(rule)) for rule in known}


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


def experiment_pool(experiment: Experiment, reader: AnyUser, metrics: list[str]) -> Pool:
    """The experiment's cells at its own seeds; runs of others with the same hash count too."""
    own = set(experiment.runs.values_list("pk", flat=True))
    visible = Run.objects.visible_to(reader)
    cells = _whole(experiment, experiment_cells(experiment), visible, own)
    return gather(cells, experiment.seeds, metrics, visible, prefer=own)


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
