"""Variants that are one are told as such: by what they train, and by what they recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.test import Client

from experiments import lifecycle, store
from experiments.maintenance.reconciler import digest_undigested
from experiments.models import Experiment, Project, Run
from experiments.submissions.presets import presets
from experiments.verdicts.sameness import alarms_of

from .api_client import client_of, get, needs_database
from .factories import make_experiment, make_project, make_user, make_worker

pytestmark = needs_database
POINTER = {"task": "pointer", "data": {"dataset": "pointer"}, "train": {"steps": 4}, "optimizer": {"warmup_steps": 1}}


def finish(run: Run, values: list[float], times: float = 1.0, system: float = 0.0) -> None:
    """Claim the run and let it succeed with these losses."""
    taken = lifecycle.claim([run.pool], make_worker())
    assert taken is not None
    assert taken.held.run_id == run.pk
    lifecycle.start(taken.held, pid=1, device="cpu", info={})
    steps, seconds = np.arange(run.steps), np.arange(run.steps) * times
    rows = np.array([[value, times] for value in values], np.float32)
    frames = [
        store.Incoming("train", ["loss/total", "time/step_ms"], steps, seconds, rows),
        store.Incoming("system", ["system/cpu"], steps[-1:], seconds[-1:], np.array([[system]], np.float32)),
    ]
    lifecycle.commit(taken.held, 0, run.steps, frames)
    lifecycle.succeed(taken.held)


def as_the_old_form_stored_it(project: Project) -> Experiment:
    """token-roles, variants full and const_q, with the overrides that a browser posted for every kind of site."""
    matrix = {"model.attention.variant": ["full", "const_q"]}
    experiment = make_experiment(project, spec=presets()["token-roles"].spec, matrix=matrix, seeds=[0, 1])
    for run in experiment.runs.all():
        by_kind = run.spec["model"]["attention"]["by_kind"]
        run.spec["model"]["attention"]["by_kind"] = {kind: {"variant": "full"} for kind in by_kind}
        run.save(update_fields=["spec"])
    return experiment


def test_variants_overridden_at_every_site_are_told_red_on_the_page_and_in_the_report(client: Client) -> None:
    user = make_user()
    experiment = as_the_old_form_stored_it(make_project(owner=user))
    (alarm,) = get(client_of(user), f"/experiments/{experiment.pk}/report/")["alarms"]
    assert alarm["kind"] == "same_training"
    assert alarm["fields"] == ["model.attention.variant"]
    assert alarm["variants"] == ["full", "const_q"]
    client.force_login(user)
    for address in (f"/experiments/{experiment.pk}/", f"/experiments/{experiment.pk}/report/"):
        html = client.get(address).content.decode()
        assert "notice-bad" in html
        assert "full and const_q differ in model.attention.variant but train the same" in html


def kinds_of(experiment: Experiment) -> list[tuple[str, list[str]]]:
    return [(alarm.kind, alarm.fields) for alarm in alarms_of(experiment)]


@pytest.mark.parametrize(
    ("spec", "matrix", "fields"),
    [
        ({}, {"optimizer.momentum": [0.0, 0.5]}, ["optimizer.momentum"]),
        ({}, {"optimizer.drop_factor": [0.1, 0.5]}, ["optimizer.drop_factor"]),
        ({}, {"model.attention.d_k": [None, 64]}, ["model.attention.d_k"]),
        ({}, {"model.attention.by_kind.text.variant": [None, "no_q"]}, ["model.attention.by_kind.text.variant"]),
        ({}, {"model.attention": [{}, {"by_kind": {"self": {"variant": "full"}}}]},
         ["model.attention.by_kind.self.variant"]),
        ({"optimizer": {"name": "sgd", "warmup_steps": 1}}, {"optimizer.beta1": [0.9, 0.5]}, ["optimizer.beta1"]),
    ],
)  # fmt: skip
def test_a_varied_training_field_without_a_part_in_the_training_is_red(
    spec: dict[str, Any], matrix: dict[str, Any], fields: list[str]
) -> None:
    assert kinds_of(make_experiment(spec={**POINTER, **spec}, matrix=matrix)) == [("same_training", fields)]


@pytest.mark.parametrize(
    "matrix",
    [
        {"model.attention.variant": ["full", "no_q"]},
        {"optimizer.clip_norm": [0.1, None]},
        {"record.every": [1, 2]},
        {"resources.threads": [1, 2]},
        {"train.eval_every": [2, 4]},
        {"model.attention.by_kind.self.variant": ["full", "no_q"]},
        {"model.attention.frozen": [[], ["W_q"]]},
    ],
)
def test_what_may_train_otherwise_or_is_no_training_field_is_not_red(matrix: dict[str, Any]) -> None:
    assert kinds_of(make_experiment(spec=POINTER, matrix=matrix)) == []


@pytest.mark.parametrize("name", sorted(presets()))
def test_no_preset_raises_the_alarm(name: str) -> None:
    preset = presets()[name]
    assert kinds_of(make_experiment(spec=preset.spec, matrix=preset.matrix, seeds=[0])) == []


def test_series_equal_to_the_bit_are_told_neutrally_whatever_their_times() -> None:
    experiment = make_experiment(spec=POINTER, matrix={"optimizer.clip_norm": [5.0, 9.0, 0.1]}, seeds=[0, 1])
    for at, run in enumerate(experiment.runs.order_by("index")):
        acts = run.params["optimizer.clip_norm"] == 0.1
        finish(run, [3.0, 2.0, 1.0 + run.seed, 0.5 + acts * 1e-7], times=1.0 + at, system=float(at))
    assert kinds_of(experiment) == []  # nobody has digested them yet
    assert digest_undigested() == 6
    assert digest_undigested() == 0
    (alarm,) = alarms_of(experiment)
    assert (alarm.kind, alarm.fields) == ("identical", ["optimizer.clip_norm"])
    assert alarm.variants == ["clip_norm 5.0", "clip_norm 9.0"]
    assert "identical to the bit: optimizer.clip_norm changed nothing here" in alarm.text


def test_variants_that_agree_at_one_seed_alone_are_not_identical() -> None:
    experiment = make_experiment(spec=POINTER, matrix={"optimizer.clip_norm": [5.0, 9.0]}, seeds=[0, 1])
    for run in experiment.runs.order_by("index"):
        finish(run, [3.0, 2.0, 1.0, run.seed * run.params["optimizer.clip_norm"]])
    digest_undigested()
    assert kinds_of(experiment) == []


def test_a_succeeded_run_gets_its_digest_at_its_end_and_it_is_the_same_after_sealing() -> None:
    run, other = make_experiment(spec=POINTER, seeds=[0, 1]).runs.order_by("index")
    finish(run, [1.0, float("nan"), 3.0, 4.0])
    before = store.digest(run.pk)
    lifecycle.seal_finished(run.pk)
    run.refresh_from_db()
    assert run.series_digest == before
    assert len(before) == 64
    finish(other, [1.0, float("nan"), 3.0, np.nextafter(np.float32(4.0), np.float32(5.0))])
    assert store.digest(other.pk) != before


def test_the_alarm_costs_one_query(django_assert_num_queries: Any) -> None:
    experiment = make_experiment(spec=POINTER, matrix={"optimizer.lr": [0.1 + at / 100 for at in range(40)]})
    with django_assert_num_queries(1):
        assert alarms_of(experiment) == []
