"""Focus, typed text and open elements of a live region outlast its updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

REGION = """async () => {
    const { morph } = await import("/static/attn/frame/morph.js");
    const region = document.createElement("div");
    document.body.append(region);
    window.answer = (html) => {
        const fresh = region.cloneNode(false);
        fresh.innerHTML = html;
        morph(region, fresh);
    };
    window.region = region;
}"""


@pytest.fixture
def region(open_page: Callable[..., Any]) -> Any:
    page = open_page()
    page.goto("/workers/")
    page.evaluate(REGION)
    return page


def answered(page: Any, html: str) -> None:
    page.evaluate("html => answer(html)", html)


def test_the_focus_stays_with_its_row_when_rows_come_and_change_places(region: Any) -> None:
    rows = [f"<li data-key='r{key}'><button>row {key}</button></li>" for key in range(4)]
    answered(region, "".join(rows[1:3]))
    region.get_by_role("button", name="row 2").focus()
    for order in (rows, rows[::-1], [*rows[2:], *rows[:2]]):
        answered(region, "".join(order))
        assert region.evaluate("document.activeElement.textContent") == "row 2"
        assert region.evaluate("window.region.innerHTML").replace('"', "'") == "".join(order)


def test_what_was_typed_stays_in_a_field_with_and_without_the_focus(region: Any) -> None:
    field = "<input aria-label='first' value='a'><textarea aria-label='second'>b</textarea><p>{}</p>"
    answered(region, field.format("before"))
    region.get_by_label("second").fill("typed second")
    region.get_by_label("first").fill("typed first")
    region.get_by_label("first").evaluate("field => field.setSelectionRange(2, 5)")
    for visit in ("once", "twice"):
        answered(region, field.format(visit))
        assert region.get_by_label("second").input_value() == "typed second"
        assert region.get_by_label("first").input_value() == "typed first"
        assert region.evaluate("document.activeElement.selectionEnd") == 5
        assert region.evaluate("window.region.querySelector('p').textContent") == visit


def test_what_is_opened_or_kept_is_not_closed_and_the_rest_is_renewed(region: Any) -> None:
    html = "<details><summary>{0}</summary>{0}</details><div data-keep><i>{0}</i></div><p title='{0}'>{0}</p>"
    answered(region, html.format("old"))
    region.evaluate("window.region.querySelector('details').open = true")
    answered(region, html.format("new"))
    assert region.evaluate("window.region.querySelector('details').open")
    assert region.evaluate(
        "[...window.region.querySelectorAll('summary, i, p')].map(({textContent}) => textContent)"
    ) == [
        "new",
        "old",
        "new",
    ]
