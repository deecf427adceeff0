// Compare: one panel per series, one line per run; colours by run or by a parameter.
import { Feed } from "../charts/feed.js";
import { LinePanel } from "../charts/line_panel.js";
import { paintSwatch, seriesStyle } from "../charts/palette.js";
import { chartTools, whenNear } from "../charts/tools.js";

const root = document.getElementById("compare");
const feed = new Feed(root.dataset.runs.split(",").map(Number), { every: 2 });
const entries = new Map([...root.querySelectorAll("[data-entry]")].map((item) => [Number(item.dataset.entry), item]));
const hidden = new Set();
const charts = [];

const view = chartTools((changed) => {
  for (const chart of charts) chart.setView(changed);
});

function style(series) {
  const { shade, label } = entries.get(series.run).dataset;
  return { label: `#${series.run} ${label}`, ...seriesStyle(Number(shade)), hidden: hidden.has(series.run) };
}

function paintLegend() {
  for (const item of entries.values())
    paintSwatch(item.querySelector(".swatch"), seriesStyle(Number(item.dataset.shade)));
}

for (const [run, item] of entries) {
  const button = item.querySelector("[data-toggle-run]");
  button.addEventListener("click", () => {
    if (!hidden.delete(run)) hidden.add(run);
    button.setAttribute("aria-pressed", String(!hidden.has(run)));
    for (const chart of charts) chart.draw();
  });
}

function panel(element, zoomed) {
  const chart = new LinePanel(element, {
    style,
    log: "logscale" in element.dataset,
    small: "small" in element.dataset,
    zoomed,
  });
  chart.view = { ...chart.view, ...view };
  charts.push(chart);
  return chart;
}

// The panels of a group share one request: a single panel, or the matrices of a site.
for (const group of root.querySelectorAll("[data-group]")) {
  let share = null;
  const elements = group.matches("[data-panel]") ? [group] : [...group.querySelectorAll("[data-panel]")];
  const mine = elements.map((element) => [element, panel(element, (from, to) => feed.zoom(share, from, to))]);
  const enter = async () => {
    share = await feed.subscribe(group.dataset.names, (changed) => {
      for (const [element, chart] of mine) {
        const series = [...changed.series.values()].filter(({ name }) => name === element.dataset.panel);
        element.dataset.lines = series.length;
        chart.setSeries(series);
      }
    });
  };
  whenNear(group, enter, (near) => {
    if (share) share.active = near;
  });
}

paintLegend();
document.addEventListener("themechange", paintLegend);
if (root.dataset.isLive) feed.start();
