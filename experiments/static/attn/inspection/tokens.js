// Models of tokens: the attention map of a sentence, and the details of one query and one key.
import { arcsOf, mapOf } from "./map.js";
import { bars, block, figure, make, mean, paintBars, paintSigned } from "./parts.js";

const ARCS_MAX = 24;

export class TokensView {
  // `choose(changes)` changes the state of the page, which draws again.
  constructor(root, choose) {
    this.choose = choose;
    [this.map, this.detail] = ["map", "detail"].map((name) => root.querySelector(`[data-${name}]`));
  }

  names(answer) {
    return { queries: answer.tokens, keys: answer.tokens };
  }

  places(answer) {
    return answer.tokens.map((name, at) => ({ at, name }));
  }

  draw(answer, shown, state) {
    const site = shown.sites.find((each) => each.name === state.site);
    const names = this.names(answer);
    const head = state.head === "mean" ? null : Number(state.head);
    if (!site.weights)
      return this.map.replaceChildren(
        make("p", "quiet small", "This map is too large to send with the others. Choose its site above to load it."),
      );
    const weights = head === null ? mean(site.weights) : site.weights[head];
    const first = answer.task === "language" ? Infinity : 0;
    const chosen = { query: Math.min(state.query ?? first, weights.length - 1) };
    chosen.key = Math.min(state.key ?? best(weights[chosen.query]), weights[0].length - 1);
    const pick = (query, key) =>
      this.choose({ query: query ?? chosen.query, key: key ?? (query === null ? null : best(weights[query])) });
    const arcs = state.view === "arcs" && weights.length <= ARCS_MAX;
    this.map.replaceChildren(
      arcs ? arcsOf(weights, names, chosen, pick) : mapOf(weights, names, chosen, answer.asked, pick),
    );
    this.detail.replaceChildren(...this.details(answer, shown, site, head, weights, chosen, pick));
  }

  details(answer, shown, site, head, weights, chosen, pick) {
    const [query, key] = [answer.tokens[chosen.query], answer.tokens[chosen.key]];
    const entry = (at, value, on, clicked) => ({
      label: answer.tokens[at],
      note: answer.marks?.[at],
      value,
      on,
      clicked,
    });
    const row = weights[chosen.query].map((value, at) =>
      entry(at, value, at === chosen.key, () => pick(chosen.query, at)),
    );
    const column = weights.map((values, at) =>
      entry(at, values[chosen.key], at === chosen.query, () => pick(at, chosen.key)),
    );
    return [
      block(`Attention of query ${query}`, "one row of the map: softmax of q·k over all keys", bars(row)),
      block(`Attention to key ${key}`, "one column of the map", bars(column)),
      ...this.products(site, head, chosen, query, key),
      block(
        `Prediction at ${query}`,
        answer.truth ? `label: ${answer.truth[chosen.query]}` : "",
        this.guesses(answer, shown, chosen.query),
      ),
    ];
  }

  products(site, head, chosen, query, key) {
    if (!site.q) return [make("p", "quiet small", "The vectors of this site are too large to send.")];
    if (head === null)
      return [make("p", "quiet small", "Choose one head to see q·k by dimension and the mixed values.")];
    const [q, k] = [site.q[head][chosen.query], site.k[head][chosen.key]];
    const product = q.map((value, at) => value * k[at] * site.scale);
    const plot = make("canvas", "inspect-product");
    paintBars(plot, product);
    const logit = product.reduce((sum, value) => sum + value, 0);
    const weights = site.weights[head][chosen.query];
    const rows = site.v[head].map((vector, at) => vector.map((value) => value * weights[at]));
    const mixed = make("canvas", "inspect-mixed");
    mixed.style.setProperty("--rows", rows.length + 1);
    paintSigned(mixed, [...rows, site.mixed[head][chosen.query]]);
    const weight = figure(weights[chosen.key]);
    return [
      block(`q(${query}) · k(${key}) by dimension`, `sum ${figure(logit)}; weight after softmax ${weight}`, plot),
      block(
        `Values mixed at ${query}`,
        "one row per key: its value times its weight; the last row is their sum, the head's output",
        mixed,
      ),
    ];
  }

  guesses(answer, shown, place) {
    const truth = answer.truth?.[place];
    return bars(
      shown.output.guesses[place].map(([word, value]) => ({
        label: visible(word),
        value,
        kind: word === truth ? "inspect-bar-good" : "",
      })),
    );
  }

  // What the changes did, position by position.
  output(answer) {
    const table = make("table", "inspect-output");
    const head = table.createTHead().insertRow();
    for (const title of ["Position", "Prediction", "After the changes"]) head.append(make("th", "", title));
    const body = table.createTBody();
    answer.tokens.forEach((token, at) => {
      const [[before, sure]] = answer.output.guesses[at];
      const [[after, then]] = answer.edited.output.guesses[at];
      const row = body.insertRow();
      row.className = before === after ? "" : "differs";
      row.append(
        make("td", "", token),
        make("td", "", `${visible(before)} ${figure(sure)}`),
        make("td", "", `${visible(after)} ${figure(then)}`),
      );
    });
    return table;
  }
}

function best(row) {
  return row.indexOf(Math.max(...row));
}

function visible(word) {
  return word === " " ? "␣" : word === "\n" ? "⏎" : word;
}
