// A run's page: live curves, the heat-map, and the curve of its selected row.
import htmx from "../../vendor/htmx.esm.js";
import { Feed, matches } from "../charts/feed.js";
import { LinePanel } from "../charts/line_panel.js";
import { colour, matrixColour, seriesStyle } from "../charts/palette.js";
import { chartTools, whenNear } from "../charts/tools.js";
import { pause } from "../frame/live.js";
import { Heat } from "../heat/heat.js";

const page = document.querySelector("[data-run]");
const head = document.getElementById("run-head");
const run = Number(page.dataset.run);
const feed = new Feed([run]);
const charts = new Set();
let view = { smooth: 0, axis: "step", y: "auto" };

const state = () => head.firstElementChild.dataset;
let attempt = state().attempt;

function training() {
  view = chartTools((changed) => {
    view = changed;
    for (const chart of charts) chart.setView(view);
  });
  adoptPanels();
  document.addEventListener("live", adoptPanels);
  head.addEventListener("live", followState);
  startHeat();
  followPictures();
  if (!state().ended) feed.start();
}

// A chart for every panel that has none yet; panels appear with their series.
function adoptPanels() {
  for (const element of document.querySelectorAll("[data-panels] [data-panel]:not([data-adopted])")) {
    element.dataset.adopted = "";
    const names = element.dataset.names;
    let share = null;
    const chart = new LinePanel(element, {
      log: "logscale" in element.dataset,
      zoomed: (from, to) => feed.zoom(share, from, to),
    });
    charts.add(chart);
    chart.view = view;
    const enter = async () => {
      share = await feed.subscribe(names, (changed) => {
        const series = [...changed.series.values()];
        chart.setSeries(series);
        element.dataset.lastStep = Math.max(-1, ...series.map((each) => each.step.at(-1) ?? -1));
      });
    };
    whenNear(element, enter, (near) => {
      if (share) share.active = near;
    });
  }
}

// A new attempt has truncated the series after its checkpoint: reload them.
function followState() {
  const now = state();
  if (now.attempt !== attempt) {
    attempt = now.attempt;
    feed.reload();
  }
  if (now.ended) feed.stop();
  else feed.start();
}

function startHeat() {
  const element = document.querySelector("[data-heat]");
  const curve = new Curve(element, () => heat.pick(heat.row));
  const heat = new Heat(element, { run, picked: (name) => curve.show(name) });
  let [near, visiting, final, timer, row] = [false, false, false, 0, heat.row];
  // Polls while in sight, until the last commit of an ended run is shown.
  const visit = async () => {
    clearTimeout(timer);
    if (visiting || final || !near) return;
    visiting = true;
    const ended = Boolean(state().ended);
    const loaded = await heat.load();
    visiting = false;
    final = ended && loaded;
    if (loaded && row) curve.show(row);
    if (loaded) row = null;
    timer = setTimeout(visit, pause(Math.max(3, heat.took / 100)));
  };
  head.addEventListener("live", () => {
    if (!final || state().ended) return;
    final = false; // retried
    visit();
  });
  whenNear(
    element,
    () => {},
    (seen) => {
      near = seen;
      visit();
    },
  );
}

// Shows the newest predictions until the slider selects older ones.
function followPictures() {
  const region = document.getElementById("predictions");
  const newest = region.dataset.live;
  region.addEventListener("input", ({ target }) => {
    region.dataset.live = target.value === target.max ? newest : `${newest}?at=${target.value}`;
  });
  region.addEventListener("live", () => htmx.process(region));
}

// The curve of one matrix, with its heads as thinner lines.
class Curve {
  constructor(heat, dismissed) {
    this.heat = heat;
    this.dismissed = dismissed;
  }

  async show(name) {
    this.close();
    if (!name) return;
    const short = name.split("/").slice(1).join(" ");
    this.element = document.createElement("figure");
    this.element.className = "card panel heat-chart";
    const title = Object.assign(document.createElement("figcaption"), { className: "panel-head" });
    const close = Object.assign(document.createElement("button"), {
      type: "button",
      className: "link-button",
      textContent: "Close",
    });
    close.addEventListener("click", () => this.dismissed());
    title.append(
      Object.assign(document.createElement("h3"), {
        textContent: `${name.split("/")[0].replace("_", " ")} of ${short}`,
      }),
    );
    title.append(Object.assign(document.createElement("span"), { className: "tiny" }), close);
    const legend = Object.assign(document.createElement("div"), { className: "panel-legend" });
    const plot = Object.assign(document.createElement("div"), { className: "panel-plot" });
    legend.dataset.legend = plot.dataset.plot = "";
    this.element.append(title, legend, plot);
    this.heat.after(this.element);
    const style = (series, at) => ({
      label: series.name.split("/").slice(2).join(" "),
      ...(at === 0 ? { colour: matrixColour(series.name) ?? colour("accent") } : seriesStyle(at + 4)),
    });
    this.chart = new LinePanel(this.element, { log: true, style });
    this.chart.view = view;
    charts.add(this.chart);
    this.share = await feed.subscribe(`${name},${name}/head.*`, (share) => {
      if (share === this.share || !this.share) this.chart?.setSeries(inOrder(share, name));
    });
  }

  close() {
    if (!this.chart) return;
    charts.delete(this.chart);
    feed.shares = feed.shares.filter((share) => share !== this.share);
    this.chart.dispose();
    this.element.remove();
    this.chart = this.share = null;
  }
}

function inOrder(share, name) {
  const series = [...share.series.values()];
  return series.sort((a, b) => Number(matches(b.name, name)) - Number(matches(a.name, name)));
}

// The log stays at its end until the user scrolls up.
function followLog() {
  const log = document.querySelector("[data-log]");
  if (!log) return;
  const follow = document.querySelector("[data-follow]");
  const toEnd = () => {
    if (follow.checked) log.scrollTop = log.scrollHeight;
  };
  new MutationObserver(toEnd).observe(log, { childList: true, subtree: true });
  follow.addEventListener("change", toEnd);
  log.addEventListener("wheel", (event) => {
    if (event.deltaY < 0) follow.checked = false;
  });
  toEnd();
}

if (document.getElementById("panels")) training();
followLog();
