// A panel of curves: ECharts draws lines and axes, this code the legend, the crosshair and the tooltip.
import * as echarts from "../../vendor/echarts.esm.min.mjs";
import { Hover } from "./hover.js";
import { figure, span, tick } from "./numbers.js";
import { colour, paintSwatch, seriesStyle } from "./palette.js";
import { coincident, isolated, nearest, smoothed } from "./points.js";

const FEW = 50;
const DASH = 7; // pixels of each colour where lines coincide
const ROUNDING = 1e-9; // of a logarithm: 1e-5 is a whole decade
const panels = new Set();

// From the decade below the data to the decade above. Without bounds, and with few ticks, ECharts rounds a wide
// span to multiples of ten decades.
const LOG_AXIS = {
  type: "log",
  splitNumber: 6,
  min: ({ min }) => (min > 0 ? 10 ** Math.floor(Math.log10(min) + ROUNDING) : null),
  max: ({ max }) => (max > 0 ? 10 ** Math.ceil(Math.log10(max) - ROUNDING) : null),
};

export class LinePanel {
  // `element` holds [data-plot] and optionally [data-legend]; `style(series, at)` gives {label, colour, dash, hidden}.
  constructor(element, { style = null, log = false, small = false, zoomed = null } = {}) {
    this.element = element;
    this.plot = element.querySelector("[data-plot]");
    this.legend = element.querySelector("[data-legend]");
    this.style = style ?? ((series, at) => ({ label: series.name, ...seriesStyle(at) }));
    this.autoLog = log;
    this.small = small;
    this.zoomed = zoomed;
    this.hidden = new Set();
    this.view = { smooth: 0, axis: "step", y: "auto" };
    this.series = [];
    this.chart = echarts.init(this.plot, null, { renderer: "canvas" });
    this.hover = new Hover(this);
    new ResizeObserver(() => this.chart.resize()).observe(this.plot);
    this.listenToZoom();
    panels.add(this);
  }

  setView(view) {
    this.view = { ...this.view, ...view };
    this.draw();
  }

  setSeries(series) {
    this.series = series;
    this.draw();
  }

  get log() {
    const wanted = this.view.y === "auto" ? this.autoLog : this.view.y === "log";
    return wanted && this.lines.some((line) => line.y.some((value) => value > 0));
  }

  // Few points, such as evaluations, are not smoothed.
  smooths(series) {
    return this.view.smooth > 0 && series.value.length > FEW;
  }

  draw() {
    this.lines = this.series.map((series, at) => {
      const style = this.style(series, at);
      const y = this.smooths(series) ? smoothed(series.value, this.view.smooth) : series.value;
      return { key: `${series.run} ${series.name}`, series, x: series[this.view.axis], y, ...style };
    });
    this.shown = this.lines.filter((line) => !this.hidden.has(line.key) && !line.hidden);
    this.interleave();
    this.chart.setOption(this.option(), { replaceMerge: ["series"], lazyUpdate: true });
    this.armZoom();
    this.writeLegend();
  }

  // Coincident lines would hide each other: they show their colours in alternating dashes.
  interleave() {
    for (const group of coincident(this.shown)) {
      const lowest = this.shown[group[0]];
      group.slice(1).forEach((place, at) => {
        const line = this.shown[place];
        line.same = lowest;
        line.dash = [DASH, DASH * (group.length - 1)];
        line.dashOffset = DASH * at;
      });
    }
  }

  option() {
    const log = this.log;
    const text = { color: colour("ink-3"), fontSize: this.small ? 10 : 11 };
    const grid = { lineStyle: { color: colour("line") } };
    const along = this.view.axis === "time" ? span : tick;
    return {
      animation: false,
      grid: this.small
        ? { left: 2, right: 8, top: 6, bottom: 0, containLabel: true }
        : { left: 8, right: 14, top: 10, bottom: 4, containLabel: true },
      xAxis: {
        type: "value",
        min: ({ min, max }) => (min < max / 4 ? 0 : min),
        max: "dataMax",
        axisLabel: { ...text, formatter: along, hideOverlap: true, showMaxLabel: false },
        splitLine: { show: false },
        axisLine: { ...grid, show: true },
        axisTick: { show: false },
      },
      yAxis: {
        ...(log ? LOG_AXIS : { type: "value", scale: true, splitNumber: this.small ? 2 : 4 }),
        axisLabel: { ...text, formatter: tick, hideOverlap: true },
        splitLine: grid,
        minorSplitLine: { show: false },
      },
      toolbox: {
        show: true,
        right: -60,
        feature: { dataZoom: { yAxisIndex: "none", brushStyle: { color: colour("accent-soft"), opacity: 0.6 } } },
      },
      series: [...this.shown.flatMap((line) => this.drawn(line, log)), this.holes()],
    };
  }

  drawn(line, log) {
    const drawable = (values) => (log ? values.map((value) => (value > 0 ? value : null)) : values);
    const pairs = (values) => drawable(values).map((value, at) => [line.x[at], value]);
    const base = {
      type: "line",
      showSymbol: line.x.length <= FEW,
      symbol: "circle",
      symbolSize: 4,
      silent: true,
      connectNulls: false,
      z: 3,
    };
    const drawn = [
      {
        ...base,
        data: pairs(line.y),
        lineStyle: { color: line.colour, width: 1.6, type: line.dash ?? "solid", dashOffset: line.dashOffset ?? 0 },
        itemStyle: { color: line.colour },
      },
    ];
    if (this.smooths(line.series))
      drawn.unshift({
        ...base,
        z: 2,
        data: pairs(line.series.value),
        lineStyle: { color: line.colour, width: 1, opacity: 0.22 },
      });
    const raw = drawable(line.series.value);
    const dots = base.showSymbol ? [] : isolated(raw).map((at) => [line.x[at], raw[at]]);
    if (dots.length)
      drawn.push({ type: "scatter", data: dots, symbolSize: 5, silent: true, z: 4, itemStyle: { color: line.colour } });
    return drawn;
  }

