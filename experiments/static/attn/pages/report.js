// The report of an experiment: interval plots of variants and of the preset's comparisons.
import { getJson } from "../charts/feed.js";
import { IntervalPlot } from "../charts/intervals.js";

const TONES = { supported: "good", "not supported": "bad", inconclusive: "ink-3" };
const root = document.getElementById("report");
const plots = Object.fromEntries(
  [...root.querySelectorAll("[data-plot]")].map((element) => [element.dataset.plot, new IntervalPlot(element)]),
);

function variant(row) {
  return { ...row, seeds: row.seeds.map(({ value }) => value), tone: "accent" };
}

function comparison({ id, estimate, low, high, margin, kind, refutable, result }) {
  const margins = kind === "equivalence" || refutable ? [-margin, margin] : [margin];
  return { label: id, mean: estimate, low, high, margins, tone: TONES[result] };
}

async function draw() {
  const report = await getJson(`experiments/${root.dataset.experiment}/report/`, { metric: root.dataset.metric });
  plots.variants.setRows(report.variants.map(variant));
  const tested = (report.verdict?.comparisons ?? []).filter(({ kind }) => kind !== "bound" && kind !== "floor");
  // Ratios and steps have other scales; on them these intervals would be points.
  const alike = tested.filter(({ kind, value }) => kind !== "ratio" && value.below === null);
  plots.comparisons.setRows(alike.map(comparison));
  plots.ratios.setRows(tested.filter(({ kind }) => kind === "ratio").map(comparison));
}

root.addEventListener("live", draw);
draw();
