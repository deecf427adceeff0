"""The runs that all verdicts need: what is not trained yet is submitted once per distinct spec."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from django.contrib.auth.models import AbstractBaseUser
from django.db.models import Count

from experiments.lifecycle import submit
from experiments.models import Project, Run
from experiments.states import ENDED
from experiments.submissions.presets import presets
from experiments.submissions.submission import Plan, plan

from .keys import choose
from .rules import rules
from .today import todays

QUICK_SEEDS = 3
QUICK_TASKS = ("pointer", "roles")


@dataclass(frozen=True)
class Progress:
    """Numbers of distinct specs: wanted, succeeded with today's key, and failed; all others are queued or running."""

    wanted: int
    succeeded: int
    failed: int

    @property
    def done(self) -> bool:
        return self.succeeded + self.failed >= self.wanted


@dataclass(frozen=True)
class Campaign:
    """The specs of all verdicts, by hash."""

    plans: list[Plan]

    @property
    def hashes(self) -> set[str]:
        return {run.spec_hash for planned in self.plans for run in planned.runs}

    def submit_missing(self, project: Project, user: AbstractBaseUser | None) -> int:
        """Submit what is neither queued nor trained by today's code and torch, preset by preset; a spec of two presets
        only once. Failed runs are tried again. Returns the number of new runs."""
        existing, count = _trained(self.hashes) | _alive(self.hashes), 0
        for planned in self.plans:
            new = {run.spec_hash: run for run in planned.runs if run.spec_hash not in existing}
            if new:
                submit(dataclasses.replace(planned, runs=list(new.values())), project=project, user=user)
            existing |= set(new)
            count += len(new)
        return count

    def progress(self) -> Progress:
        hashes = self.hashes
        succeeded, alive = _trained(hashes), _alive(hashes)
        return Progress(len(hashes), len(succeeded), len(hashes - succeeded - alive))


def campaign(quick: bool) -> Campaign:
    """Every preset that has a rule, small tasks first. `quick`: three seeds, lookups only."""
    return Campaign(sorted(_plans(quick), key=lambda planned: planned.spec.task not in QUICK_TASKS))


def _plans(quick: bool) -> Iterator[Plan]:
    for name, preset in presets().items():
        if name not in rules():
            continue
        seeds = preset.seeds[:QUICK_SEEDS] if quick else preset.seeds
        body = {"name": preset.title.en, "preset": name, "seeds": seeds, "tags": ["verdicts"]}
        planned = plan(body, max_runs=10_000)
        runs = [run for run in planned.runs if not quick or run.spec.task in QUICK_TASKS]
        if runs:
            yield dataclasses.replace(planned, runs=runs)


def _trained(hashes: Collection[str]) -> set[str]:
    """The specs with a run of this revision and torch, all on one kind of device, since verdicts pool no others."""
    return set(choose(dict.fromkeys(hashes, ""), todays(hashes, Run.objects.all())).runs)


def _alive(hashes: Collection[str]) -> set[str]:
    alive = Run.objects.filter(spec_hash__in=hashes, parent_step=None).exclude(state__in=ENDED).order_by()
    return {spec_hash for spec_hash, _ in alive.values_list("spec_hash").annotate(n=Count("pk"))}