  // Steps with a NaN or infinite value are marked in red across the plot.
  holes() {
    const at = new Set();
    for (const line of this.shown)
      for (const [i, value] of line.series.value.entries()) if (value === null) at.add(line.x[i]);
    const marks = [...at]
      .sort((a, b) => a - b)
      .slice(0, 400)
      .map((x) => ({ xAxis: x }));
    const style = { color: colour("bad"), width: 1.5, type: "solid", opacity: 0.8 };
    return {
      type: "line",
      data: [],
      silent: true,
      markLine: {
        symbol: ["none", "triangle"],
        symbolSize: 6,
        label: { show: false },
        lineStyle: style,
        data: marks,
        animation: false,
      },
    };
  }

  writeLegend() {
    if (!this.legend) return;
    const labels = shortened(this.lines.map((line) => line.label));
    const log = this.log;
    while (this.legend.children.length > this.lines.length) this.legend.lastChild.remove();
    this.lines.forEach((line, at) => {
      const key = this.legend.children[at] ?? this.addKey();
      key.dataset.key = line.key;
      key.setAttribute("aria-pressed", String(!this.hidden.has(line.key)));
      paintSwatch(key.firstChild, line);
      key.children[1].textContent = labels[at];
      key.children[2].textContent = figure(line.series.value.at(-1));
      key.children[3].textContent = this.notes(line, labels, log).join(", ");
    });
    this.unfold();
  }

  // What the line does not show.
  notes(line, labels, log) {
    const { value, nonfinite } = line.series;
    const below = log ? value.filter((each) => each !== null && each <= 0).length : 0;
    return [
      ...(line.same ? [`equal to ${labels[this.lines.indexOf(line.same)]}`] : []),
      ...(nonfinite ? [`${nonfinite} non-finite`] : []),
      ...(below ? [`${below} of ${value.length} points ≤ 0 not on this axis`] : []),
    ];
  }

  // The recorded place nearest to `x` of all shown lines.
  nearestX(x) {
    const candidates = this.shown.filter((line) => line.x.length).map((line) => line.x[nearest(line.x, x)]);
    return candidates.reduce((best, at) => (best === null || Math.abs(at - x) < Math.abs(best - x) ? at : best), null);
  }

  // A legend that does not fit gets a button that unfolds it.
  unfold() {
    const folded = this.legend.scrollHeight > this.legend.clientHeight + 2;
    if (!folded && !this.more) return;
    this.more ??= this.addMore();
    const open = this.legend.classList.contains("unfolded");
    this.more.hidden = !folded && !open;
    this.more.ariaExpanded = String(open);
    this.more.textContent = open ? "fewer" : `all ${this.lines.length}`;
  }

  addMore() {
    const more = Object.assign(document.createElement("button"), {
      type: "button",
      className: "link-button panel-more",
    });
    more.addEventListener("click", () => {
      this.legend.classList.toggle("unfolded");
      this.unfold();
    });
    this.element.querySelector("figcaption").append(more);
    return more;
  }

  addKey() {
    const key = document.createElement("button");
    key.type = "button";
    key.className = "key";
    key.append(
      ...["swatch", "", "", "panel-note"].map((name, at) =>
        Object.assign(document.createElement(at === 2 ? "b" : "span"), { className: name }),
      ),
    );
    key.addEventListener("click", () => {
      if (!this.hidden.delete(key.dataset.key)) this.hidden.add(key.dataset.key);
      this.draw();
    });
    this.legend.append(key);
    return key;
  }

  // Drag across the plot to zoom in; double-click to reset.
  armZoom() {
    if (this.armed) return;
    this.armed = true;
    const active = { type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: true };
    requestAnimationFrame(() => this.chart.dispatchAction(active));
  }

  listenToZoom() {
    this.chart.on("datazoom", (event) => {
      const { startValue, endValue } = event.batch?.[0] ?? event;
      if (startValue === undefined || !this.zoomed) return;
      this.zoomed(this.stepAt(startValue), this.stepAt(endValue));
    });
    this.plot.addEventListener("dblclick", () => this.chart.dispatchAction({ type: "dataZoom", start: 0, end: 100 }));
  }

  stepAt(x) {
    const line = this.view.axis === "step" ? null : this.shown[0];
    return line ? line.series.step[nearest(line.x, x)] : x;
  }

  dispose() {
    panels.delete(this);
    this.chart.dispose();
  }
}

// Names without their common first parts.
function shortened(labels) {
  if (labels.length < 2) return labels;
  const parts = labels.map((label) => label.split("/"));
  let common = 0;
  while (parts.every((part) => part.length > common + 1 && part[common] === parts[0][common])) common += 1;
  return parts.map((part) => part.slice(common).join("/"));
}

document.addEventListener("themechange", () => {
  for (const panel of panels) panel.draw();
});
