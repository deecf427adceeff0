"""In a real browser: a preset submitted untouched is, run by run, what REST stores for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from experiments.submissions.presets import presets
from tests.e2e.stack import Rest


def stored(rest: Rest, experiment: int) -> list[tuple[Any, ...]]:
    """Params, seed and resolved spec of every run, in order; nobody trains them."""
    rest.post(f"/experiments/{experiment}/cancel/", {})
    rows = rest.get(f"/runs/?experiment={experiment}&fields=params,seed,spec,spec_hash&limit=1000")["results"]
    return [(row["params"], row["seed"], row["spec"], row["spec_hash"]) for row in sorted(rows, key=lambda r: r["id"])]


def submitted(page: Any) -> int:
    page.get_by_role("button", name=re.compile(r"^Submit \d+ runs?$")).click()
    page.wait_for_url(re.compile(r"/experiments/\d+/$"))
    return int(page.url.rstrip("/").rpartition("/")[2])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_preset_submitted_untouched_is_what_rest_stores(open_page: Callable[..., Any], rest: Rest) -> None:
    page = open_page()
    for name in presets():
        page.goto(f"/experiments/new/?preset={name}")
        announced = int(page.locator("#check .sum b").inner_text())
        mine = stored(rest, submitted(page))
        theirs = stored(rest, rest.post("/experiments/", {"name": name, "preset": name})["id"])
        assert len(mine) == len(theirs) == announced, name
        assert mine == theirs, name


@pytest.mark.timeout(120)
def test_variants_typed_into_token_roles_train_different_models(open_page: Callable[..., Any], rest: Rest) -> None:
    page = open_page()
    page.goto("/experiments/new/?preset=token-roles")
    row = page.locator(".variant").filter(has=page.locator("[name=matrix-path][value='model.attention.variant']"))
    row.locator("[name=matrix-values]").fill("full, const_q")
    page.get_by_role("textbox", name="Seeds").fill("0-1")
    page.get_by_role("button", name="Submit 4 runs").click()
    page.wait_for_url(re.compile(r"/experiments/\d+/$"))
    runs = stored(rest, int(page.url.rstrip("/").rpartition("/")[2]))
    attention = [spec["model"]["attention"] for _, _, spec, _ in runs]
    assert [one["variant"] for one in attention] == ["full", "full", "const_q", "const_q"]
    assert {site["variant"] for one in attention for site in one["by_kind"].values()} == {None}
