"""Someone inspects a finished run: types a sentence, sees its attention weights, then changes something inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.stack import Rest, Stack

SENTENCE = "我 爱 吃 苹果"
FEW = {"optimizer.warmup_steps": 1, "data.val_size": 16, "train.batch_size": 4, "train.predictions": 0}
OPTIONS = {"train.steps": 60, "train.predictions": 0, "train.checkpoint_every": 30}


@pytest.fixture(scope="module")
def run(stack: Stack, rest: Rest) -> int:
    body = {"name": "Roles", "preset": "token-roles", "matrix": {}, "seeds": [0], "overrides": OPTIONS}
    run = int(rest.post("/experiments/", body)["runs"][0]["id"])
    assert rest.wait_for(run, {"succeeded", "failed"})["state"] == "succeeded", stack.said()
    return run


def answered(page: Any, before: str | None) -> str:
    """The number of the answer that is shown once it is another than `before`."""
    page.locator(f"[data-inspect][data-answered]:not([data-answered='{before}'])").wait_for(state="attached")
    return str(page.locator("[data-inspect]").get_attribute("data-answered"))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_typed_sentence_shows_its_weights_within_a_second(open_page: Callable[..., Any], run: int) -> None:
    page = open_page()
    page.goto(f"/runs/{run}/?tab=attention&text=妈妈 想 买 书")
    seen = answered(page, None)
    took = []
    for sentence in (SENTENCE, f"{SENTENCE} 他 想 喝 水", SENTENCE):
        page.get_by_label("Sentence").fill(sentence)
        page.get_by_label("Sentence").press("Enter")
        seen = answered(page, seen)
        took.append(float(page.locator("[data-inspect]").get_attribute("data-took")))
        assert page.locator("[data-map] .inspect-map-side").all_inner_texts() == sentence.split()
    assert min(took) < 1000, took

    page.locator("[data-map]").get_by_role("button", name="Query 吃").click()
    weights = page.locator(".inspect-block").first.locator(".inspect-bar-value").all_inner_texts()
    assert sum(map(float, weights)) == pytest.approx(1, abs=0.01)
    assert "asker=2" in page.url

    page.get_by_role("checkbox", name="我").check()
    page.get_by_role("checkbox", name="苹果").check()
    page.get_by_role("button", name="Add change").click()
    seen = answered(page, seen)
    assert page.locator(".inspect-output tbody tr").count() == 4
    page.locator("[data-maps][data-shown='59']").wait_for()
    slider = page.locator("#maps-at")
    slider.focus()
    slider.press("Home")
    page.locator("[data-maps][data-shown='0']").wait_for()
    page.reload()  # the address holds everything
    answered(page, seen)
    assert page.locator(".inspect-edit").inner_text().startswith("swap Q of 我 ↔ 苹果")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_click_on_an_image_shows_the_attention_of_the_patch(
    open_page: Callable[..., Any], stack: Stack, rest: Rest
) -> None:
    body = {"name": "Digits", "preset": "sam3-lite-digits", "seeds": [0], "overrides": {"train.steps": 4, **FEW}}
    run = int(rest.post("/experiments/", body)["runs"][0]["id"])
    assert rest.wait_for(run, {"succeeded", "failed"})["state"] == "succeeded", stack.said()
    page = open_page(viewport={"width": 375, "height": 800})
    page.goto(f"/runs/{run}/?tab=attention")
    seen = answered(page, None)
    page.locator("select[name=site]").first.select_option("encoder.1.self")
    page.get_by_text("at encoder.1.self").wait_for()
    page.locator("canvas.inspect-stage").click(position={"x": 40, "y": 40})
    page.get_by_text("Attention of patch").wait_for()
    page.get_by_label("Prompt").fill("七")
    page.get_by_label("Prompt").press("Enter")
    answered(page, seen)
    page.get_by_text("has no label").wait_for()
    assert page.get_by_role("button", name="七", exact=True).count() == 1
