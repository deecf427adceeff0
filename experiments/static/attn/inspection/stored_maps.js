// Maps stored during training: a slider over steps, for one sample at one site.

import { getJson } from "../charts/feed.js";
import { recall, remember } from "../frame/address.js";
import { mapOf } from "./map.js";
import { make, mean } from "./parts.js";

const root = document.querySelector("[data-maps]");
const form = root.querySelector("form");
const box = root.querySelector("[data-map-over-time]");
const state = {
  site: recall("msite"),
  head: recall("mhead", "mean"),
  sample: Number(recall("msample", "0")),
  step: recall("mstep"),
};
let [answer, requests, chosen] = [null, 0, { query: null, key: null }];

function label(kind, at, of) {
  const grid = Math.round(Math.sqrt(of));
  if (kind === "patch") return `${Math.floor(at / grid)},${at % grid}`;
  if (kind === "query") return at ? `q${at - 1}` : "presence";
  return answer.about.tokens?.[at] ?? "–";
}

function draw() {
  const site = answer.sites.find((each) => each.name === answer.site);
  const weights =
    state.head === "mean" ? mean(answer.weights) : answer.weights[Math.min(Number(state.head), site.heads - 1)];
  const words = answer.about.tokens?.length ?? Infinity;
  const rows = site.asks === "text" ? weights.slice(0, words) : weights;
  const cut = site.answers === "text" ? rows.map((row) => row.slice(0, words)) : rows;
  const names = {
    queries: cut.map((_, at) => label(site.asks, at, weights.length)),
    keys: cut[0].map((_, at) => label(site.answers, at, weights[0].length)),
  };
  const pick = (query, key) => {
    chosen = { query: query ?? chosen.query, key: key ?? chosen.key };
    draw();
  };
  box.replaceChildren(mapOf(cut, names, chosen, null, pick));
  form.elements.site.replaceChildren(
    ...answer.sites.map(({ name }) => new Option(name, name, false, name === answer.site)),
  );
  const heads = Array.from(
    { length: site.heads },
    (_, at) => new Option(`head ${at}`, String(at), false, String(at) === state.head),
  );
  form.elements.head.replaceChildren(new Option("mean of heads", "mean", false, state.head === "mean"), ...heads);
  form.elements.sample.replaceChildren(
    ...Array.from(
      { length: answer.samples },
      (_, at) => new Option(`sample ${at}`, String(at), false, at === state.sample),
    ),
  );
  form.elements.at.max = answer.steps.length - 1;
  form.elements.at.value = answer.steps.indexOf(answer.step);
  form.querySelector("output").textContent = `step ${answer.step}`;
  const value = chosen.query !== null && chosen.key !== null ? cut[chosen.query]?.[chosen.key] : undefined;
  const cell =
    value === undefined
      ? ""
      : `: ${names.queries[chosen.query]} attends to ${names.keys[chosen.key]} with ${value.toFixed(3)}`;
  root.querySelector("[data-map-words]").textContent =
    `${answer.about.prompt ? `“${answer.about.prompt}”` : (answer.about.tokens ?? []).join(" ")}${cell}`;
  const picture = answer.about.image
    ? Object.assign(make("img", "inspect-thumb"), { src: `data:image/png;base64,${answer.about.image}`, alt: "Sample" })
    : "";
  root.querySelector("[data-map-image]").replaceChildren(picture);
}

async function load() {
  const request = ++requests;
  const query = {
    sample: state.sample,
    ...(state.site ? { site: state.site } : {}),
    ...(state.step ? { step: state.step } : {}),
  };
  try {
    const fresh = await getJson(`runs/${root.dataset.run}/attention/`, query);
    if (request !== requests || !fresh.weights.length) return;
    answer = fresh;
    draw();
    root.dataset.shown = answer.step;
  } catch {
    // the server is away, or the run was retried from the start: the view stays
  }
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", ({ target }) => {
  const { site, head, sample, at } = form.elements;
  Object.assign(state, {
    site: site.value,
    head: head.value,
    sample: Number(sample.value),
    step: target === at ? String(answer.steps[at.value]) : state.step,
  });
  remember({
    msite: state.site,
    mhead: state.head === "mean" ? null : state.head,
    msample: state.sample || null,
    mstep: state.step,
  });
  if (target === head) draw();
  else load();
});
document.addEventListener("themechange", () => answer && draw());
load();
