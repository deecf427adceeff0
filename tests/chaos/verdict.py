"""Judges every accepted run against an undisturbed run of the same spec. Returns violations."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Outcome:
    """Counts for the table, and violations as texts."""

    runs: int = 0
    attempts: int = 0
    points: int = 0
    series: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def violate(self, kind: str, words: str) -> None:
        self.counts[kind] += 1
        self.violations.append(f"{kind}: {words}")


KINDS = ("lost", "finished twice", "wrong points", "wrong weights", "wrong files", "fences", "orphans", "errors")


def judge(accepted: dict[int, int], references: dict[int, int]) -> Outcome:
    """`accepted` maps run → kind of spec, `references` kind → undisturbed run."""
    from experiments.models import Experiment, Run

    outcome = Outcome()
    stranger = Run.objects.exclude(pk__in=[*accepted, *references.values()]).count()
    if stranger or Experiment.objects.count() != len(accepted) + len(references):
        outcome.violate("finished twice", f"{stranger} runs that nobody was told of: a submission was doubled")
    for kind, run_id in references.items():
        _judge_reference(outcome, kind, run_id)
    for run_id, kind in accepted.items():
        run = Run.objects.filter(pk=run_id).first()
        if run is None:
            outcome.violate("lost", f"run {run_id} was accepted and is not there")
            continue
        outcome.runs += 1
        _judge(outcome, run, Run.objects.get(pk=references[kind]))
    return outcome


def _judge_reference(outcome: Outcome, kind: int, run_id: int) -> None:
    from experiments.models import Run

    run = Run.objects.get(pk=run_id)
    if run.fence != 1 or run.state != "succeeded":
        outcome.violate("lost", f"the undisturbed run of spec {kind} is {run.state} after {run.fence} attempts")


def _judge(outcome: Outcome, run: Any, reference: Any) -> None:
    if run.state != "succeeded":
        return outcome.violate("lost", f"run {run.pk} is {run.state} ({run.reason}) {run.detail[-300:]}")
    ends = run.events.filter(to_state__in=("succeeded", "failed", "cancelled")).count()
    if ends != 1:
        outcome.violate("finished twice", f"run {run.pk} has ended {ends} times")
    fences = list(run.attempts.order_by("claimed", "pk").values_list("fence", flat=True))
    outcome.attempts += len(fences)
    if fences != sorted(set(fences)) or fences[-1] != run.fence:
        outcome.violate("fences", f"run {run.pk}: {fences}, the run has {run.fence}")
    _same_series(outcome, run, reference)
    _same_weights(outcome, run, reference)
    return _same_files(outcome, run, reference)


def series_of(run: Any) -> dict[str, Any]:
    """Every stored point of all series but those of times and of the machine's load."""
    from experiments import store

    series = [each for each in store.read([run.pk], ["**"], max_points=10**6) if each.group != "system"]
    assert all(each.exact for each in series)
    return {f"{each.group} {each.name}": each for each in series if not each.name.startswith("time/")}


def _same_series(outcome: Outcome, run: Any, reference: Any) -> None:
    mine, other = series_of(run), series_of(reference)
    if mine.keys() != other.keys():
        outcome.violate("wrong points", f"run {run.pk}: series {sorted(mine.keys() ^ other.keys())} in one only")
    for name in mine.keys() & other.keys():
        steps, values = mine[name].steps, np.asarray(mine[name].values)
        outcome.series += 1
        outcome.points += len(steps)
        if name.startswith("train ") and steps.tolist() != list(range(run.steps)):
            outcome.violate("wrong points", f"run {run.pk} {name}: not one point a step")
        elif not np.array_equal(steps, other[name].steps):
            outcome.violate("wrong points", f"run {run.pk} {name}: other steps than undisturbed")
        elif values.tobytes() != np.asarray(other[name].values).tobytes():
            first = int(np.flatnonzero(values != np.asarray(other[name].values))[0])
            outcome.violate("wrong points", f"run {run.pk} {name}: other values from step {steps[first]} on")


def _same_weights(outcome: Outcome, run: Any, reference: Any) -> None:
    """The last checkpoint's bytes: weights, optimizer and random state."""
    last = [_digest(each.checkpoints.filter(step=each.steps).first()) for each in (run, reference)]
    if last[0] is None or last[0] != last[1]:
        outcome.violate("wrong weights", f"run {run.pk}: the last checkpoint is {last[0]}, undisturbed {last[1]}")


def _digest(checkpoint: Any) -> str | None:
    """Of the stored file, which must be the one that the row tells of."""
    from django.core.files.storage import default_storage

    if checkpoint is None or not default_storage.exists(checkpoint.path):
        return None
    with default_storage.open(checkpoint.path) as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return digest if digest == checkpoint.sha256 else "damaged"


def _same_files(outcome: Outcome, run: Any, reference: Any) -> None:
    from django.core.files.storage import default_storage

    named = [sorted(each.artifacts.values_list("kind", "name", "step")) for each in (run, reference)]
    if named[0] != named[1]:
        outcome.violate("wrong files", f"run {run.pk} has {len(named[0])} files, undisturbed {len(named[1])}")
    gone = [path for path in run.artifacts.values_list("path", flat=True) if not default_storage.exists(path)]
    if gone:
        outcome.violate("wrong files", f"run {run.pk}: {gone[:3]} are named and not there")
