"""Stored attention maps over REST: the newest up to a step, a sample, a site; what is missing is said."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from experiments import lifecycle
from experiments.models import Run

from .api_client import API, client_of, get, needs_database, problem
from .factories import claim, make_project, make_run, make_user, train

pytestmark = needs_database
SITE = "encoder.0.self"


@pytest.fixture
def user(settings: Any, tmp_path: Path) -> Any:
    settings.MEDIA_ROOT = tmp_path
    return make_user()


@pytest.fixture
def run(user: Any) -> Run:
    """Maps of steps 0 and 10: sample 1 attends to position 0 with `step + 100` of 255."""
    run = make_run(make_project(viewer=user))
    held = claim(run).held
    train(held, 0, 20)
    for step in (0, 10):
        small = np.zeros((1, 2, 2), np.uint8)
        arrays = {f"0/{SITE}": small, f"1/{SITE}": small + np.uint8([[step + 100, 255], [0, 0]])}
        file = io.BytesIO()
        np.savez_compressed(file, **arrays, **{f"{key}/scale": np.float32([0.5]) for key in arrays})
        sites = [{"name": SITE, "heads": 1, "asks": "token", "answers": "token"}]
        keep(held, "maps", step, file.getvalue(), {"sites": sites, "samples": 2, "side": 64})
    keep(held, "samples", None, json.dumps([{"tokens": ["a"]}, {"tokens": ["b", "c"], "secret": 1}]).encode(), {})
    return run


def keep(held: lifecycle.Held, name: str, step: int | None, data: bytes, meta: dict[str, Any]) -> None:
    path = default_storage.save(f"runs/{held.run_id}/{name}-{step}", ContentFile(data))
    facts = {"kind": "map", "media_type": "application/octet-stream", "path": path, "size": len(data), "meta": meta}
    lifecycle.add_artifact(held, name=name, step=step, **facts)  # type: ignore[arg-type]


def test_the_newest_map_up_to_a_step_is_told_with_what_it_is_of(user: Any, run: Run) -> None:
    client = client_of(user)
    told = get(client, f"/runs/{run.pk}/attention/", sample=1, step=7)
    assert (told["step"], told["steps"], told["site"]) == (0, [0, 10], SITE)
    assert told["about"] == {"tokens": ["b", "c"]}
    assert told["weights"][0][0] == pytest.approx([100 / 255 / 2, 0.5], abs=1e-4)
    newest = get(client, f"/runs/{run.pk}/attention/", sample=1)
    assert newest["step"] == 10
    assert newest["weights"][0][0][0] == pytest.approx(110 / 255 / 2, abs=1e-4)


def test_what_is_not_stored_is_said(user: Any, run: Run) -> None:
    client = client_of(user)
    bare = make_run(run.project)
    assert "no attention maps" in get(client, f"/runs/{bare.pk}/attention/")["missing"]
    for query, words in (({"site": "decoder.9.text"}, SITE), ({"sample": 2}, "samples 0 to 1 are")):
        (error,) = problem(client.get(f"{API}/runs/{run.pk}/attention/", query), 400)["errors"]  # type: ignore[arg-type]
        assert words in error["message"]
    run.artifacts.filter(name="maps").update(path="nowhere")
    reply = client.get(f"{API}/runs/{run.pk}/attention/")
    assert "no longer stored" in problem(reply, 404)["detail"]
