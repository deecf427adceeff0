"""A fork: a run of its own that begins at another run's checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from experiments import lifecycle
from experiments.models import Checkpoint, Run
from experiments.queue.order import queue_order
from experiments.states import State

from .api_client import API, client_of, get, needs_database, pointers
from .factories import claim, make_project, make_run, make_user, train
from .html_form import sent_by

pytestmark = needs_database


@pytest.fixture
def editor() -> Any:
    return make_user()


@pytest.fixture
def client(editor: Any) -> APIClient:
    return client_of(editor)


@pytest.fixture
def parent(editor: Any) -> Run:
    """A run with checkpoints at 5 and 10, whose worker holds it."""
    run = make_run(make_project(editor=editor))
    taken = claim(run)
    for step in (5, 10):
        train(taken.held, step - 5, step)
        publish(taken.held, step)
    return run


def publish(held: lifecycle.Held, step: int) -> list[str]:
    name = f"{held.run_id}-{step}"
    return lifecycle.publish_checkpoint(held, step=step, path=name, sha256="0" * 64, size=1)


def fork(client: APIClient, parent: Run, **body: Any) -> Any:
    return client.post(f"{API}/runs/{parent.pk}/fork/", body, format="json")


def test_a_fork_begins_at_the_checkpoint_with_changed_settings_and_knows_its_family(
    client: APIClient, parent: Run
) -> None:
    reply = fork(client, parent, step=5, overrides={"optimizer.lr": 0.01, "train.steps": 30})
    assert reply.status_code == 201, reply.content
    row = get(client, f"/runs/{reply.json()['id']}/")
    assert (row["parent"], row["parent_step"], row["step"], row["steps"]) == (parent.pk, 5, 5, 30)
    assert (row["state"], row["seed"], row["spec"]["optimizer"]["lr"]) == ("queued", parent.seed, 0.01)
    taken = lifecycle.claim(["cpu"], parent.attempts.get().worker)
    assert taken is not None
    assert (taken.held.run_id, taken.start_step, taken.forked) == (row["id"], 5, True)
    assert taken.parent == parent.spec
    assert taken.checkpoint is not None
    assert taken.checkpoint.path == f"{parent.pk}-5"
    told = [event["message"] for event in get(client, f"/runs/{row['id']}/events/")["results"]]
    assert f"begins with run {parent.pk} at step 5" in told


def test_a_fork_waits_in_the_lane_of_who_forks_for_the_pool_that_it_asks_for(editor: Any, parent: Run) -> None:
    other = make_user()
    parent.project.memberships.create(user=other, role="editor")
    asked = [(user, pool) for user in (editor, other) for pool in ("cpu", "gpu")]
    for user, pool in asked:
        reply = fork(client_of(user), parent, overrides={"resources.pool": pool})
        child = Run.objects.get(pk=reply.json()["id"])
        assert child.lane is not None
        assert (child.lane.pool, child.lane.project, child.lane.owner) == (pool, parent.project, user.pk)
        assert child.pk in queue_order(pool)


def test_without_a_step_a_fork_begins_at_the_newest_checkpoint(client: APIClient, parent: Run) -> None:
    assert fork(client, parent).json()["parent_step"] == 10


@pytest.mark.parametrize(
    ("body", "where", "words"),
    [
        ({"step": 7}, "/step", "checkpoints at steps 5, 10, none at 7"),
        ({"step": True}, "/step", "should be a valid integer"),
        ({"steps": 5}, "/steps", "unknown field"),
        ({"overrides": {"model.d_model": 128}}, "/overrides/model.d_model", "shapes of the model must stay"),
        (
            {"overrides": {"model.attention.variant": "no_q"}},
            "/overrides/model.attention.variant",
            "shapes of the model must stay",
        ),
        ({"overrides": {"model": {"heads": 8}}}, "/overrides/model", "shapes of the model must stay"),
        ({"overrides": {"optimizer.lr": -1}}, "/overrides/optimizer.lr", "greater than 0"),
        ({"overrides": {"optimizer.rate": 1}}, "/overrides/optimizer.rate", "known here: beta1"),
        ({"overrides": {"train.steps": 10}}, "/overrides/train.steps", "greater than 10"),
    ],
)
def test_what_a_fork_cannot_take_is_named(
    client: APIClient, parent: Run, body: dict[str, Any], where: str, words: str
) -> None:
    reply = fork(client, parent, **body)
    assert reply.status_code == 400, reply.content
    assert where in pointers(reply)
    assert words in reply.content.decode()
    assert Run.objects.count() == 1


def test_a_viewer_may_not_fork(client: APIClient, parent: Run) -> None:
    viewer = make_user()
    parent.project.memberships.create(user=viewer, role="viewer")
    assert fork(client_of(viewer), parent).status_code == 403
    assert fork(client_of(make_user()), parent).status_code == 404


def test_the_file_that_a_queued_fork_needs_outlives_its_parents_retention_until_the_fork_has_its_own(
    client: APIClient, parent: Run
) -> None:
    child = Run.objects.get(pk=fork(client, parent, step=5).json()["id"])
    held = lifecycle.Held(parent.pk, Run.objects.get(pk=parent.pk).fence)
    train(held, 10, 20)
    assert publish(held, 20) == []  # 5 has left the parent's list, and its file stays
    assert list(parent.checkpoints.values_list("step", flat=True)) == [20, 10]
    lifecycle.succeed(held)
    mine = claim(child).held
    surplus = []
    for step in (10, 15, 20):
        train(mine, step - 5, step)
        surplus += publish(mine, step)
    assert surplus == [f"{parent.pk}-5", f"{child.pk}-10"]
    assert not Checkpoint.objects.filter(path=f"{parent.pk}-5").exists()


def test_a_fork_whose_first_checkpoint_is_damaged_is_not_trained_from_nothing(client: APIClient, parent: Run) -> None:
    child = Run.objects.get(pk=fork(client, parent, step=5).json()["id"])
    taken = lifecycle.claim([child.pool], parent.attempts.get().worker)
    assert taken is not None
    with pytest.raises(lifecycle.NotAllowed, match="the one this fork begins with"):
        lifecycle.fall_back(taken, "checkpoint x is damaged")


def test_the_fork_page_starts_a_run_and_says_what_is_wrong(editor: Any, parent: Run) -> None:
    browser = Client()
    browser.force_login(editor)
    assert "Fork…" in browser.get(f"/runs/{parent.pk}/").content.decode()
    bad = browser.post(f"/runs/{parent.pk}/fork/", {"step": "5", "overrides": "model.d_model: 128"})
    assert bad.status_code == 400
    assert "shapes of the model must stay" in bad.content.decode()
    assert browser.post(f"/runs/{parent.pk}/fork/", {"overrides": "a: [b"}).status_code == 400
    done = browser.post(f"/runs/{parent.pk}/fork/", {"step": "5", "overrides": "optimizer.lr: 0.002"})
    child = Run.objects.exclude(pk=parent.pk).get()
    assert (done.status_code, child.state, child.spec["optimizer"]["lr"]) == (302, State.QUEUED, 0.002)
    assert f"#{child.pk}</a> at 5" in browser.get(f"/runs/{parent.pk}/").content.decode()
    assert f"#{parent.pk}</a> at step 5" in browser.get(f"/runs/{child.pk}/").content.decode()


def test_a_run_whose_stored_spec_would_be_refused_today_can_be_seen_forked_and_given_seeds(
    client: APIClient, editor: Any, parent: Run
) -> None:
    parent.spec["optimizer"]["warmup_steps"] = 100
    parent.spec["model"]["attention"] |= {"variant": "no_q", "frozen": ["W_q"]}
    parent.save(update_fields=["spec"])
    reply = fork(client, parent, overrides={"optimizer.lr": 0.01})
    assert reply.status_code == 201, reply.content
    spec = Run.objects.get(pk=reply.json()["id"]).spec
    assert spec["optimizer"] == {**parent.spec["optimizer"], "lr": 0.01}
    assert spec["model"] == parent.spec["model"]
    assert pointers(fork(client, parent, overrides={"train.steps": 30})) == [
        "/spec/optimizer/warmup_steps", "/spec/model/attention/frozen",
    ]  # fmt: skip
    (added,) = lifecycle.append_seeds(parent.experiment_id, [7], editor, max_runs=100)
    assert {**added.spec, "seed": parent.seed} == parent.spec
    pages = Client()
    pages.force_login(editor)
    for address in (f"/runs/{parent.pk}/", f"/experiments/{parent.experiment_id}/", f"/runs/{parent.pk}/fork/"):
        assert pages.get(address).status_code == 200, address
    assert pages.get(f"/experiments/new/?from={parent.experiment_id}").status_code == 200


def test_the_untouched_form_forks_a_run_from_its_last_step(editor: Any, parent: Run) -> None:
    browser, address = Client(), f"/runs/{parent.pk}/fork/"
    browser.force_login(editor)
    assert sent_by(browser.get(address).content.decode())["overrides"] == [""]
    held = lifecycle.Held(parent.pk, Run.objects.get().fence)
    train(held, 10, 20)
    publish(held, 20)
    lifecycle.succeed(held)
    sent = sent_by(browser.get(address).content.decode())
    assert (sent["step"], sent["overrides"]) == (["20"], ["train.steps: 40"])
    assert browser.post(address, sent).status_code == 302
    assert Run.objects.get(parent=parent).steps == 40
