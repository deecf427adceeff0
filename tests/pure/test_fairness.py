"""Who is next, and a day of fifty workers and ten thousand runs in virtual time: shared, bounded, nobody starves."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque

from experiments.queue.fair_share import Candidate, Load, best

WORKERS, RUNS = 50, 10_000


def candidate(
    run: int, *, project: int = 1, owner: int = 1, priority: int = 0, overdue: int | None = None
) -> Candidate:
    return Candidate(run, project, owner, priority, run, overdue)


def chosen(*candidates: Candidate, load: Load | None = None) -> int | None:
    pick = best(candidates, load or Load())
    return pick and pick[1]


def test_priority_comes_before_shares_and_shares_before_age() -> None:
    load = Load()
    load.use(1, 1, 1000)
    assert chosen(candidate(1, priority=0, project=2), candidate(2, priority=5), load=load) == 2
    assert chosen(candidate(1), candidate(2, project=2, owner=2), load=load) == 2
    assert chosen(candidate(2, project=2), candidate(1, project=3)) == 1


def test_within_a_project_the_user_who_has_used_least_is_next() -> None:
    load = Load()
    load.use(1, 1, 1000)
    assert chosen(candidate(1, owner=1), candidate(2, owner=2), load=load) == 2


def test_a_project_at_its_limit_is_passed_over() -> None:
    load = Load(limits={1: 1})
    load.take(1, 1)
    assert chosen(candidate(1), load=load) is None
    assert chosen(candidate(1, priority=9), candidate(2, project=2), load=load) == 2


def test_what_has_waited_for_too_long_counts_as_urgent() -> None:
    load = Load()
    load.use(2, 2, 500)
    late = candidate(9, project=1, priority=1, overdue=3)
    assert chosen(late, candidate(2, project=2, owner=2, priority=100), load=load) == 3


class Simulation:
    """Three projects of unequal appetite, five users, one of them with an endless stream of urgent runs."""

    patience_s = 6 * 3600.0

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        self.load = Load(limits={3: 10})
        self.queues: dict[tuple[int, int, int], deque[tuple[int, float]]] = {}
        self.seconds = [draw.uniform(60, 600) for _ in range(RUNS)]
        self.arrivals = deque(sorted((self._arrival(draw, run), run) for run in range(RUNS)))
        self.who = [self._who(run) for run in range(RUNS)]
        self.waited: dict[int, float] = {}
        self.most: Counter[int] = Counter()
        self.served: Counter[int] = Counter()

    def _who(self, run: int) -> tuple[int, int, int]:
        """(project, user, priority): two of three runs are the first project's, and most of them urgent."""
        project, owner = [(1, 1), (1, 1), (1, 2), (1, 1), (2, 3), (3, 4), (1, 1), (1, 1), (2, 5)][run % 9]
        return project, owner, 5 if owner == 1 and run % 5 else 0

    def _arrival(self, draw: random.Random, run: int) -> float:
        return 0.0 if run % 9 in (1, 3) else draw.uniform(0, 8 * 3600)

    def run(self) -> None:
        now, busy = 0.0, [(0.0, worker, -1) for worker in range(WORKERS)]
        while len(self.waited) < RUNS:
            now, worker, done = heapq.heappop(busy)
            if done >= 0:
                self.load.running[self.who[done][0]] -= 1
            self._arrive(now)
            taken = self._claim(now)
            heapq.heappush(
                busy,
                (
                    now + (self.seconds[taken] if taken is not None else 30.0),
                    worker,
                    taken if taken is not None else -1,
                ),
            )

    def _arrive(self, now: float) -> None:
        while self.arrivals and self.arrivals[0][0] <= now:
            at, run = self.arrivals.popleft()
            self.queues.setdefault(self.who[run], deque()).append((run, at))

    def _claim(self, now: float) -> int | None:
        lanes: dict[tuple[int, int], list[tuple[int, int, float]]] = {}
        for (project, owner, priority), queue in self.queues.items():
            if queue:
                lanes.setdefault((project, owner), []).append((priority, *queue[0]))
        pick = best([self._candidate(now, *lane, heads) for lane, heads in lanes.items()], self.load)
        if pick is None:
            return None
        run = pick[1]
        project, owner, priority = self.who[run]
        taken, at = self.queues[project, owner, priority].popleft()
        assert taken == run
        self.waited[run] = now - at
        self.load.take(project, owner, self.seconds[run])
        self.served[project] += self.load.running[project] > 0
        self.most[project] = max(self.most[project], self.load.running[project])
        return run

    def _candidate(self, now: float, project: int, owner: int, heads: list[tuple[int, int, float]]) -> Candidate:
        priority, run, _ = max(heads, key=lambda head: (head[0], -head[1]))
        _, oldest, since = min(heads, key=lambda head: head[2])
        late = oldest if now - since > self.patience_s else None
        return Candidate(project * 100 + owner, project, owner, priority, run, late)


def test_ten_thousand_runs_on_fifty_workers_all_start_and_none_starves() -> None:
    day = Simulation(seed=1)
    day.run()
    assert len(day.waited) == RUNS, "each has started, each once"
    total = sum(day.seconds) / WORKERS
    assert max(day.waited.values()) < total + 3600, "the last is not later than the work itself"
    assert day.most[3] == 10, "the limited project was held at its limit"
    calm = [wait for run, wait in day.waited.items() if day.who[run] == (2, 3, 0)]
    assert max(calm) < day.patience_s + 3600, (
        "behind endless urgent runs one waits for the patience, and not for the end"
    )


def test_control_without_patience_the_small_project_waits_for_the_end_of_the_urgent_stream() -> None:
    day = Simulation(seed=1)
    day.patience_s = float("inf")
    day.run()
    calm = [wait for run, wait in day.waited.items() if day.who[run] == (2, 3, 0)]
    assert max(calm) > Simulation.patience_s + 3600


def test_two_projects_that_always_want_more_get_equal_shares_however_many_runs_they_queue() -> None:
    load, got = Load(), Counter[int]()
    for run in range(3000):
        many = [Candidate(owner, 1, owner, 0, run * 10 + owner) for owner in (1, 2, 3)]
        pick = best([*many, Candidate(9, 2, 9, 0, run * 10 + 9)], load)
        assert pick is not None
        load.use(pick[0].project, pick[0].owner, 60)
        got[pick[0].project] += 1
        got[pick[0].owner + 10] += 1
    assert abs(got[1] - got[2]) <= 1
    assert max(got[11], got[12], got[13]) - min(got[11], got[12], got[13]) <= 1
