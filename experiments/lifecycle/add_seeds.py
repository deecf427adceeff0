"""Add seeds to an experiment: its definition is unchanged, its seeds and runs grow."""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models import Max

from experiments.models import Experiment, Run
from experiments.spec import SpecError, content_hash, parse_spec, resolved

from .moves import NotAllowed
from .user_actions import add_runs


class TooManyRuns(ValueError):
    """More runs than one experiment may have."""


def append_seeds(
    experiment_id: int, seeds: Sequence[int], user: AbstractBaseUser | None, *, max_runs: int
) -> list[Run]:
    """Submit one run of every variant for each new seed. Returns the new runs. Raises TooManyRuns, and NotAllowed if
    this version does not accept a stored spec."""
    with transaction.atomic():
        experiment = Experiment.objects.select_for_update().get(pk=experiment_id)
        new = [seed for seed in dict.fromkeys(seeds) if seed not in experiment.seeds]
        variants = _variants(experiment)
        total = experiment.runs.count() + len(variants) * len(new)
        if new and total > max_runs:
            raise TooManyRuns(f"would make {total:,} runs; at most {max_runs:,} are allowed in one experiment")
        experiment.seeds = [*experiment.seeds, *new]
        experiment.save(update_fields=["seeds"])
        last = experiment.runs.aggregate(last=Max("index"))["last"]
        cells = [_with_seed(variant, seed) for variant in variants for seed in new]
        for index, run in enumerate(cells, start=last + 1):
            run.index = index
        return add_runs(cells, user, message="a seed was added to the experiment")


def _variants(experiment: Experiment) -> list[Run]:
    """The first run of each variant, in order."""
    variants: dict[str, Run] = {}
    for run in experiment.runs.order_by("index").only("params", "spec", "steps", "pool", "priority", "project_id"):
        variants.setdefault(repr({**run.spec, "seed": None}), run)
    return list(variants.values())


def _with_seed(variant: Run, seed: int) -> Run:
    try:
        spec = parse_spec(variant.spec, stored=True).model_copy(update={"seed": seed})
    except SpecError as error:
        raise NotAllowed(f"this version does not accept the spec of run {variant.pk}: {error}") from None
    return Run(
        experiment_id=variant.experiment_id,
        project_id=variant.project_id,
        seed=seed,
        params=variant.params,
        spec=resolved(spec),
        spec_hash=content_hash(spec),
        steps=variant.steps,
        pool=variant.pool,
        priority=variant.priority,
    )
