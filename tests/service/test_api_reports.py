"""Report, verdict and seeds over REST."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.test import Client
from scipy import stats

from experiments.models import Event, Experiment, Param, Project, Run
from experiments.spec.revision import REVISION
from experiments.states import State

from .api_client import API, client_of, get, needs_database, pointers, problem
from .factories import make_experiment, make_project, make_user, make_worker
from .verdict_runs import BOTH_HEADS, INFO, ONE_HEAD, accuracies, finish, finished, submit

pytestmark = needs_database


@pytest.fixture
def role() -> str:
    return "editor"


def seeds(member: Any, experiment: Experiment, *wanted: Any) -> Any:
    path = f"{API}/experiments/{experiment.pk}/seeds/"
    return client_of(member).post(path, {"seeds": list(wanted)}, format="json")


def test_the_report_holds_variants_by_seeds_with_means_and_intervals(member: Any, project: Project) -> None:
    experiment = finished(accuracies, project, **ONE_HEAD)
    found = get(client_of(member), f"/experiments/{experiment.pk}/report/")
    assert (found["metric"], found["seeds"]) == ("test/accuracy", list(range(8, 16)))
    assert [row["label"] for row in found["variants"]][:2] == ["full, heads 1", "no_q, heads 1"]
    full = found["variants"][0]
    values = np.array([one["value"] for one in full["seeds"]])
    assert full["n"] == len(values) == 8
    assert (full["mean"], full["std"]) == pytest.approx((values.mean(), values.std(ddof=1)))
    whole = stats.t.interval(0.95, 7, values.mean(), stats.sem(values))
    assert (full["low"], full["high"]) == pytest.approx(whole)
    assert {one["run"] for one in full["seeds"]} <= set(experiment.runs.values_list("pk", flat=True))


def test_its_tests_are_paired_and_corrected(member: Any, project: Project) -> None:
    experiment = finished(accuracies, project, **ONE_HEAD)
    found = get(client_of(member), f"/experiments/{experiment.pk}/report/")
    full, no_q = ([one["value"] for one in row["seeds"]] for row in found["variants"][:2])
    test = found["tests"][0]
    assert (test["variant"], test["reference"], test["n"]) == ("no_q, heads 1", "full, heads 1", 8)
    assert test["p"] == pytest.approx(stats.ttest_rel(no_q, full).pvalue, rel=1e-6)
    assert test["difference"] == pytest.approx(np.mean(full) - np.mean(no_q))  # the sign of the verdict's w-q
    assert next(one for one in found["verdict"]["comparisons"] if one["id"] == "w-q")["estimate"] == test["difference"]
    assert len(found["tests"]) == 5
    assert all(one["p"] <= one["p_adjusted"] <= 1 for one in found["tests"])
    assert {one["variant"].split(",")[0]: one["conclusion"] for one in found["tests"]}["const_q"] == "smaller"


def test_another_series_can_be_asked_for(member: Any, project: Project) -> None:
    experiment = finished(accuracies, project, seeds=[0, 1], **ONE_HEAD)
    found = get(client_of(member), f"/experiments/{experiment.pk}/report/", metric="test/mode_guess")
    assert found["variants"][0]["mean"] == pytest.approx(0.21, abs=0.01)
    assert found["metrics"] == ["test/accuracy", "test/mode_guess"]
    odd = client_of(member).get(f"{API}/experiments/{experiment.pk}/report/", {"metric": "no/such"})
    assert pointers(odd) == ["/metric"]


def test_the_report_of_a_preset_brings_its_verdict(member: Any, project: Project) -> None:
    experiment = finished(accuracies, project, **BOTH_HEADS)
    verdict = get(client_of(member), f"/experiments/{experiment.pk}/report/")["verdict"]
    assert verdict["verdict"] == "mixed"
    by_id = {one["id"]: one for one in verdict["comparisons"]}
    assert by_id["asking"]["result"] == "supported"
    assert by_id["asking-scenes"]["value"]["problem"].startswith("no variant here has task = segment")
    assert by_id["w-q"]["low"] < by_id["w-q"]["estimate"] < by_id["w-q"]["high"] < 0.02


def test_an_experiment_of_ones_own_has_a_report_without_a_verdict(member: Any, project: Project) -> None:
    found = get(client_of(member), f"/experiments/{make_experiment(project).pk}/report/")
    assert (found["verdict"], found["variants"][0]["label"]) == (None, "base spec")
    assert found["variants"][0]["missing"] == [0]


def test_a_presets_verdict_is_computed_from_what_the_caller_may_see(member: Any, project: Project) -> None:
    finished(accuracies, project, **BOTH_HEADS)
    assert get(client_of(member), "/presets/why-q/verdict/")["verdict"] == "mixed"
    theirs = get(client_of(make_user()), "/presets/why-q/verdict/")
    assert theirs["verdict"] == "inconclusive"
    assert theirs["comparisons"][0]["value"]["seeds"] == []


def test_a_verdict_of_what_has_none_is_not_found(member: Any) -> None:
    assert "does not exist" in problem(client_of(member).get(f"{API}/presets/nope/verdict/"), 404)["detail"]
    assert "has no verdict" in problem(client_of(member).get(f"{API}/presets/sam3-lite-digits/verdict/"), 404)["detail"]


def test_a_stranger_finds_no_report(project: Project) -> None:
    experiment = submit(project, seeds=[0], **ONE_HEAD)
    problem(client_of(make_user()).get(f"{API}/experiments/{experiment.pk}/report/"), 404)


def test_added_seeds_make_one_run_of_every_variant(member: Any, project: Project) -> None:
    experiment = submit(project, seeds=[0, 1], **ONE_HEAD)
    hashed = experiment.spec_hash
    reply = seeds(member, experiment, 5, 1, 7, 5)
    assert reply.status_code == 200, reply.content
    assert reply.json()["seeds"] == [0, 1, 5, 7]
    assert [run["seed"] for run in reply.json()["added"]] == [5, 7] * 6
    experiment.refresh_from_db()
    assert (experiment.seeds, experiment.spec_hash, experiment.runs.count()) == ([0, 1, 5, 7], hashed, 24)
    new = experiment.runs.filter(seed=7).order_by("index")
    assert [run.spec["model"]["attention"]["variant"] for run in new] == ONE_HEAD["matrix"]["model.attention.variant"]  # type: ignore[index]
    assert {run.state for run in new} == {State.QUEUED}
    assert {run.spec["seed"] for run in new} == {7}
    event = Event.objects.get(run=new[0])
    assert (event.kind, event.who) == ("submitted", member.get_username())
    assert "seed" in event.message
    assert Param.objects.get(run=new[0], key="seed").text == "7"


def test_each_time_that_seeds_are_added_the_tests_are_held_against_less(member: Any, project: Project) -> None:
    experiment = finished(accuracies, project, seeds=[8, 9], **ONE_HEAD)
    path = f"/experiments/{experiment.pk}/report/"
    assert get(client_of(member), path)["looks"] == 1
    seeds(member, experiment, 10)
    seeds(member, experiment, 11, 12)
    found = get(client_of(member), path)
    assert found["looks"] == 3
    shares = [0.0016 / left for left in range(1, 6)]
    assert all(any(one["alpha"] == pytest.approx(share) for share in shares) for one in found["tests"])


def test_nothing_is_tested_while_seeds_are_still_to_come(member: Any, project: Project) -> None:
    """Each finished run would be a look; up to eight of them decide wrongly in 14 %, where 4 % are meant."""
    experiment, worker = submit(project, seeds=[8, 9, 10], **ONE_HEAD), make_worker()
    for run in list(experiment.runs.order_by("pk"))[:-1]:
        finish(run, accuracies(run), worker)
    path = f"/experiments/{experiment.pk}/report/"
    tests = {one["variant"]: one for one in get(client_of(member), path)["tests"]}
    assert {name: one["untested"] for name, one in tests.items() if one["untested"]} == {
        "uniform, heads 1": "not tested until all runs have ended; unfinished: 1"
    }
    assert tests["uniform, heads 1"]["p"] is None
    finish(experiment.runs.latest("pk"), accuracies(experiment.runs.latest("pk")), worker)
    assert all(one["p"] is not None for one in get(client_of(member), path)["tests"])


def test_submitting_again_is_a_look_as_adding_seeds_is(member: Any, project: Project) -> None:
    finished(accuracies, project, seeds=[8, 9], **ONE_HEAD)
    alone = {**ONE_HEAD, "matrix": {"model.attention.variant": ["full"], "model.heads": [1]}}
    finished(accuracies, project, seeds=[11], **alone)  # one variant alone compares nothing
    again = submit(project, seeds=[8, 9, 10, 11], **ONE_HEAD)
    assert get(client_of(member), f"/experiments/{again.pk}/report/")["looks"] == 2


def test_an_experiment_that_departs_from_its_preset_has_none_of_its_verdict(member: Any, project: Project) -> None:
    changed = {"model.attention.variant": ["full", "const_q"], "model.heads": [1], "train.steps": [7]}
    experiment = finished(accuracies, project, preset="why-q", matrix=changed, seeds=[8, 9])
    found = get(client_of(member), f"/experiments/{experiment.pk}/report/")
    assert (found["verdict"], "train.steps" in found["departs_in"]) == (None, True)
    client = Client()
    client.force_login(member)
    page = client.get(f"/experiments/{experiment.pk}/").content.decode()
    assert "differs from it in" in page
    part = get(client_of(member), f"/experiments/{finished(accuracies, project, seeds=[8], **ONE_HEAD).pk}/report/")
    assert (part["departs_in"], part["verdict"]["preset"]) == ([], "why-q")


def test_one_seed_is_no_test(member: Any, project: Project) -> None:
    experiment = finished(accuracies, project, seeds=[8], **ONE_HEAD)
    tests = get(client_of(member), f"/experiments/{experiment.pk}/report/")["tests"]
    assert {(one["p"], one["p_adjusted"], one["conclusion"], one["more_seeds"]) for one in tests} == {
        (None, None, "untested", 1)
    }


def test_added_seeds_have_the_hashes_that_a_submission_gives_them(member: Any, project: Project) -> None:
    grown, whole = submit(project, seeds=[0], **ONE_HEAD), submit(project, seeds=[0, 3], **ONE_HEAD)
    seeds(member, grown, 3)
    hashes = [set(one.runs.values_list("spec_hash", flat=True)) for one in (grown, whole)]
    assert hashes[0] == hashes[1]


def test_adding_seeds_that_are_there_changes_nothing(member: Any, project: Project) -> None:
    experiment = submit(project, seeds=[0, 1], **ONE_HEAD)
    assert [len(seeds(member, experiment, 2).json()["added"]) for _ in range(2)] == [6, 0]
    assert seeds(member, experiment, 0, 1, 2).json()["added"] == []
    assert Run.objects.filter(experiment=experiment).count() == 18


def test_bad_seeds_are_refused_by_name(member: Any, project: Project, settings: Any) -> None:
    experiment = submit(project, seeds=[0], **ONE_HEAD)
    assert pointers(seeds(member, experiment, 1, -1)) == ["/seeds/1"]
    assert pointers(seeds(member, experiment, True)) == ["/seeds/0"]
    assert pointers(seeds(member, experiment)) == ["/seeds"]
    path = f"{API}/experiments/{experiment.pk}/seeds/"
    assert pointers(client_of(member).post(path, {"seed": [1]}, format="json")) == ["/seeds", "/seed"]
    settings.ATTN_MAX_RUNS = 11
    assert "12 runs" in seeds(member, experiment, 1).json()["errors"][0]["message"]
    assert experiment.runs.count() == 6


def test_only_editors_add_seeds(project: Project) -> None:
    viewer = make_user()
    experiment = submit(make_project(viewer=viewer), seeds=[0], **ONE_HEAD)
    problem(seeds(viewer, experiment, 1), 403)
    problem(seeds(make_user(), experiment, 1), 404)


def test_the_report_says_which_runs_of_the_same_specs_are_left_out(member: Any, project: Project) -> None:
    experiment = submit(project, **ONE_HEAD)
    worker = make_worker()
    for at, run in enumerate(experiment.runs.order_by("pk")):
        finish(run, accuracies(run), worker, {**INFO, "revision": 1} if at < 2 else INFO)
    body = get(client_of(member), f"/experiments/{experiment.pk}/report/")
    assert (body["evidence"]["revision"], body["evidence"]["device_kind"]) == (REVISION, "cpu")
    (left,) = body["evidence"]["left_out"]
    assert (left["runs"], left["differs"]) == (2, {"revision": {"theirs": "1", "used": str(REVISION)}})
    assert body["verdict"]["evidence"] == body["evidence"]


def test_the_page_says_it_too(member: Any, project: Project) -> None:
    experiment = submit(project, **ONE_HEAD)
    worker = make_worker()
    for at, run in enumerate(experiment.runs.order_by("pk")):
        finish(run, accuracies(run), worker, {**INFO, "torch": "1.9.0"} if at < 2 else INFO)
    client = Client()
    client.force_login(member)
    page = client.get(f"/experiments/{experiment.pk}/report/").content.decode()
    assert f"2 runs of the same specs are left out: torch 1.9 (used: {INFO['torch']})" in page
