"""What is typed into a field of the form means what it means in REST."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.pages.http import yaml_text
from experiments.pages.new_experiment import spec_form
from experiments.spec.yaml_text import MAX_BYTES


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7), ("1e-4", 0.0001), ("-2.5", -2.5), ("1_000", "1_000"), ("0x10", "0x10"), ("nan", "nan"),
        ("inf", "inf"), ("٣", "٣"), ("true", "true"), ("", ""),
    ],
)  # fmt: skip
def test_a_number_is_read_as_the_spec_reads_it(text: str, value: Any) -> None:
    assert repr(spec_form.number(text)) == repr(value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("full, no_q", ["full", "no_q"]),
        ("1e-4, 0.001", [0.0001, 0.001]),
        ("yes, on, no", ["yes", "on", "no"]),
        ("true, false, null", [True, False, None]),
        ("{init: zeros}, {}", [{"init": "zeros"}, {}]),
    ],
)
def test_values_of_a_matrix_are_read_as_yaml(text: str, values: list[Any]) -> None:
    assert yaml_text.values(text) == values


@pytest.mark.parametrize("text", ["{init: zeros, init: normal}", "{a: {b: 1, 'b': 2}}", "{<<: {a: 1}}", "&x a, *x"])
def test_values_that_would_lose_something_are_refused_by_what_is_wrong(text: str) -> None:
    with pytest.raises(yaml_text.YamlError, match=r"duplicate|not allowed"):
        yaml_text.values(text)


def test_a_mapping_with_a_name_twice_is_left_as_text_for_the_spec_to_refuse() -> None:
    config = spec_form.fields("hf", "text")["model.config"]
    assert spec_form.typed(config, ["{n_embd: 64, n_embd: 32}"]) == "{n_embd: 64, n_embd: 32}"
    assert spec_form.typed(config, ["{n_embd: 64}"]) == {"n_embd": 64}


def test_a_text_may_be_as_long_as_every_spec_and_no_longer() -> None:
    longest = "a: " + "é" * (MAX_BYTES // 2 - 2) + "b"
    assert len(longest.encode()) == MAX_BYTES
    assert list(yaml_text.load(longest)) == ["a"]
    with pytest.raises(yaml_text.YamlError, match=r"has 131,073 bytes; at most 131,072 are allowed"):
        yaml_text.load(longest + "b")
    with pytest.raises(yaml_text.YamlError, match="at most 131,072 are allowed"):
        yaml_text.values(longest)
