"""Every move of a run against a real database, and that nothing else moves it."""

from __future__ import annotations

import signal
from datetime import timedelta

import numpy as np
import pytest
import redis as client
from django.db.models.functions import Now

from experiments import lifecycle, store
from experiments.lifecycle import Held, LeaseLost, NotAllowed
from experiments.models import Attempt, Checkpoint, Event, Run
from experiments.states import Desired, Reason, State
from tests.redis_server import RedisServer

from .factories import claim, frame, make_experiment, make_run, make_worker, train

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.db]


def expire_lease(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(lease_until=Now() - timedelta(seconds=1))


def checkpoint(held: Held, step: int) -> list[str]:
    return lifecycle.publish_checkpoint(held, step=step, path=f"{held.fence}-{step}", sha256="0" * 64, size=1)


def points(run: Run) -> list[int]:
    (series,) = store.read([run.pk], ["loss/total"])
    return series.steps.tolist()


def test_a_run_goes_from_queued_to_succeeded_and_every_move_leaves_an_event() -> None:
    run = make_run()
    taken = claim(run)
    train(taken.held, 0, 20)
    checkpoint(taken.held, 20)
    lifecycle.succeed(taken.held)
    run.refresh_from_db()
    assert (run.state, run.committed_step, run.worker_id, run.lease_until) == (State.SUCCEEDED, 20, None, None)
    assert [event.to_state for event in run.events.all()] == ["queued", "claimed", "running", "succeeded"]
    assert points(run) == list(range(20))


def test_a_run_cannot_succeed_before_its_last_step() -> None:
    taken = claim(make_run())
    train(taken.held, 0, 15)
    with pytest.raises(ValueError, match="15 of 20"):
        lifecycle.succeed(taken.held)


def test_claims_go_by_priority_and_then_by_age() -> None:
    low, high, late = make_run(priority=0), make_run(priority=5), make_run(priority=5)
    worker = make_worker()
    order = [lifecycle.claim(["cpu"], worker) for _ in range(3)]
    assert [taken.held.run_id for taken in order if taken] == [high.pk, late.pk, low.pk]
    assert lifecycle.claim(["cpu"], worker) is None


def test_a_claim_takes_only_its_own_pools() -> None:
    make_run(pool="gpu")
    assert lifecycle.claim(["cpu"], make_worker()) is None
    assert lifecycle.claim(["cpu", "gpu"], make_worker()) is not None


def test_a_flush_that_is_sent_twice_is_stored_once() -> None:
    taken = claim(run := make_run())
    lifecycle.commit(taken.held, 0, 5, [frame(0, 5)])
    lifecycle.commit(taken.held, 0, 5, [frame(0, 5)])
    assert points(run) == [0, 1, 2, 3, 4]


def test_a_flush_that_leaves_a_gap_or_reaches_outside_is_refused_and_stores_nothing() -> None:
    taken = claim(run := make_run())
    for lo, hi, steps in ((3, 6, (3, 6)), (0, 3, (0, 4)), (0, 0, (0, 1))):
        with pytest.raises(ValueError):
            lifecycle.commit(taken.held, lo, hi, [frame(*steps)])
    assert store.read([run.pk], ["**"]) == []


def test_writes_of_an_outdated_holder_touch_nothing() -> None:
    run = make_run()
    old = claim(run)
    train(old.held, 0, 5)
    expire_lease(run)
    assert lifecycle.expire(run.pk)
    Run.objects.update(next_at=None)
    new = claim(run)
    before = Run.objects.values().get(pk=run.pk)
    verbs = [
        lambda: lifecycle.commit(old.held, 5, 10, [frame(5, 10)]),
        lambda: lifecycle.renew(old.held),
        lambda: lifecycle.start(old.held, pid=2, device="cpu", info={}),
        lambda: checkpoint(old.held, 5),
        lambda: lifecycle.add_log(old.held, "late"),
        lambda: lifecycle.succeed(old.held),
        lambda: lifecycle.fail(old.held, Reason.ERROR, "late"),
        lambda: lifecycle.crash(old.held, "late"),
        lambda: lifecycle.release(old.held),
        lambda: lifecycle.cancelled(old.held),
    ]
    for verb in verbs:
        with pytest.raises(LeaseLost):
            verb()
    assert Run.objects.values().get(pk=run.pk) == before
    assert new.held.fence > old.held.fence


def test_renewal_asks_for_the_fence_and_not_for_the_time() -> None:
    taken = claim(run := make_run())
    expire_lease(run)
    assert lifecycle.renew(taken.held) == Desired.RUN
    assert not lifecycle.expire(run.pk), "a renewed lease is alive"


def test_a_resumed_attempt_starts_at_the_checkpoint_and_what_lies_past_it_is_written_again() -> None:
    run = make_run()
    taken = claim(run)
    train(taken.held, 0, 10)
    checkpoint(taken.held, 10)
    kept = store.catalogue(run.pk)
    train(taken.held, 10, 17, every=7)
    lifecycle.crash(taken.held, "killed by signal 9")
    Run.objects.update(next_at=None)
    again = claim(run)
    assert (again.start_step, again.checkpoint and again.checkpoint.step) == (10, 10)
    assert points(run) == list(range(10))
    assert store.catalogue(run.pk) == kept, "headline values are those of the checkpoint"
    assert run.headlines.get(key="loss/total").last == 9
    train(again.held, 10, 20)
    lifecycle.succeed(again.held)
    assert points(run) == list(range(20))
    assert [attempt.outcome for attempt in run.attempts.order_by("fence")] == ["crashed", "succeeded"]


def test_a_frame_that_straddles_the_checkpoint_is_cut() -> None:
    run = make_run()
    taken = claim(run)
    lifecycle.commit(taken.held, 0, 8, [frame(0, 8)])
    Checkpoint.objects.create(run=run, fence=taken.held.fence, step=5, path="x", sha256="", size=1)
    Run.objects.filter(pk=run.pk).update(checkpoint_step=5)
    lifecycle.crash(taken.held, "")
    Run.objects.update(next_at=None)
    claim(run)
    assert points(run) == [0, 1, 2, 3, 4]


def test_three_crashes_with_no_new_checkpoint_poison_a_run_and_a_checkpoint_starts_the_count_anew(settings) -> None:
    settings.ATTN_BACKOFF_S = 0
    run = make_run()
    for crash in range(2):
        lifecycle.crash(claim(run).held, f"crash {crash}")
    taken = claim(run)
    train(taken.held, 0, 10)
    checkpoint(taken.held, 10)
    lifecycle.crash(taken.held, "after a checkpoint")
    for crash in range(2):
        lifecycle.crash(claim(run).held, f"again {crash}")
    run.refresh_from_db()
    assert (run.state, run.reason, run.crash_count) == (State.FAILED, Reason.POISONED, 3)
    assert "again 1" in run.detail


def test_a_crashed_run_waits_before_it_may_be_claimed_again(settings) -> None:
    settings.ATTN_BACKOFF_S = 60
    run = make_run()
    lifecycle.crash(claim(run).held, "")
    assert lifecycle.claim(["cpu"], make_worker()) is None
    Run.objects.update(next_at=Now() - timedelta(seconds=1))
    assert lifecycle.claim(["cpu"], make_worker()) is not None


def test_preemption_costs_nothing_unless_the_attempt_advanced_no_step() -> None:
    run = make_run()
    taken = claim(run)
    train(taken.held, 0, 5)
    lifecycle.release(taken.held)
    run.refresh_from_db()
    assert (run.state, run.reason, run.crash_count) == (State.QUEUED, Reason.PREEMPTED, 0)
    lifecycle.release(claim(run).held)
    run.refresh_from_db()
    assert (run.state, run.crash_count) == (State.QUEUED, 1)


def test_cancelling_a_queued_run_ends_it_at_once_and_a_held_one_is_only_asked() -> None:
    queued, held = make_run(pool="gpu"), make_run()
    assert lifecycle.request_cancel(queued.pk, None).state == State.CANCELLED
    taken = claim(held)
    asked = lifecycle.request_cancel(held.pk, None)
    assert (asked.state, asked.desired) == (State.RUNNING, Desired.CANCEL)
    assert lifecycle.renew(taken.held) == Desired.CANCEL
    lifecycle.cancelled(taken.held)
    held.refresh_from_db()
    assert (held.state, held.reason) == (State.CANCELLED, Reason.CANCELLED)
    with pytest.raises(NotAllowed):
        lifecycle.request_cancel(held.pk, None)


def test_a_crash_or_a_lost_worker_after_a_cancel_ends_as_cancelled() -> None:
    crashed, silent = make_run(priority=1), make_run()
    first, _ = claim(crashed), claim(silent)
    lifecycle.request_cancel(crashed.pk, None)
    lifecycle.request_cancel(silent.pk, None)
    lifecycle.crash(first.held, "")
    expire_lease(silent)
    lifecycle.expire(silent.pk)
    assert set(Run.objects.values_list("state", flat=True)) == {State.CANCELLED}


def test_a_finish_that_races_with_a_cancel_may_still_succeed() -> None:
    taken = claim(run := make_run())
    train(taken.held, 0, 20)
    lifecycle.request_cancel(run.pk, None)
    lifecycle.stopping(taken.held, why="cancellation requested")
    lifecycle.succeed(taken.held)
    run.refresh_from_db()
    assert run.state == State.SUCCEEDED


def test_retry_goes_on_from_the_checkpoint_with_a_new_fence_and_no_crashes() -> None:
    run = make_run()
    taken = claim(run)
    train(taken.held, 0, 10)
    checkpoint(taken.held, 10)
    lifecycle.fail(taken.held, Reason.NAN, "loss/total is NaN at step 10")
    with pytest.raises(NotAllowed):
        lifecycle.retry(make_run(pool="gpu").pk, None)
    lifecycle.retry(run.pk, None)
    again = claim(run)
    assert again.start_step == 10
    assert again.held.fence > taken.held.fence


def test_the_last_two_checkpoints_are_kept() -> None:
    taken = claim(run := make_run())
    surplus = []
    for step in (5, 10, 15):
        train(taken.held, step - 5, step)
        surplus += checkpoint(taken.held, step)
    assert surplus == [f"{taken.held.fence}-5"]
    assert [row.step for row in run.checkpoints.all()] == [15, 10]


def test_the_best_checkpoint_is_kept_besides_the_last_two() -> None:
    taken = claim(run := make_run())
    surplus = []
    for step, accuracy in ((4, 0.5), (8, 0.9), (12, 0.7), (16, 0.8), (20, 0.6)):
        evaluated = store.Incoming(
            "eval", ["eval/accuracy"], np.array([step - 1]), np.array([1.0]), np.array([[accuracy]], np.float32)
        )
        lifecycle.commit(taken.held, step - 4, step, [frame(step - 4, step), evaluated])
        surplus += checkpoint(taken.held, step)
    assert [row.step for row in run.checkpoints.all()] == [20, 16, 8]
    assert surplus == [f"{taken.held.fence}-{step}" for step in (4, 12)]


def test_a_checkpoint_that_does_not_match_the_progress_is_refused() -> None:
    taken = claim(make_run())
    train(taken.held, 0, 5)
    with pytest.raises(ValueError, match="committed step 5"):
        checkpoint(taken.held, 10)


def test_submitting_twice_with_one_key_stores_one_experiment(django_user_model) -> None:
    from experiments.submissions.submission import plan

    from .factories import SPEC, make_project

    user, project = django_user_model.objects.create_user("ann"), make_project()
    planned = plan({"name": "x", "spec": SPEC})
    first = lifecycle.submit(planned, project=project, user=user, idempotency_key="k")
    second = lifecycle.submit(planned, project=project, user=user, idempotency_key="k")
    assert first.pk == second.pk
    assert Run.objects.count() == 1


def test_a_submission_survives_a_broker_that_is_not_there(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    def rings() -> int:
        with client.Redis.from_url(redis.url) as connection:
            return int(connection.llen("cpu"))

    make_experiment()
    assert rings() == 1, "this is the broker that a submission rings"
    redis.signal(signal.SIGKILL)
    try:
        experiment = make_experiment(seeds=[0, 1, 2])
        assert "doorbell for pool cpu not delivered" in caplog.text
    finally:
        redis.start()
    assert rings() == 1, "nobody has heard of these"
    assert [run.state for run in experiment.runs.all()] == [State.QUEUED] * 3
    assert Event.objects.filter(kind="submitted", run__experiment=experiment).count() == 3
    make_experiment()
    assert rings() == 2, "it is rung again as soon as it is back"


def test_params_of_a_run_are_rows_that_can_be_asked() -> None:
    run = make_run(matrix={"model.attention.variant": ["no_q"]}, overrides={"optimizer.lr": 0.5})
    rows = {row.key: (row.text, row.number) for row in run.param_rows.all()}
    assert rows["model.attention.variant"] == ("no_q", None)
    assert rows["optimizer.lr"] == ("0.5", 0.5)
    assert rows["record.per_head"] == ("true", None)


def test_attempts_remember_who_where_and_how_it_ended() -> None:
    run = make_run()
    worker = make_worker("w1")
    taken = lifecycle.claim(["cpu"], worker)
    assert taken is not None
    lifecycle.start(taken.held, pid=42, device="AVX2", info={"parameters": 7})
    lifecycle.fail(taken.held, Reason.ERROR, "ValueError: no\ntraceback")
    attempt = Attempt.objects.get(run=run)
    assert (attempt.pid, attempt.device, attempt.outcome, attempt.worker) == (42, "AVX2", "error", worker)
    assert attempt.ended is not None
