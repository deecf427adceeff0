// Crosshair and tooltip of a panel; the crosshairs of all panels move together.
import { figure, span } from "./numbers.js";
import { paintSwatch } from "./palette.js";
import { nearest } from "./points.js";

const MAX_ROWS = 14;
const all = new Set();

export class Hover {
  constructor(panel) {
    this.panel = panel;
    this.line = add(panel.plot, "crosshair");
    this.tip = add(panel.plot, "chart-tip");
    panel.plot.classList.add("hoverable");
    const zr = panel.chart.getZr();
    zr.on("mousemove", (event) => this.move(event.offsetX, event.offsetY));
    zr.on("globalout", () => {
      for (const hover of all) hover.hide();
    });
    all.add(this);
  }

  move(left, top) {
    const { chart } = this.panel;
    if (!this.panel.shown?.length || !chart.containPixel("grid", [left, top])) return this.hide();
    const x = this.panel.nearestX(chart.convertFromPixel({ xAxisIndex: 0 }, left));
    if (x === null) return this.hide();
    for (const hover of all) if (hover !== this && hover.panel.view.axis === this.panel.view.axis) hover.follow(x);
    this.follow(x);
    this.write(x);
    this.place(left, top);
  }

  follow(x) {
    const left = this.panel.shown?.length ? this.panel.chart.convertToPixel({ xAxisIndex: 0 }, x) : NaN;
    this.line.hidden = !(left > 0 && left < this.panel.plot.clientWidth);
    this.line.style.transform = `translateX(${left}px)`;
    if (!this.tip.hidden) this.tip.hidden = true;
  }

  hide() {
    this.line.hidden = this.tip.hidden = true;
  }

  write(x) {
    const rows = this.panel.shown
      .filter((line) => line.x.length)
      .map((line) => {
        const at = nearest(line.x, x);
        return { line, value: line.y[at], elsewhere: line.x[at] === x ? null : this.named(line.x[at]) };
      });
    rows.sort((a, b) => (b.value ?? Infinity) - (a.value ?? Infinity));
    this.tip.replaceChildren(text("p", this.named(x), "quiet"), ...rows.slice(0, MAX_ROWS).map(row));
    if (rows.length > MAX_ROWS) this.tip.append(text("p", `and ${rows.length - MAX_ROWS} more`, "quiet"));
  }

  named(x) {
    return this.panel.view.axis === "time" ? span(x) : `step ${x}`;
  }

  place(left, top) {
    this.tip.hidden = false;
    const { clientWidth, clientHeight } = this.panel.plot;
    const { offsetWidth, offsetHeight } = this.tip;
    const x = left + 16 + offsetWidth > clientWidth ? Math.max(0, left - 16 - offsetWidth) : left + 16;
    const y = Math.max(0, Math.min(top - offsetHeight / 2, clientHeight - offsetHeight));
    this.tip.style.transform = `translate(${x}px, ${y}px)`;
  }
}

// A line without a point at the crosshair shows its nearest point and that point's place.
function row({ line, value, elsewhere }) {
  const element = text("p", "", "chart-tip-row");
  const swatch = text("span", "", "swatch");
  paintSwatch(swatch, line);
  element.append(
    swatch,
    text("span", line.label, "clip"),
    text("span", elsewhere ?? "", "tiny quiet"),
    text("b", value === null ? "non-finite" : figure(value)),
  );
  return element;
}

function text(kind, words, name = "") {
  return Object.assign(document.createElement(kind), { textContent: words, className: name });
}

function add(parent, name) {
  const element = text("div", "", name);
  element.hidden = true;
  parent.append(element);
  return element;
}
