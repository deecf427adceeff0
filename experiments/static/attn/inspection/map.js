// Attention as a map with a row per query and a column per key, or as lines between them.
import { button, make, paintMap } from "./parts.js";

const FEW = 16; // up to this size the cells have room for numbers
const SVG = "http://www.w3.org/2000/svg";

// `names` are {queries, keys}; `chosen` is {query, key}; `pick(query, key)` takes null for "unchanged".
export function mapOf(weights, names, chosen, truth, pick) {
  const few = weights.length <= FEW && weights[0].length <= FEW;
  const grid = make("div", few ? "inspect-map" : "inspect-map inspect-map-dense");
  grid.style.setProperty("--columns", weights[0].length);
  grid.style.setProperty("--rows", weights.length);
  grid.append(make("span", "inspect-map-corner tiny quiet", "queries ↓  keys →"));
  names.keys.forEach((name, at) => {
    const label = button("inspect-map-top", name, () => pick(null, at), at === chosen.key);
    label.setAttribute("aria-label", `Key ${name}`);
    grid.append(label);
  });
  names.queries.forEach((name, at) => {
    const label = button("inspect-map-side", name, () => pick(at, null), at === chosen.query);
    label.setAttribute("aria-label", `Query ${name}`);
    label.style.gridRow = at + 2;
    grid.append(label);
  });
  grid.append(canvasOf(weights, few, chosen, truth, pick));
  if (!few) grid.append(make("p", "inspect-map-foot tiny quiet", `maximum ${Math.max(...weights.flat()).toFixed(3)}`));
  return grid;
}

function canvasOf(weights, few, chosen, truth, pick) {
  const canvas = make("canvas", "inspect-map-cells");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Attention weights, one row per query; select with the names beside it");
  const marks = (row, column) =>
    row === chosen.query && column === chosen.key ? "accent" : truth?.[row] === column ? "good" : "";
  const most = few ? 1 : Math.max(1e-9, ...weights.flat()); // with many keys each weight is small
  const paint = () => paintMap(canvas, weights, { cell: few ? 120 : 12, numbers: few, marks, most });
  paint();
  canvas.paint = paint;
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const at = (place, size, count) => Math.max(0, Math.min(count - 1, Math.floor((place / size) * count)));
    pick(
      at(event.clientY - box.top, box.height, weights.length),
      at(event.clientX - box.left, box.width, weights[0].length),
    );
  });
  return canvas;
}

// Queries left, keys right; the thicker the line, the larger the weight. Lines of the chosen query and key stand out.
export function arcsOf(weights, names, chosen, pick) {
  const line = 30;
  const tall = line * Math.max(weights.length, weights[0].length) + 10;
  const svg = shape("svg", {
    viewBox: `0 0 420 ${tall}`,
    class: "inspect-arcs",
    role: "group",
    "aria-label": "Lines from queries to keys",
  });
  for (const [y, row] of weights.entries())
    for (const [x, value] of row.entries()) {
      if (value < 0.02) continue;
      const [from, to] = [line * (y + 0.5) + 5, line * (x + 0.5) + 5];
      const on = y === chosen.query || x === chosen.key;
      svg.append(
        shape("path", {
          d: `M120 ${from} C 190 ${from}, 230 ${to}, 300 ${to}`,
          class: on ? "on" : "",
          "stroke-width": 0.5 + 7 * value,
          "stroke-opacity": on ? 0.25 + 0.75 * value : 0.08 + 0.4 * value,
        }),
      );
    }
  const label = (name, at, x, anchor, on, clicked) => {
    const text = shape("text", {
      x,
      y: line * (at + 0.5) + 9,
      "text-anchor": anchor,
      class: on ? "on" : "",
      tabindex: 0,
      role: "button",
    });
    text.textContent = name;
    text.addEventListener("click", clicked);
    text.addEventListener("keydown", (event) => event.key === "Enter" && clicked());
    svg.append(text);
  };
  for (const [at, name] of names.queries.entries())
    label(name, at, 112, "end", at === chosen.query, () => pick(at, null));
  for (const [at, name] of names.keys.entries()) label(name, at, 308, "start", at === chosen.key, () => pick(null, at));
  return svg;
}

function shape(kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
