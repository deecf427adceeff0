"""A submission expands to exactly the runs it means, and an error points at what the person wrote."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.submissions.presets import Also, presets
from experiments.submissions.submission import Plan, SubmissionError, plan

SPEC: dict[str, Any] = {"task": "segment", "data": {"dataset": "scenes"}}


def planned(**fields: Any) -> Plan:
    return plan({"name": "x", "spec": SPEC, **fields})


def errors_of(**fields: Any) -> dict[str, str]:
    with pytest.raises(SubmissionError) as caught:
        plan({"name": "x", "spec": SPEC, **fields})
    return {"/".join(map(str, error.path)): error.message for error in caught.value.errors}


def test_a_matrix_times_seeds_is_one_run_for_each_cell() -> None:
    done = planned(matrix={"model.attention.variant": ["full", "no_q"], "train.steps": [200, 300]}, seeds=[0, 7])
    assert len(done.runs) == 8
    assert [run.index for run in done.runs] == list(range(8))
    assert len({run.spec_hash for run in done.runs}) == 8
    first, last = done.runs[0], done.runs[-1]
    assert (first.seed, first.params) == (0, {"model.attention.variant": "full", "train.steps": 200})
    assert (last.spec.seed, last.spec.train.steps, last.spec.model.attention.variant) == (7, 300, "no_q")


def test_overrides_apply_to_every_run_and_create_sections_that_stood_at_defaults() -> None:
    done = planned(overrides={"train.steps": 500, "model.attention.qk_norm": True})
    assert done.runs[0].spec.train.steps == 500
    assert done.runs[0].spec.model.attention.qk_norm is True


def test_a_plan_never_changes_a_preset() -> None:
    name = next(iter(presets()))
    before = presets()[name].model_dump()
    plan({"name": "x", "preset": name, "overrides": {"train.steps": 7000}})
    assert presets()[name].model_dump() == before


def test_every_preset_is_a_valid_submission_as_it_stands() -> None:
    assert {"sam3-lite", "learn-qkv"} <= set(presets())
    for name, preset in presets().items():
        done = plan({"name": name, "preset": name})
        assert len(done.runs) >= len(preset.seeds)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"spec": None, "preset": "sam3-lit"}, "preset", "did you mean 'sam3-lite'"),
        ({"spec": None}, "preset", "exactly one of `preset` and `spec`"),
        ({"name": "a\0b"}, "name", "U+0000"),
        ({"notes": "\0"}, "notes", "U+0000"),
        ({"tags": ["fine", "a\0b"]}, "tags/1", "U+0000"),
        ({"overrides": {"data.root": "a\0b"}}, "overrides/data.root", "U+0000"),
        ({"matrix": {"a\0b": [1]}}, "matrix/a�b", "U+0000"),
        ({"preset": "sam3-lite"}, "spec", "exactly one of `preset` and `spec`"),
        ({"overrides": {"train.steps": -1}}, "overrides/train.steps", "at least 1"),
        ({"overrides": {"train.stpes": 1}}, "overrides/train.stpes", "did you mean 'steps'"),
        (
            {"overrides": {"train.steps.x": 1}, "spec": {**SPEC, "train": {"steps": 2000}}},
            "overrides/train.steps.x",
            "value",
        ),
        ({"matrix": {"model.d_model": [64, 30]}}, "matrix/model.d_model", "divisible by heads (4): each head gets"),
        ({"matrix": {"train.steps": []}}, "matrix/train.steps", "at least one"),
        ({"matrix": {"train.steps": [5, 5]}}, "matrix/train.steps", "twice"),
        ({"matrix": {"seed": [0, 1]}}, "matrix/seed", "their own field"),
        ({"matrix": {"train.steps": list(range(1000))}, "seeds": list(range(1000))}, "matrix", "1,000,000 runs"),
        ({"seeds": [1, 1]}, "seeds", "twice"),
        ({"seeds": [-1]}, "seeds/0", "greater than or equal to 0"),
        ({"seeds": [True]}, "seeds/0", "whole number such as 0 or 7, not true"),
        ({"seeds": [0, 1.0]}, "seeds/1", "whole number such as 0 or 7, not 1.0"),
        ({"seeds": ["1"]}, "seeds/0", "whole number"),
        ({"pool": "../gpu"}, "pool", "pattern"),
        ({"nmae": "y"}, "nmae", "did you mean 'name'"),
        ({"name": ""}, "name", "empty"),
        ({"spec": {**SPEC, "train": {"steps": -3}}}, "spec/train/steps", "at least 1"),
    ],
)
def test_each_mistake_points_at_what_was_written(fields: dict[str, Any], field: str, words: str) -> None:
    found = errors_of(**fields)
    assert list(found) == [field]
    assert words in found[field]


@pytest.fixture
def with_also(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset why-q with a second definition: two variants on scenes."""
    also = Also(spec=SPEC, matrix={"model.attention.variant": ["full", "const_q"]})
    known = {**presets(), "why-q": presets()["why-q"].model_copy(update={"also": [also]})}
    monkeypatch.setattr("experiments.submissions.submission.presets", lambda: known)


@pytest.mark.usefixtures("with_also")
def test_a_second_definition_of_a_preset_follows_the_first() -> None:
    done = plan({"name": "x", "preset": "why-q", "seeds": [0, 1], "pool": "lab"})
    assert [run.index for run in done.runs] == list(range(16 * 2 + 2 * 2))
    assert [(run.seed, run.params["task"], run.params["model.attention.variant"]) for run in done.runs[32:]] == [
        (seed, "segment", variant) for variant in ("full", "const_q") for seed in (0, 1)
    ]
    assert {run.spec.resources.pool for run in done.runs} == {"lab"}


