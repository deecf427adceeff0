"""Every page, dark on a phone and light on a desk: no complaint in the console, nothing wider than the window.
ATTN_PICTURES=1 trains for longer, looks at both themes in both sizes and leaves a picture of each in tests/output;
ATTN_PICTURES=docs also renews the README's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stack import Rest

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "tests" / "output"
DOCS = ROOT / "docs" / "images"
PICTURES = os.environ.get("ATTN_PICTURES", "")
SHORT = {"train.steps": 30, "optimizer.warmup_steps": 5, "train.eval_every": 15, "train.checkpoint_every": 15}
LONG = {"train.steps": 400, "optimizer.warmup_steps": 40, "train.eval_every": 25, "record.probe_every": 25}
VIEWS = [("dark", 375), ("light", 1440), *([("dark", 1440), ("light", 375)] if PICTURES else [])]
README = {"x": 0, "y": 0, "width": 1440, "height": 2000}


@pytest.fixture(scope="session")
def shown(rest: Rest) -> dict[str, str]:
    """Two short runs of the demo preset, and the addresses that show them."""
    overrides = LONG if PICTURES else SHORT | {"data.val_size": 16, "train.batch_size": 4}
    matrix = {"model.attention.variant": ["full", "const_q"]}
    body = {"name": "Who needs a query?", "preset": "sam3-lite-digits", "overrides": overrides, "matrix": matrix}
    answer = rest.post("/experiments/", body | {"tags": ["paper"], "notes": "Asking is what matters."})
    runs = [run["id"] for run in answer["runs"]]
    for run in runs:
        assert rest.wait_for(run, {"succeeded", "failed", "cancelled"}, 500)["state"] == "succeeded"
    run, ids = f"/runs/{runs[0]}/", ",".join(map(str, runs))
    return {
        "home": "/",
        "new": "/experiments/new/?preset=sam3-lite",
        "experiments": "/experiments/",
        "experiment": f"/experiments/{answer['id']}/",
        "runs": "/runs/",
        "run": run,
        "run-row": f"{run}?open=encoder.0.self/W_q&row=grad_norm/encoder.0.self/W_q&smooth=0.5",
        "run-attention": f"{run}?tab=attention",
        "run-flow": f"{run}?tab=flow",
        "run-probes": f"{run}?tab=probes",
        "run-config": f"{run}?tab=config",
        "run-log": f"{run}?tab=log",
        "run-events": f"{run}?tab=events",
        "run-artifacts": f"{run}?tab=artifacts",
        "compare": f"/compare/?runs={ids}",
        "compare-empty": "/compare/",
        "workers": "/workers/",
        "not-found": "/runs/999999/",
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_page_is_worth_showing(open_page: Callable[..., Any], shown: dict[str, str]) -> None:
    """Each page is loaded once and then shown in every width and theme."""
    page = open_page()
    OUTPUT.mkdir(exist_ok=True)
    for name, address in shown.items():
        if name == "run" and not PICTURES:
            continue  # run-row shows all of it and more
        assert page.goto(address).status == (404 if name == "not-found" else 200), name
        for theme, width in VIEWS:
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": 900})
            see_all(page)
            wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wider <= 0, f"{name} is {wider} px wider than the window of {width}"
            if PICTURES:
                keep_picture(page, f"{name}-{theme}-{width}")


def keep_picture(page: Any, name: str) -> None:
    page.screenshot(path=OUTPUT / f"{name}.png", full_page=True)
    if PICTURES == "docs" and name == "run-dark-1440":
        DOCS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=DOCS / "run.png", full_page=True, clip=README)
        lighten(DOCS / "run.png")


@pytest.mark.timeout(120)
def test_rows_that_are_zero_up_to_rounding_show_the_reason(
    open_page: Callable[..., Any], shown: dict[str, str]
) -> None:
    """Prompts of digit-scenes have one token: its self-attention has a single key."""
    page = open_page()
    page.goto(shown["run"])
    page.locator("#matrices").scroll_into_view_if_needed()
    page.locator(".heat-why").wait_for()
    assert page.locator(".heat-why").inner_text().startswith("text.0.self, ")
    assert page.locator("[data-name='grad_norm/text.0.self/W_q'].heat-zero + .heat-last").inner_text() == "≈ 0"
    assert page.locator("[data-name='grad_norm/text.0.self/W_v'].heat-zero").count() == 0
    page.locator("[data-panel=entropy] .panel-more").click()
    legend = page.locator("[data-panel=entropy] [data-legend]")
    assert legend.evaluate("box => box.scrollHeight <= box.clientHeight")
    looks = "import('/static/attn/charts/palette.js').then(({seriesStyle}) => [...Array(50).keys()].map(seriesStyle))"
    assert len({str(look) for look in page.evaluate(looks)}) == 50


def lighten(picture: Path) -> None:
    """256 colours are enough for a README, at a third of the size."""
    from PIL import Image

    with Image.open(picture) as image:
        few = image.convert("RGB").quantize(256)
    few.save(picture, optimize=True)


def see_all(page: Any) -> None:
    """Scroll through: panels load as they come into view."""
    page.evaluate(
        """async () => {
            for (let y = 0; y < document.body.scrollHeight; y += 700) {
                scrollTo(0, y);
                await new Promise((done) => setTimeout(done, 60));
            }
            scrollTo(0, 0);
        }"""
    )
    page.wait_for_load_state("networkidle") if "/compare/" in page.url else page.wait_for_timeout(400)


@pytest.mark.timeout(120)
def test_the_theme_is_remembered_without_a_flash(open_page: Callable[..., Any]) -> None:
    page = open_page(color_scheme="light")
    page.goto("/")
    page.get_by_label("Switch between light and dark").click()
    answer = page.goto("/runs/")
    assert 'data-theme="dark"' in answer.text()


def test_someone_without_a_session_is_redirected_to_the_sign_in(open_page: Callable[..., Any], stack: Any) -> None:
    page = open_page(storage_state=None)
    page.goto("/runs/1/?tab=log")
    assert "/login/" in page.url
    policy = page.request.get(f"{stack.url}/login/").headers["content-security-policy"]
    assert "unsafe" not in policy
