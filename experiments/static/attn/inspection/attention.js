// The Inspect tab: inspect a checkpoint, choose a site, a head, a query and a key; the address keeps the state.
import { recall, remember } from "../frame/address.js";
import { Edits, parsed, written } from "./edits.js";
import { ImageView } from "./image.js";
import { inspect, Refused } from "./request.js";
import { TokensView } from "./tokens.js";

const root = document.querySelector("[data-inspect]");
const number = (text) => (text === "" ? null : Number(text));

class Inspector {
  constructor() {
    this.form = root.querySelector("[data-question]");
    this.tools = root.querySelector("[data-tools]");
    this.problem = root.querySelector("[data-problem]");
    this.state = {
      text: recall("text", root.dataset.text),
      sample: number(recall("sample")),
      step: recall("step"),
      site: recall("site"),
      head: recall("head", "0"),
      query: number(recall("asker")),
      key: number(recall("answerer")),
      view: recall("view", "map"),
      shown: recall("shown", "plain"),
      edits: parsed(recall("edits")),
      other: recall("other"),
    };
    this.image = root.dataset.kind === "image";
    if (this.state.sample !== null && !this.image) this.state.text = "";
    this.view = new (this.image ? ImageView : TokensView)(root, (changes) => this.choose(changes));
    this.edits = new Edits(root, (edits, other) =>
      this.change({ edits, other, shown: edits.length ? "edited" : "plain" }),
    );
    this.listen();
    if (this.problem.hidden) this.inspect(); // else the page already says why there is no answer
  }

  listen() {
    this.fill();
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      const data = new FormData(this.form);
      const places = this.image ? {} : { sample: null, query: null, key: null };
      this.change({ text: data.get("text").trim(), step: data.get("step"), ...places });
    });
    this.form.elements.step.addEventListener("change", () => this.form.requestSubmit());
    for (const example of root.querySelectorAll("[data-example]")) {
      example.addEventListener("click", () =>
        this.change({ text: example.dataset.example, sample: null, query: null, key: null }),
      );
    }
    for (const mover of root.querySelectorAll("[data-sample]")) {
      mover.addEventListener("click", () =>
        this.change({
          text: "",
          sample: Math.max(0, (this.state.sample ?? (this.image ? 0 : -1)) + Number(mover.dataset.sample)),
          query: null,
          key: null,
        }),
      );
    }
    this.tools.addEventListener("submit", (event) => event.preventDefault());
    this.tools.addEventListener("input", () => this.choose(Object.fromEntries(new FormData(this.tools))));
    document.addEventListener("themechange", () => this.draw());
  }

  fill() {
    this.form.elements.text.value = this.state.text;
    this.form.elements.step.value = this.state.step;
  }

  // Changes of the question: a new answer is needed.
  change(changes) {
    Object.assign(this.state, changes);
    this.fill();
    return this.inspect();
  }

  // Changes of the view: the answer stays, unless the chosen site's map was too large for it.
  choose(changes) {
    Object.assign(this.state, changes);
    const site = this.site();
    if (site && Number(this.state.head) >= site.heads) this.state.head = "0";
    if (site && !site.weights) return this.inspect();
    this.draw();
    return null;
  }

  body() {
    const { text, sample, step, site, edits, other } = this.state;
    const typed = this.image ? { sample: sample ?? 0, ...(text ? { prompt: text } : {}) } : { text };
    const body = text || this.image ? typed : { sample: sample ?? 0 };
    if (step) body.checkpoint = Number(step);
    if (site && (this.answer ? !this.site()?.weights : this.image)) Object.assign(body, this.focusOf(site));
    if (edits.length) body.edits = edits;
    if (other && edits.some((edit) => edit.kind === "patch")) body.other = other;
    return body;
  }

  focusOf(site) {
    const { query, key } = this.state;
    return { site, ...(query !== null && { asker: query }), ...(key !== null && { answerer: key }) };
  }

  async inspect() {
    this.waiting?.abort();
    const waiting = new AbortController();
    this.waiting = waiting;
    const began = performance.now();
    root.setAttribute("aria-busy", "true");
    try {
      const question = await inspect(Number(root.dataset.run), this.body(), waiting.signal);
      if (waiting.signal.aborted) return;
      this.answer = question.answer;
      this.step = question.step;
      this.problem.hidden = true;
      this.draw();
      root.dataset.answered = question.id;
      root.dataset.took = Math.round(performance.now() - began);
      root.querySelector("[data-took]").textContent = `Step ${question.step}, answered in ${root.dataset.took} ms`;
    } catch (error) {
      if (error.name === "AbortError") return;
      this.problem.hidden = false;
      this.problem.textContent =
        error instanceof Refused ? error.message : "The server cannot be reached. Try again in a moment.";
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
    if (!this.site()) this.openAt(answer);
    if (!answer.edited) state.shown = "plain";
    const { askers, answerers } = this.site();
    if (this.image && state.query >= askers) state.query = null;
    if (this.image && state.key >= answerers) state.key = null;
    const shown = state.shown === "edited" ? answer.edited : answer;
    root.querySelector("[data-view]").hidden = false;
    this.drawTools();
    this.view.draw(answer, shown, state);
    this.edits.offer(
      (what, name) =>
        this.view.places(answer, answer.sites.find((site) => site.name === name) ?? this.site(), what, state),
      answer.sites.map((site) => site.name),
      this.site().heads,
    );
    this.edits.show(state.edits, state.other);
    const effect = root.querySelector("[data-effect]");
    effect.replaceChildren(...(answer.edited ? [this.view.output(answer)] : []));
    if (this.image) this.form.elements.text.placeholder = `${answer.own_prompt} (the sample's prompt)`;
    const unknown = answer.unknown?.length ? `Not in the model's vocabulary: ${answer.unknown.join(", ")}` : "";
    root.querySelector("[data-unknown]").textContent = unknown;
    this.remember();
  }

  // The last site; for a model of images, the attention of its best query.
  openAt(answer) {
    const { scores } = answer.output;
    this.state.site = answer.sites.at(-1).name;
    if (this.image && this.state.query === null && this.state.key === null)
      this.state.query = 1 + scores.indexOf(Math.max(...scores));
  }

  drawTools() {
    const { site, head, view, shown } = this.state;
    const { elements } = this.tools;
    elements.site.replaceChildren(
      ...this.answer.sites.map(
        ({ name, heads }) => new Option(`${name} (${heads} head${heads > 1 ? "s" : ""})`, name, false, name === site),
      ),
    );
    const heads = this.site().heads;
    const choices = Array.from(
      { length: heads },
      (_, at) => new Option(`head ${at}`, String(at), false, String(at) === head),
    );
    if (heads > 1) choices.unshift(new Option("mean of heads", "mean", false, head === "mean"));
    elements.head.replaceChildren(...choices);
    elements.view.value = view;
    elements.shown.value = shown;
    this.tools.querySelector("[data-shown]").hidden = !this.answer.edited;
  }

  remember() {
    const { text, sample, step, site, head, query, key, view, shown, edits, other } = this.state;
    const kept = {
      text: (this.image || sample === null) && text !== root.dataset.text ? text : null,
      sample,
      step,
      site,
      head: head === "0" ? null : head,
      asker: query,
      answerer: key,
    };
    remember({
      ...kept,
      view: view === "map" ? null : view,
      shown: shown === "plain" ? null : shown,
      edits: written(edits),
      other: edits.some((edit) => edit.kind === "patch") ? other : null,
    });
  }
}

if (root) new Inspector();
