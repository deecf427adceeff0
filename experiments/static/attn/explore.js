// The attention tab: ask a checkpoint, choose a site, a head, an asker and an answerer; the address keeps it all.
import { remember, recall } from "./address.js";
import { Refused, ask } from "./explore_ask.js";
import { Edits, parsed, written } from "./explore_edits.js";
import { TokensView } from "./explore_tokens.js";

const root = document.querySelector("[data-explore]");
const number = (text) => (text === "" ? null : Number(text));

class Explorer {
  constructor() {
    this.form = root.querySelector("[data-ask]");
    this.tools = root.querySelector("[data-tools]");
    this.problem = root.querySelector("[data-problem]");
    this.state = {
      text: recall("text", root.dataset.text),
      sample: number(recall("sample")),
      step: recall("step"),
      site: recall("site"),
      head: recall("head", "0"),
      asker: number(recall("asker")),
      answerer: number(recall("answerer")),
      view: recall("view", "map"),
      shown: recall("shown", "plain"),
      edits: parsed(recall("edits")),
      other: recall("other"),
    };
    if (this.state.sample !== null) this.state.text = "";
    this.view = new TokensView(root, (changes) => this.choose(changes));
    this.edits = new Edits(root, (edits, other) => this.change({ edits, other, shown: edits.length ? "edited" : "plain" }));
    this.listen();
    this.ask();
  }

  listen() {
    this.fill();
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      const data = new FormData(this.form);
      this.change({ text: data.get("text").trim(), sample: null, step: data.get("step"), asker: null, answerer: null });
    });
    this.form.elements.step.addEventListener("change", () => this.form.requestSubmit());
    for (const example of root.querySelectorAll("[data-example]")) {
      example.addEventListener("click", () => this.change({ text: example.dataset.example, sample: null, asker: null, answerer: null }));
    }
    root.querySelector("[data-next-sample]").addEventListener("click", () => this.change({ text: "", sample: (this.state.sample ?? -1) + 1, asker: null, answerer: null }));
    this.tools.addEventListener("submit", (event) => event.preventDefault());
    this.tools.addEventListener("input", () => this.choose(Object.fromEntries(new FormData(this.tools))));
    document.addEventListener("themechange", () => this.draw());
  }

  fill() {
    this.form.elements.text.value = this.state.text;
    this.form.elements.step.value = this.state.step;
  }

  // What has to be asked again.
  change(changes) {
    Object.assign(this.state, changes);
    this.fill();
    return this.ask();
  }

  // What only shows otherwise.
  choose(changes) {
    Object.assign(this.state, changes);
    const site = this.site();
    if (site && Number(this.state.head) >= site.heads) this.state.head = "0";
    if (site && !site.weights) return this.ask();
    this.draw();
    return null;
  }

  body() {
    const { text, sample, step, site, edits, other } = this.state;
    const body = text ? { text } : { sample: sample ?? 0 };
    if (step) body.checkpoint = Number(step);
    if (this.answer && site) body.site = site;
    if (edits.length) body.edits = edits;
    if (other && edits.some((edit) => edit.kind === "patch")) body.other = other;
    return body;
  }

  async ask() {
    this.waiting?.abort();
    const waiting = (this.waiting = new AbortController());
    const began = performance.now();
    root.setAttribute("aria-busy", "true");
    try {
      const question = await ask(Number(root.dataset.run), this.body(), waiting.signal);
      if (waiting.signal.aborted) return;
      this.answer = question.answer;
      this.step = question.step;
      this.problem.hidden = true;
      this.draw();
      root.dataset.answered = question.id;
      root.dataset.took = Math.round(performance.now() - began);
      root.querySelector("[data-took]").textContent = `answered from step ${question.step} in ${root.dataset.took} ms`;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.problem.hidden = false;
      this.problem.textContent = error instanceof Refused ? error.message : "The server cannot be reached; try again in a moment.";
    } finally {
      if (waiting === this.waiting) root.removeAttribute("aria-busy");
    }
  }

  site() {
    return this.answer?.sites.find((each) => each.name === this.state.site);
  }

  draw() {
    const { answer, state } = this;
    if (!answer) return;
    if (!this.site()) state.site = answer.sites.at(-1).name;
    if (!answer.edited) state.shown = "plain";
    const shown = state.shown === "edited" ? answer.edited : answer;
    root.querySelector("[data-view]").hidden = false;
    this.drawTools();
    this.view.draw(answer, shown, state);
    this.edits.offer(this.view.names(answer).askers, answer.sites.map((site) => site.name), this.site().heads);
    this.edits.show(state.edits, state.other);
    const effect = root.querySelector("[data-effect]");
    effect.replaceChildren(...(answer.edited ? [this.view.output(answer)] : []));
    const unknown = answer.unknown?.length ? `The model has never seen: ${answer.unknown.join(", ")}` : "";
    root.querySelector("[data-unknown]").textContent = unknown;
    this.remember();
  }

  drawTools() {
    const { site, head, view, shown } = this.state;
    const { elements } = this.tools;
    elements.site.replaceChildren(...this.answer.sites.map(({ name, heads }) => new Option(`${name} (${heads} head${heads > 1 ? "s" : ""})`, name, false, name === site)));
    const heads = this.site().heads;
    const choices = Array.from({ length: heads }, (_, at) => new Option(`head ${at}`, String(at), false, String(at) === head));
    if (heads > 1) choices.unshift(new Option("mean of heads", "mean", false, head === "mean"));
    elements.head.replaceChildren(...choices);
    elements.view.value = view;
    elements.shown.value = shown;
    this.tools.querySelector("[data-shown]").hidden = !this.answer.edited;
  }

  remember() {
    const { text, sample, step, site, head, asker, answerer, view, shown, edits, other } = this.state;
    const kept = { text: sample === null && text !== root.dataset.text ? text : null, sample, step, site, head: head === "0" ? null : head, asker, answerer };
    remember({ ...kept, view: view === "map" ? null : view, shown: shown === "plain" ? null : shown, edits: written(edits), other: edits.some((edit) => edit.kind === "patch") ? other : null });
  }
}

if (root) new Explorer();