COUNTS = {"why-q": 152, "image-self-attention": 15, "self-vs-cross": 25, "what-qkv-learn": 10, "gradient-chain": 10}


@pytest.mark.parametrize("overrides", [{}, {"resources.pool": "lab"}, {"optimizer.lr": 0.003, "train.batch_size": 32}])
@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_an_override_applies_to_every_part_of_a_preset(name: str, count: int, overrides: dict[str, Any]) -> None:
    done = plan({"name": "x", "preset": name, "overrides": overrides})
    announced = sum(part.variants for part in done.parts) * len(done.seeds)
    assert (len(done.runs), announced, done.left_out) == (count, count, ())
    assert [run.index for run in done.runs] == list(range(count))
    for path, value in overrides.items():
        assert {reached(run.spec, path) for run in done.runs} == {value}


def reached(spec: Any, path: str) -> Any:
    for part in path.split("."):
        spec = getattr(spec, part)
    return spec


LEFT_OUT: list[tuple[str, dict[str, Any], int, int, str]] = [
    ("why-q", {"overrides": {"data.tokens": 8}}, 128, 24, "data.tokens is invalid in it: 'tokens' is a field of"),
    ("why-q", {"matrix": {"model.heads": [1]}}, 8, 24, "the matrix is not the preset's own"),
    ("image-self-attention", {"overrides": {"model.attention.variant": "no_k"}}, 5, 10, "it varies model.attention"),
    ("self-vs-cross", {"overrides": {"model.attention.by_kind.self.variant": "full"}}, 5, 20, "it varies model"),
    ("image-self-attention", {"overrides": {"train.steps": 70}}, 10, 5, "equal runs of another part"),
]


@pytest.mark.parametrize(("name", "change", "kept", "lost", "words"), LEFT_OUT)
def test_what_a_preset_loses_is_said(name: str, change: dict[str, Any], kept: int, lost: int, words: str) -> None:
    done = plan({"name": "x", "preset": name, **change})
    assert len(done.runs) == len({run.spec_hash for run in done.runs}) == kept
    assert [one.runs for one in done.left_out] == [lost]
    assert words in done.left_out[0].text


def test_an_override_of_one_part_alone_is_another_definition() -> None:
    """600 steps are what the first part of why-q has; the second trains 400 of its own accord."""
    overrides: list[dict[str, Any]] = [{"train.steps": steps} for steps in (600, "600", 601)]
    same, text, other = (plan({"name": "x", "preset": "why-q", "overrides": one}) for one in overrides)
    assert same.spec_hash == text.spec_hash
    assert {run.spec.train.steps for run in same.runs} == {600}
    assert len({plan({"name": "x", "preset": "why-q"}).spec_hash, same.spec_hash, other.spec_hash}) == 3


ALL_AT_ONCE: list[tuple[dict[str, Any], set[str]]] = [
    (
        {"name": "", "spec": {**SPEC, "model": {"d_model": 65, "heads": 0}, "train": {"stpes": 3}}, "seeds": [1, 1]},
        {"name", "spec/model/heads", "spec/train/stpes", "seeds"},
    ),
    (
        {"priority": 1000, "overrides": {"train.steps": 0}, "matrix": {"model.layerz": [1]}, "seeds": ["a"]},
        {"priority", "seeds/0", "overrides/train.steps", "matrix/model.layerz"},
    ),
    ({"name": "", "spec": None, "preset": "why-r"}, {"name", "preset"}),
]


@pytest.mark.parametrize(("fields", "at"), ALL_AT_ONCE)
def test_all_that_is_wrong_is_told_at_once(fields: dict[str, Any], at: set[str]) -> None:
    assert set(errors_of(**fields)) == at


BLAMED: list[tuple[dict[str, Any], str]] = [
    ({"matrix": {"model.heads": [1, 3]}}, "matrix/model.heads"),
    ({"matrix": {"train.steps": [50, 200]}, "overrides": {"optimizer.warmup_steps": 60}}, "matrix/train.steps"),
    ({"matrix": {"optimizer.lr": [0.1], "model.heads": [1, 3]}}, "matrix/model.heads"),
    ({"overrides": {"model.heads": 3, "optimizer.lr": 0.1}}, "overrides/model.heads"),
    ({"spec": None, "preset": "learn-qkv", "overrides": {"model.heads": 3}}, "overrides/model.heads"),
    ({"overrides": {"optimizer.warmup_steps": 1001}}, "overrides/optimizer.warmup_steps"),
    ({"spec": {**SPEC, "optimizer": {"warmup_steps": 1001}}}, "spec/optimizer/warmup_steps"),
    ({"matrix": {"model.d_model": [48, 64], "model.heads": [4, 6]}}, "matrix/model.d_model"),
    ({"spec": {**SPEC, "model": {"heads": 3}}, "matrix": {"optimizer.lr": [0.1, 0.2]}}, "spec/model/d_model"),
]


@pytest.mark.parametrize(("fields", "at"), BLAMED)
def test_an_error_is_told_at_the_setting_that_brings_it(fields: dict[str, Any], at: str) -> None:
    assert list(errors_of(**fields)) == [at]


@pytest.mark.usefixtures("with_also")
def test_a_second_definition_counts_towards_the_limit() -> None:
    with pytest.raises(SubmissionError, match="18 runs"):
        plan({"name": "x", "preset": "why-q", "seeds": [0]}, max_runs=17)
