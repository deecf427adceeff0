// Who asks whom: a map with a row for each asker and a column for each answerer, or lines from one to the other.
import { button, make, paintMap } from "./parts.js";

const FEW = 16; // so many askers still have room for numbers
const SVG = "http://www.w3.org/2000/svg";

// `names` are {askers, answerers}; `chosen` is {asker, answerer}; `pick(asker, answerer)` takes null for "as it is".
export function mapOf(weights, names, chosen, truth, pick) {
  const few = weights.length <= FEW && weights[0].length <= FEW;
  const grid = make("div", few ? "ask-map" : "ask-map ask-map-dense");
  grid.style.setProperty("--columns", weights[0].length);
  grid.style.setProperty("--rows", weights.length);
  grid.append(make("span", "ask-map-corner tiny quiet", "asks ↓  answers →"));
  names.answerers.forEach((name, at) => {
    const label = button("ask-map-top", name, () => pick(null, at), at === chosen.answerer);
    label.setAttribute("aria-label", `${name} answers`);
    grid.append(label);
  });
  names.askers.forEach((name, at) => {
    const label = button("ask-map-side", name, () => pick(at, null), at === chosen.asker);
    label.setAttribute("aria-label", `${name} asks`);
    label.style.gridRow = at + 2;
    grid.append(label);
  });
  grid.append(canvasOf(weights, few, chosen, truth, pick));
  if (!few)
    grid.append(
      make("p", "ask-map-foot tiny quiet", `the strongest colour is ${Math.max(...weights.flat()).toFixed(3)}`),
    );
  return grid;
}

function canvasOf(weights, few, chosen, truth, pick) {
  const canvas = make("canvas", "ask-map-cells");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "attention weights, one row an asker; the names beside it choose");
  const marks = (row, column) =>
    row === chosen.asker && column === chosen.answerer ? "accent" : truth?.[row] === column ? "good" : "";
  const most = few ? 1 : Math.max(1e-9, ...weights.flat()); // of many answerers each has little
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

// Askers left, answerers right; the thicker the line the more weight. The chosen asker's lines stand out.
export function arcsOf(weights, names, chosen, pick) {
  const line = 30;
  const tall = line * Math.max(weights.length, weights[0].length) + 10;
  const svg = shape("svg", {
    viewBox: `0 0 420 ${tall}`,
    class: "ask-arcs",
    role: "group",
    "aria-label": "lines from askers to answerers",
  });
  for (const [y, row] of weights.entries())
    for (const [x, value] of row.entries()) {
      if (value < 0.02) continue;
      const [from, to] = [line * (y + 0.5) + 5, line * (x + 0.5) + 5];
      const on = y === chosen.asker || x === chosen.answerer;
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
  for (const [at, name] of names.askers.entries())
    label(name, at, 112, "end", at === chosen.asker, () => pick(at, null));
  for (const [at, name] of names.answerers.entries())
    label(name, at, 308, "start", at === chosen.answerer, () => pick(null, at));
  return svg;
}

function shape(kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
