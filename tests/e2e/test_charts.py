"""A chart says what its series say: points that stand alone, lines that coincide, the step below the crosshair.

The panels are those of the product, fed with series whose values are known; what is drawn is read off the pixels."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

MAKE = """async ([series, view]) => {
    const { LinePanel } = await import("/static/attn/charts/line_panel.js");
    const figure = document.createElement("figure");
    figure.id = "probe";
    figure.innerHTML = `<figcaption class="panel-head"></figcaption><div class="panel-legend" data-legend></div>
        <div class="panel-plot" data-plot></div>`;
    document.querySelector("main").replaceChildren(figure);
    window.panel = new LinePanel(figure, {});
    panel.setView(view);
    const whole = (each) => ({ run: 1, nonfinite: 0, count: each.step.length, time: each.step, ...each });
    panel.setSeries(series.map(whole));
    await new Promise((done) => panel.chart.on("finished", done));
    const canvas = panel.plot.querySelector("canvas");
    window.shot = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    window.ratio = canvas.width / canvas.clientWidth;
}"""
# The colours within `reach` pixels of where a value belongs.
INK = """([x, y, reach]) => {
    const place = panel.chart.convertToPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [x, y]);
    const middle = place.map((at) => Math.round(at * ratio));
    const found = new Set();
    for (let left = middle[0] - reach; left <= middle[0] + reach; left++)
        for (let top = middle[1] - reach; top <= middle[1] + reach; top++) {
            const at = 4 * (top * shot.width + left);
            if (shot.data[at + 3] > 200) found.add([...shot.data.slice(at, at + 3)].join());
        }
    return [...found];
}"""
ZOOM = "([from, to]) => panel.chart.dispatchAction({ type: 'dataZoom', startValue: from, endValue: to })"


@pytest.fixture
def chart(open_page: Callable[..., Any]) -> Callable[..., Any]:
    """A page with one panel of the given series."""

    def show(*series: dict[str, Any], **view: Any) -> Any:
        page = open_page(viewport={"width": 1000, "height": 600})
        page.goto("/workers/")
        page.evaluate(MAKE, [list(series), {"smooth": 0, "axis": "step", "y": "linear", **view}])
        return page

    return show


def line(name: str, values: list[float | None], steps: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "value": values, "step": steps or list(range(len(values)))}


def drawn(page: Any, place: int, x: float, y: float) -> bool:
    """Whether the line of that place, or its dot, is drawn where the value belongs; but for rounding of colours."""
    own = rgb(page.evaluate("(place) => panel.lines[place].colour", place))
    found = [rgb(shade) for shade in page.evaluate(INK, [x, y, 1])]
    return any(max(abs(a - b) for a, b in zip(own, shade, strict=True)) <= 8 for shade in found)


def rgb(text: str) -> list[int]:
    return [int(channel) for channel in re.findall(r"\d+", text)]


@pytest.mark.timeout(120)
def test_a_point_without_neighbours_is_a_dot_on_a_log_axis_too(chart: Callable[..., Any]) -> None:
    """125 of 150 values are zero, 16 of the others stand between zeros."""
    values: list[float | None] = [0.5 if at % 9 == 4 else 0.0 for at in range(144)] + [0.5] * 6
    page = chart(line("loss/box_l1", values), y="log")
    alone = [at for at in range(144) if values[at]]
    assert [at for at in alone if not drawn(page, 0, at, 0.5)] == []
    assert not drawn(page, 0, alone[3] + 4, 0.5), "there is nothing between two of them"
    assert "128 of 150 points ≤ 0" in page.locator("#probe [data-legend]").inner_text()


@pytest.mark.timeout(120)
def test_a_finite_value_between_two_that_are_not_is_a_dot(chart: Callable[..., Any]) -> None:
    values: list[float | None] = [1.0] * 100
    values[40] = values[42] = None
    values[41] = 3.0
    assert drawn(chart(line("loss/total", values)), 0, 41, 3.0)


@pytest.mark.timeout(120)
def test_lines_that_coincide_are_both_seen(chart: Callable[..., Any]) -> None:
    values: list[float | None] = [1 + (at % 7) / 10 for at in range(200)]
    page = chart(line("loss/total", values), line("loss/mask", values), line("loss/box", [2.0] * 200))
    for place in (0, 1):
        places = [at for at in range(20, 120) if drawn(page, place, at, values[at] or 0)]
        assert len(places) > 20, "each has its share"
    legend = page.locator("#probe [data-legend]").inner_text()
    assert legend.count("equal to total") == 1


@pytest.mark.timeout(120)
def test_the_tooltip_names_the_step_that_its_line_stands_on(chart: Callable[..., Any]) -> None:
    """Before and after a zoom, with series of other steps: each value is that of the step it is told at."""
    dense = line("loss/total", [float(at) for at in range(0, 1000, 10)], list(range(0, 1000, 10)))
    sparse = line("loss/rare", [0.5, 400.5, 900.5], [0, 400, 900])
    page = chart(dense, sparse)
    for zoom in (None, [303, 777]):
        if zoom:
            page.evaluate(
                "(zoom) => panel.chart.dispatchAction({ type: 'dataZoom', startValue: zoom[0], endValue: zoom[1] })",
                zoom,
            )
        for x in (404, 447, 615, 693):
            at = page.evaluate("(x) => panel.chart.convertToPixel({ xAxisIndex: 0 }, x)", x)
            plot = page.locator("#probe [data-plot]").bounding_box()
            page.mouse.move(plot["x"] + at, plot["y"] + 120)
            told = page.locator("#probe .chart-tip").inner_text()
            crosshair = page.locator("#probe .crosshair").bounding_box()
            step = int(told.split("\n")[0].removeprefix("step "))
            assert step % 10 == 0
            assert abs(step - x) <= 5
            stands = page.evaluate("(x) => panel.chart.convertToPixel({ xAxisIndex: 0 }, x)", step)
            assert abs(crosshair["x"] + crosshair["width"] / 2 - plot["x"] - stands) <= 1.5
            rows = page.locator("#probe .chart-tip-row").all_inner_texts()
            by_name = {row.split("\n")[0]: row.split("\n")[1:] for row in rows}
            assert by_name["loss/total"][-1] == str(step)
            nearest = min(sparse["step"], key=lambda one: abs(one - step))
            told_at = [] if nearest == step else [f"step {nearest}"]
            assert by_name["loss/rare"] == [*told_at, str(nearest + 0.5)]


@pytest.mark.timeout(120)
def test_labels_stand_below_the_columns_whose_steps_they_name(open_page: Callable[..., Any]) -> None:
    page = open_page(viewport={"width": 1000, "height": 600})
    page.goto("/workers/")
    steps = [0, 100, 200, 300, 400, 499]
    shown = page.evaluate(
        """async (steps) => {
            const { columnAxis } = await import("/static/attn/charts/column_axis.js");
            const box = document.createElement("div");
            box.style.cssText = "position: fixed; left: 0; top: 0; width: 600px";
            document.body.append(box);
            columnAxis(box, steps);
            const places = [...box.children].map((label) => {
                const { left, right } = label.getBoundingClientRect();
                return [Number(label.textContent), (left + right) / 2];
            });
            box.style.width = "150px";
            columnAxis(box, steps);
            return { places, narrow: [...box.children].map((label) => label.textContent) };
        }""",
        steps,
    )
    assert len(shown["places"]) == 5
    assert shown["narrow"] == ["0", "499"]
    for step, middle in shown["places"]:
        assert abs(middle - (steps.index(step) + 0.5) * 100) < 2


@pytest.mark.timeout(120)
def test_a_logarithmic_axis_spans_the_decades_of_its_data(chart: Callable[..., Any]) -> None:
    page = chart(line("grad_norm/a", [2e-5, 0.003, 0.9]), y="log")
    for small in (False, True):
        page.evaluate("(small) => { panel.small = small; panel.draw(); panel.chart.resize(); }", small)
        page.wait_for_timeout(200)
        low, high = page.evaluate("panel.chart.getModel().getComponent('yAxis').axis.scale.getExtent()")
        assert (low, high) == pytest.approx((1e-5, 1))
