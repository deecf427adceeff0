"""The spec accepts what makes sense and names the field of what does not."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.spec import SpecError, content_hash, flatten, parse_spec, resolved

SEGMENT: dict[str, Any] = {"task": "segment", "data": {"dataset": "scenes"}}


def errors_of(raw: object) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(raw)
    return {error.dotted: error.message for error in caught.value.errors}


def test_a_short_spec_resolves_to_every_default_and_back() -> None:
    spec = parse_spec(SEGMENT)
    assert resolved(spec)["model"]["attention"]["variant"] == "full"
    assert parse_spec(resolved(spec)) == spec


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"task": "segmnt"}, "task", "did you mean 'segment'"),
        ({"data": {}}, "data", "dataset"),
        ({"data": {"dataset": "digits"}}, "data", "digit-scenes"),
        ({"data": {"dataset": "scenes", "canvas": 63}}, "data.canvas", "must be one of"),
        ({"train": {"steps": -5}}, "train.steps", "at least 1; you gave -5"),
        ({"train": {"steps": 1.5}}, "train.steps", "whole number"),
        ({"train": {"stpes": 5}}, "train.stpes", "did you mean 'steps'"),
        ({"trian": {}}, "trian", "did you mean 'train'"),
        ({"model": {"d_model": 30, "heads": 4}}, "model.d_model", "must be divisible by heads (4)"),
        (
            {"model": {"attention": {"variant": "no_q", "d_k": 8}}},
            "model.attention.d_k",
            "d_model / heads = 16 or null",
        ),
        (
            {"model": {"attention": {"d_v": 8, "by_kind": {"text": {"variant": "no_v"}}}}},
            "model.attention.d_v",
            "variant no_v has an identity in place of a projection",
        ),
        ({"model": {"attention": {"variant": "none"}}}, "model.attention.variant", "must be one of"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr", "finite"),
        ({"optimizer": {"lr": 0}}, "optimizer.lr", "greater than 0"),
        ({"resources": {"pool": "../x"}}, "resources.pool", "pattern"),
        ({"seed": -1}, "seed", "at least 0"),
    ],
)
def test_each_bad_field_is_named_with_what_to_do(change: dict[str, Any], field: str, words: str) -> None:
    found = errors_of({**SEGMENT, **change})
    assert list(found) == [field]
    assert words in found[field]


def test_all_bad_fields_are_told_at_once() -> None:
    raw = {**SEGMENT, "train": {"steps": 0, "batch_size": 0}, "seed": "x"}
    assert set(errors_of(raw)) == {"train.steps", "train.batch_size", "seed"}


def test_a_spec_is_a_mapping() -> None:
    assert errors_of([1]) == {"": "must be a mapping of sections, such as `task`, `data` and `model`"}


def test_equal_meanings_have_equal_hashes_and_any_change_another() -> None:
    plain, spelled = parse_spec(SEGMENT), parse_spec({**SEGMENT, "seed": 0, "train": {"steps": 1000}})
    assert content_hash(plain) == content_hash(spelled)
    assert content_hash(plain) != content_hash(parse_spec({**SEGMENT, "seed": 1}))


def test_flatten_gives_dotted_leaves() -> None:
    assert dict(flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None})) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_a_preset_can_be_shortened_in_one_edit_below_its_warm_up() -> None:
    assert parse_spec({**SEGMENT, "train": {"steps": 60}}).optimizer.warmup_steps == 100
