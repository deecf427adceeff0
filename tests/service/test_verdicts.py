"""Verdicts are computed from stored series of runs that the reader may see, and from nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments import lifecycle, store
from experiments.models import Run
from experiments.states import Reason
from experiments.verdicts.cells import preset_cells
from experiments.verdicts.judge import Finding, Values, judge
from experiments.verdicts.rules import Result, Rule, Term
from experiments.verdicts.verdict import Judged, experiment_pool, preset_verdict
from experiments.verdicts.wording import estimate, needs, open_because

from .factories import claim, make_project, make_user, make_worker
from .verdict_runs import BOTH_HEADS, INFO, ONE_HEAD, accuracies, finals, finish, finished, submit

pytestmark = [pytest.mark.django_db, pytest.mark.db]


@pytest.fixture
def reader() -> Any:
    return make_user(is_superuser=True)


def judged(reader: Any, name: str = "why-q") -> Judged:
    found = preset_verdict(name, reader)
    assert found is not None
    return found


def findings(reader: Any) -> dict[str, Finding]:
    return {one.claim.id: one for one in judged(reader).verdict.findings}


def test_eight_seeds_decide_each_comparison_by_where_its_interval_lies(reader: Any) -> None:
    finished(accuracies, **ONE_HEAD)
    found = findings(reader)
    results = {name: found[name].result for name in ("asking", "w-q", "separate", "learned", "no-matching")}
    assert results == {
        "asking": Result.SUPPORTED,
        "w-q": Result.NOT_SUPPORTED,  # equal within .02
        "separate": Result.SUPPORTED,
        "learned": Result.SUPPORTED,
        "no-matching": Result.SUPPORTED,
    }
    asking = found["asking"]
    assert asking.sample is not None
    assert asking.sample.n == 8
    assert asking.sample.mean == pytest.approx(0.59, abs=0.005)
    assert asking.low is not None
    assert asking.high is not None
    assert 0.2 < asking.low < asking.sample.mean < asking.high


def test_comparisons_that_differ_make_a_mixed_verdict_with_its_sentence(reader: Any) -> None:
    finished(accuracies, **BOTH_HEADS)
    verdict = judged(reader).verdict
    assert verdict.result == Result.MIXED
    assert verdict.why is not None
    assert "only the product W_q·W_kᵀ counts" in verdict.why.en


def test_an_altered_series_alters_the_verdict(reader: Any) -> None:
    experiment = finished(accuracies, **ONE_HEAD)
    assert findings(reader)["asking"].result == Result.SUPPORTED
    for run in experiment.runs.filter(param_rows__key="model.attention.variant", param_rows__text="const_q"):
        store.append(run.pk, [finals(run.steps + 1, {"test/accuracy": 0.985, "test/mode_guess": 0.21})])
    changed = findings(reader)["asking"]
    assert changed.result == Result.NOT_SUPPORTED
    assert changed.sample is not None
    assert changed.sample.mean < 0.02


def test_three_seeds_conclude_nothing_and_say_how_many_are_wanting(reader: Any) -> None:
    finished(accuracies, seeds=[8, 9, 10], **ONE_HEAD)
    asking = findings(reader)["asking"]
    assert (asking.result, asking.more_seeds) == (Result.INCONCLUSIVE, 5)
    assert asking.low is not None
    assert asking.value.missing == [11, 12, 13, 14, 15]
    assert judged(reader).verdict.result == Result.INCONCLUSIVE
    assert judged(reader).verdict.why is None


def test_the_seeds_of_the_pilot_never_count(reader: Any) -> None:
    experiment = finished(accuracies, seeds=[0, 1, *range(8, 14)], **ONE_HEAD)
    asking = findings(reader)["asking"]
    assert (asking.result, sorted(asking.value.values)) == (Result.INCONCLUSIVE, list(range(8, 14)))
    rule = judged(reader).verdict.rule
    pool = experiment_pool(experiment, reader, [], rule)
    own = {one.claim.id: one for one in judge(rule, pool.of(rule), experiment.seeds).findings}["asking"]
    assert (own.result, sorted(own.value.values)) == (Result.INCONCLUSIVE, list(range(8, 14)))


def decided(ours: list[float], margin: float = 0.2) -> Finding:
    """One difference over these seeds, of a rule whose looks take five."""
    words = {"en": "a", "zh": "a"}
    terms = {"value": {"metric": "a"}, "against": {"metric": "b"}}
    claim = {"id": "a", "claim": words, "kind": "difference", "margin": margin, **terms}
    seeds = {"test_seeds": list(range(5))}
    rule = Rule.model_validate({"preset": "p", "claims": [claim], "why": [], "shows_not": words, **seeds})
    theirs = Values(dict.fromkeys(range(len(ours)), 0.0))
    (found,) = judge(rule, {"a": [Values(dict(enumerate(ours))), theirs]}, range(10)).findings
    return found


def test_what_the_first_look_decides_stands_whatever_further_seeds_say() -> None:
    clear = [0.31, 0.3, 0.32, 0.29, 0.3]
    for more in ([], [-5.0, 5.0], [-5.0, 5.0, -4.0, 3.0, 0.0]):
        found = decided([*clear, *more])
        assert (found.result, found.look, found.more_seeds) == (Result.SUPPORTED, 1, None)
        assert found.sample is not None
        assert found.sample.n == 5


def test_the_second_look_waits_for_all_its_seeds_and_is_the_last() -> None:
    open_yet = [0.15, 0.5, 0.3, 0.6, 0.25]
    first = decided(open_yet)
    assert (first.result, first.look, first.more_seeds) == (Result.INCONCLUSIVE, 1, 5)
    assert first.chance is not None
    assert 0.05 < first.chance < 0.6
    early = decided([*open_yet, 0.9, 0.9, 0.9, 0.9])  # with these nine 5 % would be reached
    assert (early.result, early.look, early.chance) == (Result.INCONCLUSIVE, 1, first.chance)
    both = decided([*open_yet, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert (both.look, both.more_seeds, both.chance) == (2, None, None)
    assert both.corrected is not None
    assert both.corrected.alpha == pytest.approx(0.008)
    assert decided([0.31, 0.09, 0.32, 0.29, 0.3, 0.31, 0.3, 0.32, 0.29, 0.3]).look == 2


def test_a_seed_without_a_run_is_named_and_not_made_up_for_by_others(reader: Any) -> None:
    finished(accuracies, seeds=[8, 9, 11, 12, 13, 14, 15, 16, 17], **ONE_HEAD)
    asking = findings(reader)["asking"]
    assert (asking.result, asking.lacking, asking.more_seeds) == (Result.INCONCLUSIVE, [10], 1)
    assert open_because(asking) == "7 of 8 seeds, none trained at 10"


def losses(run: Run, falls_at: int) -> store.Incoming:
    values = np.where(np.arange(run.steps) < falls_at, 0.9, 0.3).astype(np.float32)
    return store.Incoming("train", ["loss/total"], np.arange(run.steps), np.ones(run.steps), values[:, None])


def test_steps_to_a_loss_are_read_off_the_whole_series_and_a_run_that_never_gets_there_is_named(reader: Any) -> None:
    body = {"preset": "why-q", "matrix": {"model.attention.variant": ["full", "no_q"], "model.heads": [4]}}
    experiment = submit(seeds=list(range(8, 16)), **body)
    worker = make_worker()
    for run in experiment.runs.order_by("pk"):
        late = 15 if run.params["model.attention.variant"] == "no_q" else 0
        never = run.params["model.attention.variant"] == "no_q" and run.seed == 15
        taken = claim(run, worker)
        lifecycle.commit(taken.held, 0, run.steps, [losses(run, 10**6 if never else 90 + run.seed % 3 + late)])
        lifecycle.succeed(taken.held)
        Run.objects.filter(pk=run.pk).update(**INFO)
    steps = findings(reader)["w-q-4-steps"]
    assert steps.value.values == {seed: 105.0 + seed % 3 for seed in range(8, 15)}
    assert steps.against is not None
    assert steps.against.values[15] == 90.0
    assert steps.result == Result.INCONCLUSIVE
    assert "never went below 0.5 in loss/total" in steps.problem


def test_a_difference_of_differences_takes_the_inputs_own_gain_off(reader: Any) -> None:
    """Q gains .3 by training, of which X gains .29 by itself."""
    trained = {"test/probe/q": 0.8, "test/probe/x": 0.79, "test/untrained/probe/q": 0.5, "test/untrained/probe/x": 0.5}

    def probed(run: Run) -> dict[str, float]:
        wobble = 0.001 * np.sin(run.seed)
        facts = ("edge", "colour", "class", "position")
        return {f"{name}/{fact}": value + wobble for name, value in trained.items() for fact in facts}

    finished(probed, preset="what-qkv-learn", matrix={"model.attention.variant": ["full"]})
    found = {one.claim.id: one for one in judged(reader, "what-qkv-learn").verdict.findings}["q-specialises"]
    assert found.sample is not None
    assert found.sample.mean == pytest.approx(0.01, abs=1e-6)
    assert found.result == Result.NOT_SUPPORTED


def test_what_a_preset_does_not_train_is_named(reader: Any) -> None:
    finished(accuracies, seeds=[8], preset="learn-qkv", matrix={"model.attention": [{"frozen": []}]})
    found = judged(reader, "learn-qkv").verdict.findings
    frozen = next(one for one in found if one.claim.id == "learned")
    assert frozen.against is not None
    assert frozen.against.missing == list(range(8, 16))
    assert frozen.result == Result.INCONCLUSIVE


def test_runs_with_equal_hashes_are_shared_between_presets(reader: Any) -> None:
    """The full one-head pointer of why-q is the full cell of learn-qkv."""
    finished(accuracies, **ONE_HEAD)
    pool = judged(reader, "learn-qkv").pool
    full = pool.term(judged(reader, "learn-qkv").verdict.rule.claims[0].value)
    assert set(full.values) == set(range(8, 16))


def test_an_experiment_that_trained_the_rest_of_a_preset_has_the_verdict_of_the_whole(reader: Any) -> None:
    """`make verdicts` trains shared runs once: token-roles here in two halves."""
    variants = [cell.params for cell in preset_cells("token-roles")]
    halves = [[one["model.attention.variant"] for one in variants[at::2]] for at in (0, 1)]
    project = make_project()
    first, second = (
        submit(project, preset="token-roles", matrix={"model.attention.variant": half}, seeds=[0, 1]) for half in halves
    )
    worker = make_worker()
    for run in first.runs.order_by("pk"):
        finish(run, {"test/gold_mass": 0.9}, worker)
    for run in list(second.runs.order_by("pk"))[:-1]:
        finish(run, {"test/gold_mass": 0.8}, worker)
    own = {frozenset(half) for half in halves}
    assert {variants_of(one, reader) for one in (first, second)} == own  # one run is wanting
    finish(second.runs.order_by("pk").last(), {"test/gold_mass": 0.8}, worker)
    assert {variants_of(one, reader) for one in (first, second)} == {frozenset([*halves[0], *halves[1]])}
    other = submit(project, preset="token-roles", matrix={"model.attention.variant": halves[0], "train.steps": [7]})
    assert variants_of(other, reader) == frozenset(halves[0])


def variants_of(experiment: Any, reader: Any) -> frozenset[str]:
    pool = experiment_pool(experiment, reader, ["test/gold_mass"])
    return frozenset(cell.params["model.attention.variant"] for cell in pool.cells)


def test_a_reader_sees_no_verdict_from_projects_of_others() -> None:
    owner, stranger = make_user(), make_user()
    finished(accuracies, make_project(owner=owner), **ONE_HEAD)
    assert findings(owner)["asking"].result == Result.SUPPORTED
    assert findings(stranger)["asking"].sample is None


def test_only_runs_that_succeeded_count(reader: Any) -> None:
    experiment = submit(seeds=[0], **ONE_HEAD)
    run = experiment.runs.order_by("pk")[0]
    taken = claim(run)
    lifecycle.commit(taken.held, 0, 10, [finals(10, {"test/accuracy": 0.9})])
    assert judged(reader).pool.runs == {}
    lifecycle.fail(taken.held, Reason.ERROR, "boom")
    assert judged(reader).pool.runs == {}


def test_a_verdict_asks_the_database_no_more_often_for_more_runs(
    reader: Any, django_assert_max_num_queries: Any
) -> None:
    finished(accuracies, seeds=[8], **ONE_HEAD)
    with django_assert_max_num_queries(5):
        judged(reader)
    finished(accuracies, seeds=[9, 10], **ONE_HEAD)
    with django_assert_max_num_queries(5):
        judged(reader)


def test_a_value_that_is_not_finite_is_no_value(reader: Any) -> None:
    experiment = finished(accuracies, seeds=[0], **ONE_HEAD)
    run = Run.objects.filter(experiment=experiment).earliest("pk")
    store.append(run.pk, [finals(run.steps + 1, {"test/accuracy": float("nan"), "test/mode_guess": 0.2})])
    assert store.last_values([run.pk], ["test/accuracy", "test/mode_guess"]) == {
        run.pk: {"test/mode_guess": pytest.approx(0.2)}
    }


@pytest.mark.parametrize(
    ("kind", "values", "result", "worst"),
    [
        ("bound", (0.0, 0.0), Result.SUPPORTED, 0.0),
        ("bound", (0.0, 0.1), Result.NOT_SUPPORTED, 0.1),
        ("floor", (0.2, 0.1), Result.SUPPORTED, 0.1),
        ("floor", (0.2, 0.0), Result.NOT_SUPPORTED, 0.0),
        ("floor", (0.2,), Result.INCONCLUSIVE, 0.2),
    ],
)
def test_a_bound_and_a_floor_hold_at_every_seed_or_not_at_all(
    kind: str, values: tuple[float, ...], result: Result, worst: float
) -> None:
    words = {"en": "a", "zh": "a"}
    claim = {"id": "a", "claim": words, "kind": kind, "value": {"metric": "test/x"}, "margin": 0.0}
    rule = Rule.model_validate({"preset": "p", "test_seeds": [0, 1], "claims": [claim], "why": [], "shows_not": words})
    (one,) = judge(rule, {"a": [Values(dict(enumerate(values)))]}, [0, 1]).findings
    assert (one.result, estimate(one), one.corrected) == (result, worst, None)
    assert needs(one) == ("≤ 0 at every seed" if kind == "bound" else "> 0 at every seed")


def test_runs_of_another_revision_torch_or_device_are_never_mixed_in(reader: Any) -> None:
    experiment = submit(**ONE_HEAD)
    others = [{**INFO, "revision": 1}, {**INFO, "torch": "1.0.0"}, {**INFO, "device_kind": "cuda"}]
    worker = make_worker()
    for at, run in enumerate(experiment.runs.order_by("pk")):
        finish(run, accuracies(run), worker, INFO if at >= len(others) else others[at])
    pool = judged(reader).pool
    assert len({Run.objects.get(pk=run).identity for run in pool.runs.values()}) == 1
    assert len(pool.runs) == experiment.runs.count() - 3
    assert sorted((set(left.differs), left.runs) for left in pool.choice.left_out) == sorted(
        ({part}, 1) for part in ("revision", "torch", "device_kind")
    )


def test_a_fork_with_the_spec_of_a_preset_is_no_evidence_for_it(reader: Any) -> None:
    experiment = finished(accuracies, **ONE_HEAD)
    before = judged(reader).pool.runs
    first = experiment.runs.earliest("pk")
    Run.objects.filter(pk=first.pk).update(parent_step=5)
    after = judged(reader).pool
    assert after.runs == {spec_hash: run for spec_hash, run in before.items() if run != first.pk}
    assert [set(left.differs) for left in after.choice.left_out] == [{"start"}]


def test_a_variant_of_ones_own_stands_beside_ours_and_two_sources_of_it_do_not(reader: Any) -> None:
    spec = {"task": "pointer", "data": {"dataset": "pointer"}}
    matrix = {"model.attention.variant": ["full", "mine.linear"]}
    experiment, worker = submit(spec=spec, matrix=matrix, seeds=[0, 1, 2]), make_worker()
    for run in experiment.runs.order_by("pk"):
        own = run.params["model.attention.variant"] != "full"
        digest = ("e" if run.seed == 0 else "c") * 64 if own else ""  # the source was edited after the first seed
        finish(run, {"test/accuracy": 1.0}, worker, {**INFO, "data_digest": digest})
    pool = experiment_pool(experiment, reader, ["test/accuracy"])
    assert [sorted(pool.values_of(at, Term(metric="test/accuracy")).values) for at in range(2)] == [[0, 1, 2], [1, 2]]
    assert [(left.runs, set(left.differs)) for left in pool.choice.left_out] == [(1, {"data_digest"})]
