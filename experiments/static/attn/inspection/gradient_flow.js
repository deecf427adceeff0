// The gradient at each station over steps, as colours on a log scale and as lines.

import { columnAxis } from "../charts/column_axis.js";
import { getJson } from "../charts/feed.js";
import { LinePanel } from "../charts/line_panel.js";
import { figure } from "../charts/numbers.js";
import { channels, colour } from "../charts/palette.js";
import { paintStrip, scaleBar } from "../charts/strip.js";
import { remember } from "../frame/address.js";
import { pause } from "../frame/live.js";
import { make } from "./parts.js";

const root = document.querySelector("[data-flow]");
const form = root.querySelector("[data-flow-tools]");
const ladder = root.querySelector("[data-ladder]");
const lines = new LinePanel(root.querySelector("[data-flow-lines]"), { log: true });
const errors = new LinePanel(root.querySelector("[data-flow-error]"), { log: true });
const COLUMNS = 2000; // one column per probe, so that each value stands at its own step
const MAX_DECADES = 6; // of the scale
let answer = null;

function series(name, values) {
  return {
    run: Number(root.dataset.run),
    name,
    step: answer.steps,
    time: answer.steps,
    value: values,
    count: values.length,
    nonfinite: 0,
  };
}

function draw() {
  const chosen = answer?.sites.find((each) => each.site === form.elements.site.value);
  if (!chosen) return;
  const all = chosen.values.flat().filter((value) => value > 0);
  const high = Math.log10(Math.max(...all));
  const low = Math.max(Math.log10(Math.min(...all)), high - MAX_DECADES);
  const axis = make("div", "tiny quiet");
  ladder.replaceChildren(
    ...chosen.stations.flatMap((station, at) => row(station, chosen.values[at], [low, high])),
    make("span"),
    axis,
  );
  columnAxis(axis, answer.steps);
  legend(low, high);
  lines.setSeries(chosen.stations.map((station, at) => series(station, chosen.values[at])));
  errors.setSeries(chosen.error ? [series(`chain error of ${chosen.site}`, chosen.error)] : []);
}

function row(station, values, span) {
  const strip = make("canvas", "flow-strip");
  strip.title = `${station}: first ${figure(values[0])}, last ${figure(values.at(-1))}`;
  paintStrip(strip, values, span, channels(colour("ramp-none")));
  return [make("span", "flow-name mono", station), strip, make("span", "flow-last mono", figure(values.at(-1)))];
}

function legend(low, high) {
  root
    .querySelector("[data-legend-bar]")
    .replaceChildren(
      make("span", "mono", `≤ ${figure(10 ** low)}`),
      scaleBar(),
      make("span", "mono", figure(10 ** high)),
      make("span", "", "gradient norm, last of each column"),
    );
}

async function load() {
  try {
    answer = await getJson(`runs/${root.dataset.run}/flow/`, { columns: COLUMNS });
    draw();
    root.dataset.answered = answer.steps.length;
  } catch {
    // the server is away: the view stays
  }
  if (Number(root.dataset.every)) setTimeout(load, pause(Number(root.dataset.every)));
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", () => {
  remember({ site: form.elements.site.value });
  draw();
});
document.addEventListener("themechange", draw);
load();
