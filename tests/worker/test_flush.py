"""FLUSHALL: everything that Redis knows is gone, again and again. The rows know what has to be done."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis as client

from experiments.models import Event, Run
from experiments.states import State
from tests.redis_server import RedisServer
from tests.service.factories import make_experiment
from tests.worker import processes
from tests.worker.runs import ended, queue, recorded
from tests.worker.scripted import value

Hire = Callable[..., processes.Worker]
STEPS = 2


def flush(server: RedisServer) -> None:
    with client.Redis.from_url(server.url) as connection:
        connection.flushall()


def submit(runs: int) -> list[int]:
    """So many queued runs in the pool `flood`; the run of seed s is the s-th."""
    spec = {
        "task": "classify",
        "data": {"dataset": "digits"},
        "optimizer": {"warmup_steps": 1},
        "train": {"steps": STEPS, "checkpoint_every": STEPS},
        "resources": {"threads": 1, "pool": "flood"},
    }
    return list(make_experiment(spec=spec, seeds=list(range(runs))).runs.order_by("pk").values_list("pk", flat=True))


def flush_until_all_end(server: RedisServer, runs: list[int], within: float) -> None:
    """Flush whenever another tenth has succeeded."""
    done = Run.objects.filter(pk__in=runs, state=State.SUCCEEDED)
    for tenth in range(1, 11):
        processes.wait_for(lambda: done.count() >= tenth * len(runs) // 10, within, f"tenth {tenth} of {len(runs)}")  # noqa: B023
        flush(server)


def lose_everything(hire: Hire, server: RedisServer, runs: int, within: float) -> None:
    waiting = submit(runs)
    flush(server)  # the doorbells are gone before anybody heard them
    hire("flood", slots=2, script={"pace": 0})
    flush_until_all_end(server, waiting, within)
    assert Run.objects.filter(pk__in=waiting, state=State.SUCCEEDED, fence=1).count() == runs
    ends = Event.objects.filter(run__in=waiting, to_state=State.SUCCEEDED)
    assert (ends.count(), ends.values("run").distinct().count()) == (runs, runs)
    for seed, run in enumerate(waiting):
        series = recorded(Run.objects.get(pk=run))
        assert series["lr"].steps.tolist() == list(range(STEPS))
        assert series["lr"].values.tolist() == [value(seed, step, 1) for step in range(STEPS)]
    ended(queue(steps=STEPS, pool="flood"), 20)  # the idle worker has lost its queue, and still hears the next


@pytest.mark.slow
def test_what_redis_forgets_is_done_all_the_same_each_run_once(hire: Hire, redis: RedisServer) -> None:
    lose_everything(hire, redis, 20, 60)


@pytest.mark.chaos
@pytest.mark.timeout(2400)
def test_a_thousand_queued_runs_survive_flushall_each_once(hire: Hire, redis: RedisServer) -> None:
    lose_everything(hire, redis, 1000, 600)
