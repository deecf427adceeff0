// The heat-map of W_q, W_k and W_v: one strip per matrix and site, one column per span of steps.

import { columnAxis } from "../charts/column_axis.js";
import { getJson } from "../charts/feed.js";
import { figure } from "../charts/numbers.js";
import { paintStrip, scaleBar } from "../charts/strip.js";
import { remember } from "../frame/address.js";
import { HeatHover } from "./hover.js";
import { ABOUT, hint, nearlyZero, reason, sitesOfOneKey } from "./zero.js";

const COLUMNS = 400;
const MAX_RANGE = 1e4; // of the scale: smaller values would cost contrast and say little

export class Heat {
  constructor(element, { run, picked }) {
    this.element = element;
    this.run = run;
    this.picked = picked;
    this.oneKey = new Set();
    this.open = new Set((element.dataset.open || "").split(",").filter(Boolean));
    this.row = element.dataset.row || "";
    this.took = 0; // milliseconds of the last request
    this.form = document.querySelector("[data-heat-tools]");
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => this.changed());
    document.addEventListener("themechange", () => this.paint());
    this.readTools();
  }

  readTools() {
    const data = new FormData(this.form);
    this.matrices = data.getAll("m");
    [this.what, this.order, this.scale] = ["what", "order", "scale"].map((name) => data.get(name));
  }

  changed() {
    const before = this.what;
    this.readTools();
    const usual = this.matrices.join() === "W_q,W_k,W_v";
    remember({
      m: usual ? null : this.matrices.join(),
      what: this.what === "grad_norm" ? null : this.what,
      order: this.order === "site" ? null : this.order,
      scale: this.scale === "shared" ? null : this.scale,
    });
    if (before !== this.what && this.row) this.pick(this.row.replace(before, this.what), true);
    return this.load();
  }

  // Loads the rows of the chosen matrices and the heads of the open rows. Resolves to whether the server answered.
  async load() {
    if (!this.matrices.length) return !this.message("Select at least one matrix above.");
    const names = this.matrices.map((matrix) => `${this.what}/*/${matrix}`);
    for (const row of this.open) names.push(`${this.what}/${row}/head.*`);
    const begun = performance.now();
    try {
      const grid = await getJson("series/grid/", {
        run: this.run,
        names: names.join(","),
        columns: COLUMNS,
        reduce: "max",
      });
      if (nearlyZero(new Map(grid.names.map((name, at) => [name, grid.values[at]]))).size)
        this.oneKey = await sitesOfOneKey(this.run);
      this.took = performance.now() - begun;
      this.show(grid);
      return true;
    } catch {
      this.took = 3000; // the server is away: the view stays
      return false;
    }
  }

  show(grid) {
    if (!grid.names.length) return this.steps ? null : this.message("This quantity has not been recorded.");
    this.steps = grid.steps;
    this.values = new Map(grid.names.map((name, at) => [name, grid.values[at]]));
    const layout = this.layout(grid.names);
    const shape = JSON.stringify([layout, [...this.open]]);
    if (shape !== this.shape) this.build(layout);
    this.shape = shape;
    this.paint();
  }

  // [[heading, [{name, site, matrix, key, heads}]]], by site or by matrix, in the order of the model.
  layout(names) {
    const rows = names
      .filter((name) => !name.includes("/head."))
      .map((name) => {
        const [, site, matrix] = name.split("/");
        return {
          name,
          site,
          matrix,
          key: `${site}/${matrix}`,
          heads: names.filter((other) => other.startsWith(`${name}/head.`)),
        };
      });
    rows.sort((a, b) => this.matrices.indexOf(a.matrix) - this.matrices.indexOf(b.matrix));
    const by = this.order === "matrix" ? "matrix" : "site";
    const headings = this.order === "matrix" ? this.matrices : [...new Set(names.map((name) => name.split("/")[1]))];
    return headings
      .map((heading) => [heading, rows.filter((row) => row[by] === heading)])
      .filter(([, mine]) => mine.length);
  }

  build(layout) {
    this.strips = new Map();
    const grid = make("div", "heat-grid");
    for (const [heading, rows] of layout) {
      if (grid.childElementCount) grid.append(make("div", "heat-gap"));
      grid.append(make("div", "heat-site", heading));
      for (const row of rows) {
        grid.append(this.buildRow(row));
        for (const head of row.heads) grid.append(this.buildHead(row, head));
      }
    }
    this.axis = make("div", "heat-axis");
    grid.append(this.axis);
    this.legend = make("div", "heat-legend");
    this.element.replaceChildren(grid, this.legend);
    this.grid = grid;
    this.hover = new HeatHover(this);
  }

  buildRow({ name, site, matrix, key }) {
    const open = make("button", "heat-open", this.open.has(key) ? "▾" : "▸");
    open.type = "button";
    open.ariaExpanded = String(this.open.has(key));
    open.ariaLabel = `Heads of ${matrix} at ${site}`;
    open.addEventListener("click", () => this.toggle(key));
    const pick = this.pickButton(name, this.order === "matrix" ? site : matrix, `${matrix} at ${site}`);
    pick.classList.add(`ink-${matrix.at(-1)}`);
    return this.assemble("heat-row", name, [open, pick]);
  }

  buildHead({ site, matrix }, name) {
    const label = name.split("/").at(-1).replace(".", " ");
    return this.assemble("heat-row heat-head", name, [
      this.pickButton(name, label, `${label} of ${matrix} at ${site}`),
    ]);
  }

  pickButton(name, label, words) {
    const pick = make("button", "heat-pick", label);
    pick.type = "button";
    pick.ariaPressed = String(name === this.row);
    pick.title = `Show the curve of ${words}`;
    pick.addEventListener("click", () => this.pick(name));
    return pick;
  }

  assemble(kind, name, buttons) {
    const row = make("div", kind);
    row.toggleAttribute("data-picked", name === this.row);
    const label = make("div", "heat-name");
    label.append(...buttons);
    const strip = make("canvas", "heat-strip");
    strip.dataset.name = name;
    strip.addEventListener("click", () => this.pick(name));
    const last = make("div", "heat-last mono");
    row.append(label, strip, last);
    this.strips.set(name, { row, strip, last, pick: buttons.at(-1) });
    return row;
  }

  toggle(key) {
    if (!this.open.delete(key)) this.open.add(key);
    remember({ open: [...this.open].join(",") });
    return this.load();
  }

  pick(name, again = false) {
    this.row = name === this.row && !again ? "" : name;
    for (const [key, { row, pick }] of this.strips) {
      row.toggleAttribute("data-picked", key === this.row);
      pick.ariaPressed = String(key === this.row);
    }
    remember({ row: this.row });
    this.picked(this.row);
  }

  paint() {
    if (!this.strips) return;
    const shared = this.span([...this.values.values()].flat());
    this.zero = nearlyZero(this.values);
    for (const [name, { strip, last }] of this.strips) {
      const values = this.values.get(name) ?? [];
      const span = this.scale === "row" ? this.span(values) : shared;
      const blank = this.zero.has(name) && this.scale !== "row";
      paintStrip(strip, blank ? [] : values, span);
      strip.classList.toggle("heat-zero", blank);
      this.writeLatest(name, strip, last, values.at(-1));
    }
    this.writeAxis();
    this.writeLegend(shared);
  }

  writeLatest(name, strip, last, latest) {
    const zero = this.zero.has(name);
    last.textContent = zero ? "≈ 0" : latest === null ? "non-finite" : figure(latest);
    last.classList.toggle("heat-bad", latest === null);
    strip.title = last.title = zero ? hint(name, this.oneKey) : "";
    strip.setAttribute("aria-label", `${name}, latest ${last.textContent}`);
  }

  // [low, high] in decades, of the positive finite values.
  span(values) {
    let [low, high] = [Infinity, 0];
    for (const value of values) {
      if (value > 0) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    if (!high) return null;
    return [Math.log10(Math.max(low, high / MAX_RANGE)), Math.log10(high)];
  }

  writeAxis() {
    columnAxis(this.axis, this.steps);
  }

  writeLegend(span) {
    const [low, high] =
      this.scale === "row" || !span
        ? ["row minimum", "row maximum"]
        : [`≤ ${figure(10 ** span[0])}`, figure(10 ** span[1])];
    const swatch = (name) => make("i", `heat-swatch heat-swatch-${name}`);
    const zero = make("span", "", "zero");
    zero.prepend(swatch("none"));
    const odd = make("span", "", "non-finite");
    odd.prepend(swatch("bad"));
    this.legend.replaceChildren(
      make("span", "mono", low),
      scaleBar(),
      make("span", "mono", high),
      make("span", "", "log scale, maximum of each column"),
      zero,
      odd,
    );
    if (!this.zero.size) return;
    const nearly = make("span", "", `≈ 0, ${ABOUT}`);
    nearly.prepend(swatch("nearly"));
    const why = reason([...this.zero], this.oneKey);
    this.legend.append(nearly, ...(why ? [make("p", "heat-why", why)] : []));
  }

  message(words) {
    this.shape = null;
    this.strips = null;
    this.element.replaceChildren(make("p", "heat-wait quiet small", words));
  }
}

function make(kind, name, words = "") {
  return Object.assign(document.createElement(kind), { className: name, textContent: words });
}
