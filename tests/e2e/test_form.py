"""Wrong input is reported at its field, during typing and after submitting, and nothing is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.stack import Rest


def error_at(page: Any, name: str) -> Any:
    return page.locator(f"[data-error-for='{name}']:not(:empty)")


@pytest.fixture
def form(open_page: Callable[..., Any]) -> Any:
    page = open_page()
    page.goto("/experiments/new/?preset=sam3-lite")
    return page


def experiments(rest: Rest) -> int:
    return len(rest.get("/experiments/?limit=1000")["results"])


WRONG = [
    ("spec.train.steps", "-5", "at least 1"),
    ("spec.train.steps", "many", "whole number"),
    ("spec.model.d_model", "66", "divisible by heads"),
    ("spec.optimizer.lr", "0", "greater than 0"),
    ("seeds", "3-1", "empty"),
    ("seeds", "1.0", "whole number"),
    ("name", "", "empty"),
]


def test_a_wrong_value_is_reported_at_its_field_during_typing(form: Any) -> None:
    form.locator("[data-section=optimizer] summary").click()
    for field, typed, told in WRONG:
        entry = form.locator(f"[name='{field}']")
        before = entry.input_value()
        entry.fill(typed)
        error_at(form, field).filter(has_text=told).wait_for()
        assert entry.get_attribute("aria-invalid") == "true"
        entry.fill(before)
    form.get_by_role("button", name="Submit 5 runs").wait_for()


def test_a_refused_form_keeps_what_was_typed_and_stores_nothing(form: Any, rest: Rest) -> None:
    before = experiments(rest)
    form.locator("[name='spec.train.steps']").fill("-5")
    with form.expect_navigation() as sent:
        form.get_by_role("button", name="Submit").click()
    assert sent.value.status == 400
    assert "at least 1" in error_at(form, "spec.train.steps").inner_text()
    assert form.locator("[name='spec.train.steps']").input_value() == "-5"
    assert experiments(rest) == before


def test_a_matrix_of_a_million_runs_is_refused_at_once(form: Any, rest: Rest) -> None:
    before = experiments(rest)
    form.get_by_label("Field to vary").first.fill("seed")
    form.locator(".variant .field-error:not(:empty)").wait_for()
    form.get_by_label("Field to vary").first.fill("train.steps")
    form.get_by_label("Values, separated by commas").first.fill(", ".join(map(str, range(1, 1001))))
    form.get_by_role("textbox", name="Seeds").fill("0-999")
    error_at(form, "matrix").wait_for()
    assert "1,000,000 runs" in error_at(form, "matrix").inner_text()
    assert experiments(rest) == before


def test_a_misspelt_field_in_yaml_is_reported_with_its_line(form: Any) -> None:
    form.get_by_text("YAML", exact=True).click()
    text = form.get_by_label("Spec as YAML")
    text.wait_for()
    lines = text.input_value().replace("d_model", "d_modle").splitlines()
    text.fill("\n".join(lines))
    form.locator(".yaml-lines b").wait_for()
    line = next(number for number, words in enumerate(lines, 1) if "d_modle" in words)
    assert form.locator(".yaml-lines b").inner_text() == f"● {line}"
    assert "did you mean 'd_model'?" in form.locator("#check").inner_text()


def test_both_editors_hold_the_same_spec(form: Any) -> None:
    form.locator("[name='spec.train.steps']").fill("123")
    form.get_by_text("YAML", exact=True).click()
    text = form.get_by_label("Spec as YAML")
    text.wait_for()
    assert "steps: 123" in text.input_value()
    text.fill(text.input_value().replace("steps: 123", "steps: 456"))
    form.get_by_text("Form", exact=True).click()
    form.locator("[name='spec.train.steps']").wait_for()
    assert form.locator("[name='spec.train.steps']").input_value() == "456"


def test_another_dataset_brings_its_own_fields(form: Any) -> None:
    form.get_by_label("Task").select_option("classify")
    form.locator("[name='spec.model.layers']").wait_for(state="attached")
    assert form.get_by_label("Dataset").input_value() == "digits"
    assert form.locator("[name='spec.model.queries']").count() == 0


def test_an_unknown_preset_is_reported_beside_a_blank_form_without_other_errors(
    open_page: Callable[..., Any],
) -> None:
    page = open_page()
    page.goto("/experiments/new/?preset=sam4")
    assert "unknown preset 'sam4'" in error_at(page, "preset").inner_text()
    assert page.get_by_role("link", name="blank").get_attribute("aria-current") == "true"
    page.goto("/experiments/new/")
    assert page.locator("[data-error-for]:not(:empty), [aria-invalid]").count() == 0
