"""What a run was trained with is kept, and a run may begin again from its start."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import yaml
from django.apps import apps
from django.test import Client
from django.utils.timezone import now

from experiments import lifecycle
from experiments.lifecycle import NotAllowed
from experiments.models import Checkpoint, PendingDeletion, Run
from experiments.spec.identity import UNKNOWN, Identity
from experiments.states import Reason, State
from experiments.submissions.submission import plan
from experiments.verdicts.today import torch_here

from .api_client import API, client_of, get
from .factories import SPEC, make_project, make_run, make_user, make_worker
from .verdict_runs import finished

pytestmark = [pytest.mark.db, pytest.mark.django_db]

CPU = {"device": "cpu", "device_kind": "cpu", "torch": "2.9.1+cpu", "revision": 2, "data_digest": "a" * 64}
GPU = {**CPU, "device": "NVIDIA H100", "device_kind": "cuda", "torch": "2.9.1+cu128"}


def started(run: Run, info: dict[str, Any]) -> lifecycle.Held:
    taken = lifecycle.claim([run.pool], make_worker())
    assert taken is not None
    assert taken.held.run_id == run.pk
    lifecycle.start(taken.held, pid=1, device=info["device"], info=info)
    return taken.held


def saved(run: Run, held: lifecycle.Held, step: int) -> None:
    run.refresh_from_db()
    lifecycle.commit(held, run.committed_step, step, [])
    lifecycle.publish_checkpoint(held, step=step, path=f"{held.fence}-{step}", sha256="0" * 64, size=1)


def identity(run: Run) -> Identity:
    run.refresh_from_db()
    return run.identity


def test_a_run_keeps_what_its_trainer_was_and_read() -> None:
    started(run := make_run(), CPU)
    assert identity(run) == Identity("a" * 64, 2, "2.9", "cpu")


def test_a_run_that_went_on_under_other_code_of_a_package_stands_apart() -> None:
    """Half of it was trained with each: it is evidence for neither."""
    info = {name: {**CPU, "data_digest": name * 64} for name in "ab"}
    whole = {name: started(make_run(), info[name]) and identity(Run.objects.latest("pk")) for name in "ab"}
    held = started(run := make_run(), info["a"])
    saved(run, held, 10)
    lifecycle.fail(held, Reason.ERROR, "x")
    lifecycle.retry(run.pk, None)
    held = started(run, info["b"])
    mixed = identity(run)
    assert mixed not in whole.values()
    assert len(mixed.data_digest) == 64
    saved(run, held, 12)
    lifecycle.fail(held, Reason.ERROR, "x")
    lifecycle.retry(run.pk, None)
    started(run, info["b"])
    assert identity(run) not in whole.values()


def test_a_run_that_went_on_elsewhere_was_trained_on_both() -> None:
    held = started(run := make_run(), CPU)
    saved(run, held, 10)
    lifecycle.fail(held, Reason.ERROR, "x")
    lifecycle.retry(run.pk, None)
    started(run, GPU)
    assert identity(run) == Identity("a" * 64, 2, "2.9", "cpu+cuda")


def test_a_run_that_began_again_was_trained_where_it_is_now() -> None:
    held = started(run := make_run(), CPU)
    lifecycle.fail(held, Reason.ERROR, "x")
    lifecycle.retry(run.pk, None)
    started(run, GPU)
    assert identity(run).device_kind == "cuda"


def failed(run: Run) -> Run:
    held = started(run, CPU)
    saved(run, held, 10)
    lifecycle.fail(held, Reason.SPEC, "written at training revision 1")
    run.refresh_from_db()
    return run


def test_a_retry_from_the_start_leaves_no_checkpoint_behind() -> None:
    run = failed(make_run())
    lifecycle.retry(run.pk, None, from_start=True)
    assert not run.checkpoints.exists()
    assert PendingDeletion.objects.filter(path__endswith="-10").count() == 1
    taken = lifecycle.claim([run.pool], make_worker())
    assert taken is not None
    assert (taken.start_step, taken.checkpoint, taken.time_offset) == (0, None, 0.0)
    run.refresh_from_db()
    assert (run.committed_step, run.checkpoint_step) == (0, 0)


def test_a_fork_that_begins_again_begins_with_its_parents_checkpoint() -> None:
    parent = failed(make_run())
    fork = lifecycle.fork(parent, 10, plan({"name": "fork", "spec": parent.spec}), None)
    held = started(fork, GPU)
    assert identity(fork).device_kind == "cuda"
    saved(fork, held, 15)
    lifecycle.fail(held, Reason.SPEC, "x")
    lifecycle.retry(fork.pk, None, from_start=True)
    taken = lifecycle.claim([fork.pool], make_worker())
    assert taken is not None
    assert (taken.start_step, taken.forked) == (10, True)
    assert Checkpoint.objects.filter(run=parent).count() == 1


def test_only_what_failed_or_was_cancelled_begins_again() -> None:
    run = make_run()
    with pytest.raises(NotAllowed):
        lifecycle.retry(run.pk, None, from_start=True)


def test_rest_retries_from_the_start_and_refuses_what_it_does_not_know() -> None:
    user = make_user()
    client, run = client_of(user), failed(make_run(make_project(editor=user)))
    url = f"{API}/runs/{run.pk}/retry/"
    for sent in ({"from_start": "yes"}, {"from_strat": True}):
        assert client.post(url, sent, format="json").status_code == 400
    answer = client.post(url, {"from_start": True}, format="json").json()
    assert (answer["state"], Checkpoint.objects.filter(run=run).exists()) == (State.QUEUED, False)


CODE = {"inputs": {"t.txt": "b" * 64}, "source": {"commit": "c" * 40, "dirty": True, "lock": "d" * 64}}


def test_rest_tells_what_a_run_was_trained_with() -> None:
    user = make_user()
    client, run = client_of(user), make_run(make_project(editor=user))
    assert get(client, f"/runs/{run.pk}/")["trained_with"] is None
    started(run, {**CPU, **CODE})
    assert get(client, f"/runs/{run.pk}/")["trained_with"] == {
        "data_digest": "a" * 64,
        "revision": 2,
        "torch": "2.9",
        "device_kind": "cpu",
        "device": "cpu",
        "inputs": {"t.txt": "b" * 64},
        "commit": "c" * 40,
        "dirty": True,
        "lock": "d" * 64,
    }
    assert "trained_with" not in get(client, "/runs/")["results"][0]


def test_pages_tell_it_and_the_comparison_shows_what_differs() -> None:
    user = make_user()
    project = make_project(editor=user)
    first, second = make_run(project), make_run(project)
    started(first, {**CPU, **CODE})
    started(second, {**CPU, **CODE, "data_digest": "e" * 64, "inputs": {"t.txt": "e" * 64}, "revision": 1})
    client = Client()
    client.force_login(user)
    config = client.get(f"/runs/{first.pk}/?tab=config").content.decode()
    assert f"{'c' * 12} with changes" in config
    differing = client.get(f"/compare/?runs={first.pk},{second.pk}").content.decode()
    for line in ("data", "file t.txt", "training revision"):
        assert f"trained with: {line}" in differing
    assert "trained with: commit" not in differing
    assert "trained with: commit" in client.get(f"/compare/?runs={first.pk},{second.pk}&diff=all").content.decode()


def test_a_check_offers_what_is_trained_already() -> None:
    user = make_user()
    project = make_project(editor=user)
    client, page = client_of(user), Client()
    page.force_login(user)
    experiment = finished(lambda run: {"test/accuracy": 1.0}, project, spec=SPEC, seeds=[0, 1])
    body = {"spec": SPEC, "seeds": [0, 1, 2], "project": project.name}
    answer = client.post(f"{API}/experiments/validate/", body, format="json").json()
    runs = list(experiment.runs.order_by("index").values_list("pk", flat=True))
    assert [(row["index"], row["run"]) for row in answer["trained"]] == list(enumerate(runs))
    form = {"source": "yaml", "yaml": yaml.safe_dump(SPEC), "seeds": "0-2", "name": "again", "project": project.name}
    assert "2 of these runs have already been trained" in page.post("/experiments/new/check/", form).content.decode()


OLD_TORCH = pytest.param(
    {"torch": "0.1"}, marks=pytest.mark.skipif(not torch_here(), reason="no torch here that theirs could differ from")
)


@pytest.mark.parametrize("change", [{"revision": 1}, OLD_TORCH, {"parent_step": 3}, {"state": "failed"}])
def test_a_check_does_not_offer_what_would_be_another_training(change: dict[str, Any]) -> None:
    user = make_user()
    project = make_project(editor=user)
    finished(lambda run: {"test/accuracy": 1.0}, project, spec=SPEC)
    Run.objects.update(**change)
    answer = client_of(user).post(
        f"{API}/experiments/validate/", {"spec": SPEC, "project": project.name}, format="json"
    )
    assert answer.json()["trained"] == []


def test_a_check_does_not_offer_what_one_may_not_see() -> None:
    user = make_user()
    finished(lambda run: {"test/accuracy": 1.0}, make_project(), spec=SPEC)
    body = {"spec": SPEC, "project": make_project(editor=user).name}
    answer = client_of(user).post(f"{API}/experiments/validate/", body, format="json")
    assert answer.json()["trained"] == []


def _stored_before(run: Run, *attempts: tuple[int, str, str]) -> None:
    """Attempts (first step, device, torch) of a version that kept no identity."""
    for fence, (step, device, torch) in enumerate(attempts, start=1):
        run.attempts.create(
            fence=fence, start_step=step, device=device, claimed=now(), started=now(), info={"torch": torch}
        )
    Run.objects.filter(pk=run.pk).update(started=now())


def test_runs_stored_before_get_what_their_attempts_had_told() -> None:
    text = {"task": "language", "data": {"dataset": "text", "path": "t.txt"}}
    plain, moved, begun_again, reads, waits = (make_run(), make_run(), make_run(), make_run(spec=text), make_run())
    _stored_before(plain, (0, "cpu", "2.9.1+cpu"))
    _stored_before(moved, (0, "cpu", "2.8.0"), (10, "NVIDIA H100", "2.9.1+cu128"))
    _stored_before(begun_again, (0, "cpu", "2.8.0"), (0, "NVIDIA H100", "2.9.1+cu128"))
    _stored_before(reads, (0, "cpu", "2.9.1"))
    import_module("experiments.migrations.0015_identity").fill(apps, None)
    assert identity(plain) == Identity("", 1, "2.9", "cpu")
    assert identity(moved) == Identity("", 1, "2.8+2.9", "cpu+cuda")
    assert identity(begun_again) == Identity("", 1, "2.9", "cuda")
    assert identity(reads) == Identity(UNKNOWN, 1, "2.9", "cpu")
    assert identity(waits) == Identity()


def test_the_page_retries_from_the_start_where_there_is_a_checkpoint_to_forget() -> None:
    user = make_user()
    run = failed(make_run(make_project(editor=user)))
    client = Client()
    client.force_login(user)
    assert "Retry from the start" in client.get(f"/runs/{run.pk}/").content.decode()
    client.post(f"/runs/{run.pk}/retry/", {"from": "start"})
    run.refresh_from_db()
    assert (run.state, run.checkpoint_step) == (State.QUEUED, 0)
    lifecycle.request_cancel(run.pk, None)
    assert "Retry from the start" not in client.get(f"/runs/{run.pk}/").content.decode()
