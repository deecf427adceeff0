// Elements that the views of the Inspect tab share.

import { figure } from "../charts/numbers.js";
import { channels, colour, ramp } from "../charts/palette.js";

export function make(kind, name = "", words = "") {
  return Object.assign(document.createElement(kind), { className: name, textContent: words });
}

export function button(name, words, clicked, pressed = null) {
  const element = make("button", name, words);
  element.type = "button";
  if (pressed !== null) element.ariaPressed = String(pressed);
  element.addEventListener("click", clicked);
  return element;
}

// A titled block of the detail view.
export function block(title, help, body) {
  const element = make("section", "inspect-block");
  element.append(make("h3", "", title), make("p", "tiny quiet", help), body);
  return element;
}

// Rows of label, bar and number; `rows` are {label, value, note, on, clicked}. Values lie in [0, 1].
export function bars(rows) {
  const list = make("ul", "inspect-bars");
  for (const { label, value, note = "", on = false, clicked = null, kind = "" } of rows) {
    const row = make("li", `inspect-bar ${kind}`);
    row.toggleAttribute("data-on", on);
    const name = clicked ? button("inspect-bar-name", label, clicked, on) : make("span", "inspect-bar-name", label);
    if (note) name.append(make("small", "quiet", ` ${note}`));
    const track = make("span", "inspect-bar-track");
    const fill = make("i");
    fill.style.width = `${100 * Math.max(0, Math.min(1, value ?? 0))}%`;
    track.append(fill);
    row.append(name, track, make("span", "inspect-bar-value mono", share(value)));
    list.append(row);
  }
  return list;
}

export function share(value) {
  return value === null || value === undefined ? "–" : value.toFixed(3);
}

// One cell per number: the hue gives the sign, the opacity the magnitude relative to the largest.
export function paintSigned(canvas, rows) {
  const most = Math.max(1e-9, ...rows.flat().map((value) => Math.abs(value ?? 0)));
  const [up, down] = [channels(colour("series-1")), channels(colour("series-2"))];
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (const [place, value] of rows.flat().entries())
    image.data.set([...((value ?? 0) < 0 ? down : up), Math.round((255 * Math.abs(value ?? 0)) / most)], 4 * place);
  context.putImageData(image, 0, 0);
  return most;
}

// Bars up and down from a middle line, one per dimension.
export function paintBars(canvas, values) {
  const [width, height] = [Math.max(240, values.length * 6), 96];
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const most = Math.max(1e-9, ...values.map((value) => Math.abs(value ?? 0)));
  const step = width / values.length;
  values.forEach((value, at) => {
    const tall = ((value ?? 0) / most) * (height / 2 - 2);
    context.fillStyle = colour(tall < 0 ? "series-2" : "series-1");
    context.fillRect(
      at * step + step * 0.1,
      height / 2 - Math.max(tall, 0),
      Math.max(1, step * 0.8),
      Math.max(0.5, Math.abs(tall)),
    );
  });
  context.fillStyle = colour("line-strong");
  context.fillRect(0, height / 2, width, 1);
}

// Weights as cells of `cell` pixels, with numbers where they fit. `marks(row, column)` names the colour of a frame.
export function paintMap(canvas, weights, { cell, numbers, marks, most = 1 }) {
  canvas.width = weights[0].length * cell;
  canvas.height = weights.length * cell;
  const context = canvas.getContext("2d");
  const colours = ramp();
  const ends = [colours[0], colours[255]].map(inWords);
  context.font = `${Math.round(cell * 0.29)}px ui-monospace, monospace`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const [y, row] of weights.entries())
    for (const [x, value] of row.entries()) {
      const shade = colours[Math.round(255 * Math.max(0, Math.min(1, (value ?? 0) / most)))];
      context.fillStyle = inWords(shade);
      context.fillRect(x * cell, y * cell, cell - 1, cell - 1);
      if (numbers) {
        context.fillStyle = light(shade) === light(colours[0]) ? ends[1] : ends[0];
        context.fillText((value ?? 0).toFixed(2), (x + 0.5) * cell, (y + 0.5) * cell);
      }
      const frame = marks(y, x);
      if (!frame) continue;
      context.strokeStyle = colour(frame);
      context.lineWidth = Math.max(2, cell / 14);
      context.strokeRect(x * cell + 1.5, y * cell + 1.5, cell - 4, cell - 4);
    }
}

function inWords(shade) {
  return `rgb(${shade.map(Math.round).join(" ")})`;
}

function light([red, green, blue]) {
  return 0.3 * red + 0.59 * green + 0.11 * blue > 128;
}

export function mean(maps) {
  return maps[0].map((row, y) => row.map((_, x) => maps.reduce((sum, map) => sum + (map[y][x] ?? 0), 0) / maps.length));
}

export { figure };
