"""The written page, its pictures, and what `make verdicts` submits."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from pytest_django.asserts import assertContains, assertNotContains

from experiments import lifecycle
from experiments.models import Run
from experiments.spec.revision import REVISION
from experiments.states import Reason
from experiments.verdicts.campaign import campaign
from experiments.verdicts.document import write
from experiments.verdicts.verdict import all_verdicts

from .factories import claim, make_project, make_user, make_worker
from .verdict_runs import BOTH_HEADS, INFO, ONE_HEAD, accuracies, finish, finished

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
    finished(accuracies, **BOTH_HEADS)
    text = write(tmp_path, reader, quick=False).read_text("utf-8")
    assert "| [`why-q`](#why-q) | **mixed** | 8 of 8 |" in text
    assert "On scenes the model is that of [`sam3-lite`](#sam3-lite)" in text
    assert text.count("- The score's matching cost is") == 1
    row = next(line for line in text.splitlines() if line.startswith("| Asking matters. With one query"))
    assert "0.590 [0.5" in row
    assert row.endswith("| supported |")
    for name in ("why-q", "why-q-variants"):
        picture = ET.parse(tmp_path / "images" / "verdicts" / f"{name}.svg").getroot()
        assert picture.tag.endswith("svg")
        assert f"images/verdicts/{name}.svg" in text


def test_a_quick_page_says_that_it_concludes_nothing(reader: Any, tmp_path: Path) -> None:
    finished(accuracies, seeds=[8, 9, 10], **ONE_HEAD)
    text = write(tmp_path, reader, quick=True).read_text("utf-8")
    assert "This is the quick pass" in text
    assert "inconclusive: 3 of 8 seeds, none trained at 11, 12, 13, 14, 15 |" in text
    assert "**supported**" not in text


def browser(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_the_experiment_page_shows_verdict_comparisons_and_variants(reader: Any) -> None:
    experiment = finished(accuracies, **BOTH_HEADS)
    page = browser(reader).get(f"/experiments/{experiment.pk}/")
    assertContains(page, "verdict-mixed")
    assertContains(page, "only the product")
    assertContains(page, '<span class="result result-not-supported">not supported</span>', html=True)
    assertContains(page, "full, heads 1 − const_q, heads 1: const_q, heads 1 is smaller")
    assertContains(page, "attn/pages/report.js")


def test_the_report_follows_a_live_experiment_part_by_part(reader: Any) -> None:
    experiment = finished(accuracies, seeds=[0], **ONE_HEAD)
    client, path = browser(reader), f"/experiments/{experiment.pk}/report/"
    assert client.get(path)["X-Next-Poll"] == "0"
    lifecycle.append_seeds(experiment.pk, [1], reader, max_runs=100)
    assert client.get(path)["X-Next-Poll"] == "5"
    assertContains(client.get(path, {"part": "verdict"}), "Inconclusive")
    assertContains(client.get(path, {"metric": "test/mode_guess"}), "test/mode_guess")


def test_the_page_adds_as_many_seeds_as_are_wanting(reader: Any) -> None:
    experiment = finished(accuracies, seeds=[8, 10], **ONE_HEAD)
    client = browser(reader)
    assert client.get(f"/experiments/{experiment.pk}/").context["more"] == 6
    reply = client.post(f"/experiments/{experiment.pk}/seeds/", {"more": "7"}, follow=True)
    assertContains(reply, "Added seeds 9, 11, 12, 13, 14, 15, 16: 42 runs are queued.")
    experiment.refresh_from_db()
    assert experiment.seeds == [8, 10, 9, 11, 12, 13, 14, 15, 16]
    assert client.get(f"/experiments/{experiment.pk}/").context["more"] == 0


def test_a_count_that_is_none_adds_no_seeds(reader: Any) -> None:
    experiment = finished(accuracies, seeds=[0], **ONE_HEAD)
    for text in ("", "0", "-1", "many", "101"):
        reply = browser(reader).post(f"/experiments/{experiment.pk}/seeds/", {"more": text}, follow=True)
        assertContains(reply, "a whole number from 1 to 100")
    assert experiment.runs.count() == 6


def test_viewers_add_no_seeds() -> None:
    viewer = make_user()
    experiment = finished(accuracies, make_project(viewer=viewer), seeds=[0], **ONE_HEAD)
    assert browser(viewer).post(f"/experiments/{experiment.pk}/seeds/", {"more": "1"}).status_code == 403
    assertNotContains(browser(viewer).get(f"/experiments/{experiment.pk}/"), "Add seeds")
    assertContains(browser(make_user(is_superuser=True)).get(f"/experiments/{experiment.pk}/"), "Add seeds")
    assert browser(make_user()).get(f"/experiments/{experiment.pk}/report/").status_code == 404


def test_a_presets_card_shows_its_verdict(reader: Any, django_assert_max_num_queries: Any) -> None:
    assertNotContains(browser(reader).get("/"), "verdict-chip")
    finished(accuracies, **BOTH_HEADS)
    page = browser(reader).get("/")
    assertContains(page, "verdict-chip verdict-mixed")
    assertContains(page, "from 8 of 8 seeds")
    with django_assert_max_num_queries(6):
        assert all_verdicts(reader)["why-q"].result == "mixed"


def test_the_page_names_the_key_of_its_runs_and_what_is_left_out(reader: Any, tmp_path: Path) -> None:
    experiment = finished(accuracies, **ONE_HEAD)
    experiment.runs.filter(seed=8).update(device_kind="cuda")
    text = write(tmp_path, reader, quick=False).read_text("utf-8")
    assert f"training revision {REVISION}, torch {INFO['torch']}, cpu." in text
    assert "6 runs of the same specs are left out: device cuda (used: cpu)." in text
    assert "| [`why-q`](#why-q) | **inconclusive** | 7 of 8 |" in text


def test_a_campaign_trains_again_what_another_revision_trained(reader: Any) -> None:
    wanted = campaign(quick=True)
    wanted.submit_missing(make_project(owner=reader), reader)
    first = Run.objects.earliest("pk")
    finish(first, {"test/accuracy": 1.0}, make_worker(), {**INFO, "revision": REVISION - 1})
    assert wanted.progress().succeeded == 0
    assert wanted.submit_missing(make_project(), reader) == 1
