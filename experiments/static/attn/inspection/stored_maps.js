// Stored maps over training: a slider over steps, the same sample at the same site.

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
let [told, turn, chosen] = [null, 0, { asker: null, answerer: null }];

function label(kind, at, of) {
  const grid = Math.round(Math.sqrt(of));
  if (kind === "patch") return `${Math.floor(at / grid)},${at % grid}`;
  if (kind === "query") return at ? `q${at - 1}` : "presence";
  return told.about.tokens?.[at] ?? "–";
}

function draw() {
  const site = told.sites.find((each) => each.name === told.site);
  const weights =
    state.head === "mean" ? mean(told.weights) : told.weights[Math.min(Number(state.head), site.heads - 1)];
  const words = told.about.tokens?.length ?? Infinity;
  const rows = site.asks === "text" ? weights.slice(0, words) : weights;
  const cut = site.answers === "text" ? rows.map((row) => row.slice(0, words)) : rows;
  const names = {
    askers: cut.map((_, at) => label(site.asks, at, weights.length)),
    answerers: cut[0].map((_, at) => label(site.answers, at, weights[0].length)),
  };
  const pick = (asker, answerer) => {
    chosen = { asker: asker ?? chosen.asker, answerer: answerer ?? chosen.answerer };
    draw();
  };
  box.replaceChildren(mapOf(cut, names, chosen, null, pick));
  form.elements.site.replaceChildren(
    ...told.sites.map(({ name }) => new Option(name, name, false, name === told.site)),
  );
  const heads = Array.from(
    { length: site.heads },
    (_, at) => new Option(`head ${at}`, String(at), false, String(at) === state.head),
  );
  form.elements.head.replaceChildren(new Option("mean of heads", "mean", false, state.head === "mean"), ...heads);
  form.elements.sample.replaceChildren(
    ...Array.from(
      { length: told.samples },
      (_, at) => new Option(`sample ${at}`, String(at), false, at === state.sample),
    ),
  );
  form.elements.at.max = told.steps.length - 1;
  form.elements.at.value = told.steps.indexOf(told.step);
  form.querySelector("output").textContent = `step ${told.step}`;
  const value = chosen.asker !== null && chosen.answerer !== null ? cut[chosen.asker]?.[chosen.answerer] : undefined;
  const cell =
    value === undefined
      ? ""
      : `: ${names.askers[chosen.asker]} gives ${names.answerers[chosen.answerer]} ${value.toFixed(3)}`;
  root.querySelector("[data-map-words]").textContent =
    `${told.about.prompt ? `“${told.about.prompt}”` : (told.about.tokens ?? []).join(" ")}${cell}`;
  const picture = told.about.image
    ? Object.assign(make("img", "ask-thumb"), { src: `data:image/png;base64,${told.about.image}`, alt: "the sample" })
    : "";
  root.querySelector("[data-map-image]").replaceChildren(picture);
}

async function load() {
  const mine = ++turn;
  const query = {
    sample: state.sample,
    ...(state.site ? { site: state.site } : {}),
    ...(state.step ? { step: state.step } : {}),
  };
  try {
    const answer = await getJson(`runs/${root.dataset.run}/attention/`, query);
    if (mine !== turn || !answer.weights.length) return;
    told = answer;
    draw();
    root.dataset.shown = told.step;
  } catch {
    // the server is away, or the run has begun anew: what is shown stays
  }
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", ({ target }) => {
  const { site, head, sample, at } = form.elements;
  Object.assign(state, {
    site: site.value,
    head: head.value,
    sample: Number(sample.value),
    step: target === at ? String(told.steps[at.value]) : state.step,
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
document.addEventListener("themechange", () => told && draw());
load();
