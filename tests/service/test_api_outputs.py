"""Logs, events, artifacts and their files; workers and the queue."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from experiments import lifecycle
from experiments.models import Artifact, Project, Run, Worker
from experiments.states import State

from .api_client import API, client_of, get, needs_database, pointers, problem
from .factories import claim, make_experiment, make_run, make_user, make_worker

pytestmark = needs_database
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _own_files(settings: Any, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path


def add(run: Run, name: str, *, step: int | None, kind: str = "prediction", media: str = "image/png") -> Artifact:
    held = lifecycle.Held(run.pk, 1)
    path = default_storage.save(f"runs/{run.pk}/1/{step}-{Path(name).name}", ContentFile(PNG))
    facts = {"kind": kind, "name": name, "step": step, "media_type": media, "path": path}
    lifecycle.add_artifact(held, size=len(PNG), meta={"prompt": "红色的车"}, **facts)  # type: ignore[arg-type]
    return Artifact.objects.get(run=run, name=name, step=step)


@pytest.fixture
def run(project: Project) -> Run:
    run = make_run(project)
    claim(run)
    return run


def test_a_log_is_read_on_from_where_one_was(api: APIClient, run: Run) -> None:
    for line in ("one", "two", "three"):
        lifecycle.add_log(lifecycle.Held(run.pk, 1), line)
    rows = get(api, f"/runs/{run.pk}/logs/")["results"]
    assert [row["text"] for row in rows] == ["one", "two", "three"]
    assert rows[0]["attempt"] == 1
    after = get(api, f"/runs/{run.pk}/logs/", after=rows[1]["id"])["results"]
    assert [row["text"] for row in after] == ["three"]
    page = get(api, f"/runs/{run.pk}/logs/", limit=2)
    assert [row["text"] for row in api.get(page["next"]).json()["results"]] == ["three"]


def test_events_tell_who_did_what(api: APIClient, run: Run) -> None:
    rows = get(api, f"/runs/{run.pk}/events/")["results"]
    assert [row["to_state"] for row in rows] == ["queued", "claimed", "running"]
    assert rows[1]["actor"] == "worker"
    assert get(api, f"/runs/{run.pk}/events/", after=rows[-1]["id"])["results"] == []


def test_predictions_come_newest_step_first_with_an_address_that_serves_them(api: APIClient, run: Run) -> None:
    for step in (9, 19):
        add(run, "sample-0.png", step=step)
    add(run, "notes.txt", step=None, kind="file", media="text/plain")
    rows = get(api, f"/runs/{run.pk}/predictions/")["results"]
    assert [(row["step"], row["meta"]) for row in rows] == [(step, {"prompt": "红色的车"}) for step in (19, 9)]
    assert [row["name"] for row in get(api, f"/runs/{run.pk}/predictions/", step=9)["results"]] == ["sample-0.png"]
    every = get(api, f"/runs/{run.pk}/artifacts/")["results"]
    assert [row["step"] for row in every] == [19, 9, None]
    assert len(get(api, f"/runs/{run.pk}/artifacts/", kind="file")["results"]) == 1
    reply = api.get(rows[0]["url"])
    assert (reply.status_code, reply.getvalue()) == (200, PNG)


def test_a_picture_is_shown_in_place_and_cannot_act(member: Any, run: Run) -> None:
    picture = add(run, "sample-0.png", step=1)
    browser = Client()
    browser.force_login(member)
    reply = browser.get(f"/artifacts/{picture.pk}/")
    assert reply["Content-Type"] == "image/png"
    assert reply["Content-Disposition"].startswith("inline")
    assert reply["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in reply["Content-Security-Policy"]
    assert "private" in reply["Cache-Control"]


@pytest.mark.parametrize("media", ["text/html", "image/svg+xml", "application/json"])
def test_anything_else_is_a_download_of_plain_bytes(api: APIClient, run: Run, media: str) -> None:
    file = add(run, 'a/"b"\r\n车.html', step=1, kind="file", media=media)
    reply = api.get(f"/artifacts/{file.pk}/")
    assert reply["Content-Type"] == "application/octet-stream"
    assert reply["Content-Disposition"].startswith("attachment")
    assert "\n" not in reply["Content-Disposition"]


def test_files_are_hidden_from_strangers_and_never_leave_their_folder(api: APIClient, run: Run) -> None:
    file = add(run, "sample-0.png", step=1)
    problem(client_of().get(f"/artifacts/{file.pk}/"), 401)
    problem(client_of(make_user()).get(f"/artifacts/{file.pk}/"), 404)
    problem(api.get("/artifacts/99999999999999999999999/"), 404)
    for path in ("../../etc/passwd", "/etc/passwd", "runs/gone.png"):
        Artifact.objects.update(path=path)
        problem(api.get(f"/artifacts/{file.pk}/"), 404)


def test_workers_tell_what_they_hold_and_whether_they_are_alive(api: APIClient, run: Run) -> None:
    silent = make_worker("silent")
    Worker.objects.filter(pk=silent.pk).update(last_seen=Now() - timedelta(hours=1))
    rows = {row["name"]: row for row in get(api, "/workers/")["results"]}
    assert rows["silent"]["alive"] is False
    (busy,) = (row for row in rows.values() if row["held"])
    name = run.experiment.name
    assert busy["runs"] == [{"id": run.pk, "name": name, "state": "running", "step": 0, "steps": 20}]


def test_the_line_goes_by_priority_and_then_by_age(api: APIClient, project: Project) -> None:
    low, high, late = (make_run(project, priority=priority) for priority in (0, 5, 5))
    make_run(project, pool="gpu")
    make_worker(pools=("cpu", "idle"), slots=2)
    pools = {row["pool"]: row for row in get(api, "/queue/")["pools"]}
    assert [row["id"] for row in pools["cpu"]["next"]] == [high.pk, late.pk, low.pk]
    assert (pools["cpu"]["queued"], pools["cpu"]["workers"], pools["cpu"]["slots"]) == (3, 1, 2)
    assert (pools["gpu"]["queued"], pools["gpu"]["workers"]) == (1, 0)
    assert (pools["idle"]["queued"], pools["idle"]["workers"]) == (0, 1)


def test_a_long_line_shows_only_its_head(api: APIClient, project: Project) -> None:
    make_experiment(project, seeds=list(range(30)))
    (pool,) = get(api, "/queue/")["pools"]
    assert (pool["queued"], len(pool["next"])) == (30, 20)


@pytest.mark.parametrize("path", ["/workers/", "/queue/", "/runs/{run}/events/", "/runs/{run}/artifacts/"])
def test_lists_cost_the_same_however_long_they_are(api: APIClient, project: Project, path: str) -> None:
    run = make_run(project)
    held = claim(run).held
    counts = []
    for turn in range(2):
        for other in range(3):
            make_run(project)
            worker = make_worker()
            Run.objects.filter(pk=make_run(project).pk).update(worker=worker, state=State.RUNNING)
            add(run, f"{turn}-{other}.png", step=other)
            lifecycle.add_log(held, "line")
        with CaptureQueriesContext(connection) as queries:
            get(api, path.format(run=run.pk))
        counts.append(len(queries))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("path", ["logs/?since=1", "events/?after=-1", "artifacts/?kinds=x", "predictions/?kind=map"])
def test_unknown_or_impossible_parameters_are_refused(api: APIClient, run: Run, path: str) -> None:
    assert len(pointers(api.get(f"{API}/runs/{run.pk}/{path}"))) == 1
