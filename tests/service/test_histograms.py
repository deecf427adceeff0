"""The histograms of a run's page: drawn from the files that its probes kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import Client

from experiments.models import Artifact, Run
from tests.service.factories import make_project, make_run, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(settings: Any, tmp_path: Path) -> Run:
    settings.MEDIA_ROOT = tmp_path
    return make_run(make_project("lab", viewer=make_user("vi")))


def _keep(run: Run, step: int, row: list[int]) -> None:
    counts = {f"{what}/encoder.0.self/{name}": row for what in ("gradient", "weight") for name in ("W_k", "W_q")}
    text = json.dumps({"step": step, "lowest": -10, "highest": 2, "per_decade": 4, "counts": counts})
    path = default_storage.save(f"runs/{run.pk}/{step}.json", ContentFile(text.encode()))
    about = {"fence": 1, "kind": "file", "name": "histograms", "media_type": "application/json", "size": len(text)}
    Artifact.objects.create(run=run, step=step, path=path, **about)


def _page(run: Run, **asked: str) -> str:
    client = Client()
    client.force_login(get_user_model().objects.get(username="vi"))
    return client.get(f"/runs/{run.pk}/histograms/", asked).content.decode()


def test_a_run_without_probes_says_so(run: Run) -> None:
    assert "Histograms appear after the first probe" in _page(run)


def test_each_bin_that_holds_something_is_drawn_once_a_probe(run: Run) -> None:
    for step, at in ((0, 10), (100, 12)):
        row = [0] * 51
        row[at], row[at + 1], row[50] = 30, 10, 2
        _keep(run, step, row)
    text = _page(run, of="weight", matrix="encoder.0.self/W_q")
    assert text.count("<rect") == 4
    assert "step 100: 30 of 42" in text
    assert "4 entries were not finite" in text
    assert '<option value="encoder.0.self/W_q" selected>' in text
    assert '<option value="encoder.0.self/W_k" selected>' in _page(run, matrix="no/such", of="<b>")
