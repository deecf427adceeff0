"""The written page, its pictures, and what `make verdicts` submits."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from experiments import lifecycle
from experiments.models import Run
from experiments.states import Reason
from experiments.verdicts.campaign import campaign
from experiments.verdicts.document import write

from .factories import claim, make_project, make_user, make_worker
from .verdict_runs import ONE_HEAD, accuracies, finish, finished

pytestmark = [pytest.mark.django_db, pytest.mark.db]


@pytest.fixture
def reader() -> Any:
    return make_user(is_superuser=True)


def test_a_campaign_submits_every_spec_once_also_across_presets(reader: Any) -> None:
    wanted = campaign(quick=True)
    project = make_project(owner=reader)
    count = wanted.submit_missing(project, reader)
    assert count == len(wanted.hashes) == Run.objects.count() == Run.objects.values("spec_hash").distinct().count()
    assert {run.spec["task"] for run in Run.objects.all()} == {"pointer", "roles"}
    assert sum(len(planned.runs) for planned in wanted.plans) > count  # learn-qkv's full runs are those of why-q
    assert wanted.submit_missing(project, reader) == 0


def test_a_campaign_takes_up_what_is_wanting(reader: Any) -> None:
    project = make_project(owner=reader)
    wanted = campaign(quick=True)
    wanted.submit_missing(project, reader)
    first, second = Run.objects.order_by("pk")[:2]
    finish(first, {"test/accuracy": 1.0}, make_worker())
    taken = claim(second)
    lifecycle.fail(taken.held, Reason.ERROR, "boom")
    now = wanted.progress()
    assert (now.wanted, now.succeeded, now.failed, now.done) == (len(wanted.hashes), 1, 1, False)
    assert wanted.submit_missing(project, reader) == 1
    assert wanted.progress().failed == 0


def test_the_page_tells_what_was_measured(reader: Any, tmp_path: Path) -> None:
    finished(accuracies, **ONE_HEAD)
    text = write(tmp_path, reader, quick=False).read_text("utf-8")
    assert "| [`why-q`](#why-q) | **mixed** | 8 of 8 |" in text
    row = next(line for line in text.splitlines() if line.startswith("| Asking matters. With one query"))
    assert "0.590 [0.5" in row
    assert row.endswith("| supported |")
    assert "no variant here has task = segment" in text
    for name in ("why-q", "why-q-variants"):
        picture = ET.parse(tmp_path / "images" / "verdicts" / f"{name}.svg").getroot()
        assert picture.tag.endswith("svg")
        assert f"images/verdicts/{name}.svg" in text


def test_a_quick_page_says_that_it_concludes_nothing(reader: Any, tmp_path: Path) -> None:
    finished(accuracies, seeds=[0, 1, 2], **ONE_HEAD)
    text = write(tmp_path, reader, quick=True).read_text("utf-8")
    assert "This is the quick pass" in text
    assert "inconclusive: 3 of 8 seeds, so far above the margin |" in text
    assert "**supported**" not in text
