"""Rules of retention over REST and on the page, and deleting runs: gone at once, cleared away in the background."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db.models.functions import Now
from django.test import Client

from experiments import lifecycle, store
from experiments.maintenance import retention
from experiments.models import (
    Artifact,
    Block,
    Checkpoint,
    Event,
    Frame,
    Group,
    Headline,
    Param,
    PendingDeletion,
    Project,
    Run,
)
from experiments.states import State
from experiments.store.blocks.cover import BLOCK

from .api_client import API, client_of, get, pointers, problem
from .factories import frame, make_project, make_run, make_user
from .html_form import flowing

pytestmark = [pytest.mark.django_db, pytest.mark.db]


@pytest.fixture
def owner() -> Any:
    return make_user("owner")


@pytest.fixture
def project(owner: Any) -> Project:
    return make_project("lab", owner=owner)


def end(run: Run, state: State = State.SUCCEEDED, days: int = 0) -> Run:
    Run.objects.filter(pk=run.pk).update(state=state, finished=Now() - timedelta(days=days))
    run.refresh_from_db()
    return run


def file_of(run: Run, name: str) -> str:
    path = default_storage.save(name, ContentFile(b"bytes"))
    facts = {"fence": 1, "kind": "file", "media_type": "text/plain", "size": 5}
    Artifact.objects.create(run=run, name=name, path=path, **facts)
    return path


def test_an_owner_reads_and_changes_the_rules_and_what_was_not_sent_stays(owner: Any, project: Project) -> None:
    client = client_of(owner)
    assert get(client, "/projects/")["results"] == [get(client, "/projects/lab/")]
    reply = client.patch(f"{API}/projects/lab/", {"thin_days": 30, "thin_names": "attn/**,eval/*"}, format="json")
    wanted = {"thin_days": 30, "thin_level": 1, "thin_names": "attn/**, eval/*", "delete_days": None}
    assert (reply.status_code, reply.json()) == (200, {"name": "lab", **wanted})
    client.patch(f"{API}/projects/lab/", {"delete_days": 7}, format="json")
    assert get(client, "/projects/lab/") == {"name": "lab", **wanted, "delete_days": 7}


@pytest.mark.parametrize(
    "sent",
    [{"thin_days": 0}, {"thin_days": True}, {"thin_level": 4}, {"thin_names": "a,,b"}, {"delete_days": "7"}, {"no": 1}],
)
def test_a_bad_rule_is_told_at_its_field_and_nothing_changes(owner: Any, project: Project, sent: Any) -> None:
    reply = client_of(owner).patch(f"{API}/projects/lab/", {"delete_days": 3, **sent}, format="json")
    assert pointers(reply) == [f"/{next(iter(sent))}"]
    project.refresh_from_db()
    assert project.delete_days is None


def test_an_editor_looks_at_the_rules_and_a_stranger_finds_no_project(project: Project) -> None:
    editor = make_user()
    project.memberships.create(user=editor, role="editor")
    assert get(client_of(editor), "/projects/lab/")["thin_days"] is None
    problem(client_of(editor).patch(f"{API}/projects/lab/", {"thin_days": 1}, format="json"), 403)
    problem(client_of(make_user()).patch(f"{API}/projects/lab/", {"thin_days": 1}, format="json"), 404)


def test_the_page_keeps_rules_and_tells_a_mistake_beside_its_field(owner: Any, project: Project) -> None:
    client = Client()
    client.force_login(owner)
    good = {"thin_days": "30", "thin_level": "2", "thin_names": "**/head.*", "delete_days": ""}
    assert client.post("/projects/lab/", good)["Location"] == "/projects/lab/"
    project.refresh_from_db()
    assert (project.thin_days, project.thin_level, project.delete_days) == (30, 2, None)
    answer = client.post("/projects/lab/", good | {"thin_days": "soon"})
    assert answer.status_code == 400
    assert b"valid integer" in answer.content
    assert b'value="soon"' in answer.content
    assert "thinned to 256 points per bucket after 30 days" in flowing(client.get("/projects/").content.decode())
    client.force_login(make_user())
    assert client.get("/projects/lab/").status_code == 404


def test_a_deleted_run_is_gone_at_once_and_its_series_and_files_soon_after(owner: Any, project: Project) -> None:
    run, other = end(make_run(project)), make_run(project)
    store.append(run.pk, [frame(0, BLOCK + 9)])
    store.append(other.pk, [frame(0, 9)])
    store.seal_next(Group.objects.get(run=run), 2**60)
    path = file_of(run, "picture.txt")
    client = client_of(owner)
    assert client.delete(f"{API}/runs/{run.pk}/").status_code == 204
    problem(client.get(f"{API}/runs/{run.pk}/"), 404)
    for model in (Event, Param, Headline, Artifact):
        assert not model.objects.filter(run_id=run.pk).exists()
    assert (Block.objects.count(), Frame.objects.count(), default_storage.exists(path)) == (2, 2, True)
    while retention.sweep():
        pass
    assert (Group.objects.get().run, Block.objects.count(), Frame.objects.count()) == (other, 0, 1)
    assert (default_storage.exists(path), PendingDeletion.objects.count()) == (False, 0)


def test_a_run_that_has_not_ended_is_not_deleted_and_a_viewer_deletes_none(owner: Any, project: Project) -> None:
    run = make_run(project)
    assert "cancel it first" in problem(client_of(owner).delete(f"{API}/runs/{run.pk}/"), 409)["detail"]
    viewer = make_user()
    project.memberships.create(user=viewer, role="viewer")
    problem(client_of(viewer).delete(f"{API}/runs/{end(run).pk}/"), 403)
    assert Run.objects.filter(pk=run.pk).exists()


def test_the_checkpoint_that_a_fork_begins_with_outlives_the_parent(project: Project) -> None:
    parent, fork = end(make_run(project)), make_run(project)
    path = default_storage.save("model.safetensors", ContentFile(b"weights"))
    Run.objects.filter(pk=fork.pk).update(parent=parent, parent_step=5)
    for run in (parent, fork):
        Checkpoint.objects.create(run=run, fence=1, step=5, path=path, sha256="", size=7)
    lifecycle.delete_run(parent.pk, None)
    retention.sweep()
    fork.refresh_from_db()
    assert (fork.parent, fork.parent_step, default_storage.exists(path)) == (None, 5, True)
    lifecycle.delete_run(end(fork).pk, None)
    retention.sweep()
    assert not default_storage.exists(path)


def test_a_file_that_the_storage_will_not_remove_is_tried_again(project: Project, monkeypatch: Any) -> None:
    run = end(make_run(project))
    paths = [file_of(run, "one.txt"), file_of(run, "two.txt")]
    lifecycle.delete_run(run.pk, None)

    def refuse(name: str) -> None:
        raise OSError("the storage is away")

    with monkeypatch.context() as patch:
        patch.setattr(default_storage, "delete", refuse)
        assert lifecycle.clear_files(10) == 0
    assert lifecycle.clear_files(10) == 2
    assert not any(default_storage.exists(path) for path in paths)


def test_failed_and_cancelled_runs_are_deleted_when_the_rule_says_so(project: Project) -> None:
    Project.objects.filter(pk=project.pk).update(delete_days=10)
    ages = [(State.FAILED, 11), (State.CANCELLED, 11), (State.FAILED, 9), (State.SUCCEEDED, 99)]
    runs = [end(make_run(project), state, days) for state, days in ages]
    elsewhere = end(make_run(), State.FAILED, 99)
    retention.sweep()
    assert set(Run.objects.all()) == {runs[2], runs[3], elsewhere}
