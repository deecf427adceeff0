"""Invariants of a simulated day, checked from the rows alone after every event."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from django.conf import settings
from django.db.models import Sum

from experiments import store
from experiments.models import Attempt, Event, Group, Run
from experiments.states import ENDED, HELD, MOVES, Actor, State


@dataclass
class RunHistory:
    """A run's state according to its events so far."""

    state: str = ""
    fence: int = 0
    crashes: int = 0
    since: float = 0.0  # when it came into the queue


@dataclass
class Monitor:
    """Call `look` after every event. `violations` are texts with the virtual second."""

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    histories: dict[int, RunHistory] = field(default_factory=dict)
    longest_wait: float = 0.0
    checks: int = 0
    _last_event: int = 0

    def look(self, now: float, touched: int | None = None) -> None:
        """Read events since the last call, then check every run that they are about."""
        runs = {touched} if touched else set()
        for event in Event.objects.filter(pk__gt=self._last_event).order_by("pk"):
            self._last_event = event.pk
            runs.add(event.run_id)
            self._read_event(now, event)
        for row in Run.objects.filter(pk__in=runs).defer("spec", "params"):
            self.checks += 1
            self._check(now, row)

    def violate(self, now: float, words: str) -> None:
        self.violations.append(f"{now:.0f} s: {words}")

    def saved(self, run: int) -> None:
        """A checkpoint was published: the crash count is reset."""
        self.histories[run].crashes = 0

    def _read_event(self, now: float, event: Event) -> None:
        history = self.histories.setdefault(event.run_id, RunHistory())
        if event.kind == "submitted":
            history.state, history.since = event.to_state, now
            return
        if event.fence < history.fence:
            self.violate(now, f"run {event.run_id}: fence {history.fence} → {event.fence}")
        history.fence = max(history.fence, event.fence)
        if not event.to_state:
            return
        if event.from_state != history.state:
            self.violate(now, f"run {event.run_id}: from {event.from_state}, but it was {history.state}")
        if (event.from_state, event.to_state, event.actor) not in MOVES:
            self.violate(now, f"run {event.run_id}: {event.actor} moved {event.from_state} → {event.to_state}")
        self._note(now, event, history)

    def _note(self, now: float, event: Event, history: RunHistory) -> None:
        self.counts["taken back"] += event.actor == Actor.RECONCILER
        history.state = event.to_state
        match event.to_state, event.actor:
            case State.CLAIMED, _:
                self.longest_wait = max(self.longest_wait, now - history.since)
            case State.QUEUED, Actor.USER:
                history.since, history.crashes = now, 0
            case State.QUEUED, _:
                history.since = now
                history.crashes += event.message != "preempted"
            case State.FAILED, _:
                history.crashes += 1

    def _check(self, now: float, run: Run) -> None:
        history = self.histories[run.pk]
        if (run.state, run.fence) != (history.state, history.fence):
            self.violate(now, f"run {run.pk} is {run.state} with fence {run.fence}; its history says {history}")
        if run.crash_count != history.crashes:
            self.violate(now, f"run {run.pk} counts {run.crash_count} crashes, its history {history.crashes}")
        if (run.state == State.FAILED) != (run.crash_count >= settings.ATTN_CRASH_LIMIT):
            self.violate(now, f"run {run.pk} is {run.state} after {run.crash_count} crashes in a row")
        if not 0 <= run.checkpoint_step <= run.committed_step <= run.steps:
            self.violate(now, f"run {run.pk}: checkpoint {run.checkpoint_step}, committed {run.committed_step}")
        self._one_holder(now, run)
        self._each_step_once(now, run)

    def _one_holder(self, now: float, run: Run) -> None:
        open_now = list(Attempt.objects.filter(run=run, ended=None).order_by("fence").values_list("fence", flat=True))
        if open_now != ([run.fence] if run.state in HELD else []):
            self.violate(now, f"run {run.pk} is {run.state} with fence {run.fence}; open attempts: {open_now}")
        if (run.state in HELD) != (run.lease_until is not None and run.worker_id is not None):
            self.violate(now, f"run {run.pk} is {run.state}; lease {run.lease_until}, worker {run.worker_id}")

    def _each_step_once(self, now: float, run: Run) -> None:
        """By the count of rows; by every point once the run has ended."""
        rows = Group.objects.filter(run=run).aggregate(rows=Sum("rows"))["rows"] or 0
        if rows != run.committed_step and run.state != State.QUEUED:  # the next claim truncates
            self.violate(now, f"run {run.pk}: {rows} rows for {run.committed_step} steps")
        if run.state in ENDED:
            for series in store.read([run.pk], ["loss/*"], max_points=10**6):
                if series.steps.tolist() != list(range(run.committed_step)):
                    self.violate(now, f"run {run.pk}: a step is missing or twice")

    def close(self, now: float) -> None:
        """At the end: all runs have ended, each success once, and fences of attempts rise."""
        for run in Run.objects.defer("spec"):
            self._check(now, run)
            if run.state not in ENDED:
                self.violate(now, f"run {run.pk} is still {run.state}")
            fences = list(run.attempts.order_by("pk").values_list("fence", flat=True))
            if fences != sorted(set(fences)):
                self.violate(now, f"run {run.pk}: attempts {fences}")
            wins = run.events.filter(to_state=State.SUCCEEDED).count()
            if wins != (run.state == State.SUCCEEDED) or (wins and run.committed_step != run.steps):
                self.violate(now, f"run {run.pk} is {run.state} at {run.committed_step}; it succeeded {wins} times")
