// A plot of intervals: one row each, with mean, interval, single seeds and the margins of the test.
import * as echarts from "../../vendor/echarts.esm.min.mjs";
import { figure, tick } from "./numbers.js";
import { colour } from "./palette.js";

const ROW = 30;
const AXIS = 34;
const plots = new Set();

export class IntervalPlot {
  constructor(element) {
    this.element = element;
    this.rows = [];
    this.chart = null;
    new ResizeObserver(() => this.draw()).observe(element);
    plots.add(this);
  }

  // rows: {label, mean, low, high, seeds: [number], margins: [number], tone: name of a colour}
  setRows(rows) {
    this.rows = rows.filter((row) => row.mean !== null);
    this.element.hidden = !this.rows.length;
    this.element.style.height = `${this.rows.length * ROW + AXIS}px`;
    this.draw();
  }

  draw() {
    if (!this.rows.length || !this.element.clientWidth) return;
    this.chart ??= echarts.init(this.element, null, { renderer: "svg" });
    this.chart.resize();
    this.chart.setOption(this.option(), { notMerge: true });
  }

  option() {
    const text = { color: colour("ink-3"), fontSize: 11 };
    const room = Math.min(260, this.element.clientWidth * 0.4);
    return {
      animation: false,
      grid: { left: room, right: 24, top: 6, bottom: 26 },
      xAxis: {
        type: "value",
        scale: true,
        axisLabel: { ...text, formatter: tick, hideOverlap: true },
        splitNumber: room < 200 ? 3 : 6,
        splitLine: { lineStyle: { color: colour("line") } },
      },
      yAxis: {
        type: "category",
        inverse: true,
        data: this.rows.map((row) => row.label),
        axisLabel: { ...text, color: colour("ink-2"), width: room - 14, overflow: "truncate", interval: 0 },
        axisTick: { show: false },
        axisLine: { lineStyle: { color: colour("line") } },
      },
      tooltip: {
        trigger: "item",
        confine: true,
        backgroundColor: colour("raised"),
        borderColor: colour("line-strong"),
        textStyle: { color: colour("ink"), fontSize: 12 },
        formatter: ({ dataIndex }) => this.tooltip(dataIndex),
      },
      series: [this.custom(), this.dots("seeds", 5, 0.35), this.means()],
    };
  }

  custom() {
    const data = this.rows.map((row, at) => [at, row.low ?? row.mean, row.high ?? row.mean, ...(row.margins ?? [])]);
    return {
      type: "custom",
      data,
      encode: { x: data[0].map((_, at) => at).slice(1), y: 0 },
      renderItem: ({ dataIndex }, api) => {
        const row = this.rows[dataIndex];
        const y = api.coord([0, dataIndex])[1];
        const line = (from, to, style, half) => {
          const [a, b] = [api.coord([from, dataIndex])[0], api.coord([to, dataIndex])[0]];
          return { type: "line", shape: { x1: a, x2: b, y1: y - half, y2: y + half }, style };
        };
        const margins = (row.margins ?? []).map((at) =>
          line(at, at, { stroke: colour("warn"), lineWidth: 1.5, lineDash: [3, 2] }, 11),
        );
        const interval =
          row.low === null
            ? []
            : [line(row.low, row.high, { stroke: colour(row.tone), lineWidth: 3, lineCap: "round" }, 0)];
        return { type: "group", children: [...margins, ...interval] };
      },
    };
  }

  dots(field, size, opacity) {
    const data = this.rows.flatMap((row, at) =>
      (row[field] ?? []).map((value) => ({ value: [value, at], itemStyle: { color: colour(row.tone), opacity } })),
    );
    return { type: "scatter", data, symbolSize: size, silent: true };
  }

  means() {
    return {
      type: "scatter",
      symbolSize: 9,
      z: 4,
      data: this.rows.map((row, at) => ({ value: [row.mean, at], itemStyle: { color: colour(row.tone) } })),
    };
  }

  tooltip(at) {
    const row = this.rows[at];
    const span = row.low === null ? "" : ` [${figure(row.low)}, ${figure(row.high)}]`;
    return `${echarts.format.encodeHTML(row.label)}<br><b>${figure(row.mean)}</b>${span}`;
  }
}

document.addEventListener("themechange", () => {
  for (const plot of plots) plot.draw();
});
