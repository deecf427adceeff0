// Models of tokens: the map of a sentence, and everything about one asker and one answerer.
import { arcsOf, mapOf } from "./map.js";
import { bars, figure, make, mean, paintBars, paintSigned } from "./parts.js";

const ARCS_MOST = 24;

export class TokensView {
  // `choose(changes)` changes the state of the page, which draws again.
  constructor(root, choose) {
    this.choose = choose;
    [this.map, this.detail] = ["map", "detail"].map((name) => root.querySelector(`[data-${name}]`));
  }

  names(answer) {
    return { askers: answer.tokens, answerers: answer.tokens };
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
        make("p", "quiet small", "This map is too large to send whole: choose it above to have it sent alone."),
      );
    const weights = head === null ? mean(site.weights) : site.weights[head];
    const chosen = {
      asker: Math.min(state.asker ?? (answer.task === "language" ? Infinity : 0), weights.length - 1),
      answerer: null,
    };
    chosen.answerer =
      state.answerer === null ? best(weights[chosen.asker]) : Math.min(state.answerer, weights[0].length - 1);
    const pick = (asker, answerer) =>
      this.choose({
        asker: asker ?? chosen.asker,
        answerer: answerer ?? (asker === null ? null : best(weights[asker])),
      });
    const arcs = state.view === "arcs" && weights.length <= ARCS_MOST;
    this.map.replaceChildren(
      arcs ? arcsOf(weights, names, chosen, pick) : mapOf(weights, names, chosen, answer.asked, pick),
    );
    this.detail.replaceChildren(...this.details(answer, shown, site, head, weights, chosen, pick));
  }

  details(answer, shown, site, head, weights, chosen, pick) {
    const [asker, answerer] = [answer.tokens[chosen.asker], answer.tokens[chosen.answerer]];
    const looks = weights[chosen.asker].map((value, at) => ({
      label: answer.tokens[at],
      note: answer.marks?.[at],
      value,
      on: at === chosen.answerer,
      clicked: () => pick(chosen.asker, at),
    }));
    const looked = weights.map((row, at) => ({
      label: answer.tokens[at],
      note: answer.marks?.[at],
      value: row[chosen.answerer],
      on: at === chosen.asker,
      clicked: () => pick(at, chosen.answerer),
    }));
    return [
      block(`${asker} asks: whom does it look at?`, "softmax of q·k over all answerers", bars(looks)),
      block(`${answerer} answers: who looks at it?`, "one column of the map", bars(looked)),
      ...this.products(site, head, chosen, asker, answerer),
      block(
        `What the model says at ${asker}`,
        answer.truth ? `the truth is ${answer.truth[chosen.asker]}` : "",
        this.guesses(answer, shown, chosen.asker),
      ),
    ];
  }

  products(site, head, { asker, answerer }, ask, told) {
    if (!site.q) return [make("p", "quiet small", "The vectors of this site are too large to send.")];
    if (head === null)
      return [make("p", "quiet small", "Choose one head to see q·k dimension by dimension, and what is mixed.")];
    const [q, k] = [site.q[head][asker], site.k[head][answerer]];
    const product = q.map((value, at) => value * k[at] * site.scale);
    const plot = make("canvas", "ask-product");
    paintBars(plot, product);
    const logit = product.reduce((sum, value) => sum + value, 0);
    const weights = site.weights[head][asker];
    const rows = site.v[head].map((vector, at) => vector.map((value) => value * weights[at]));
    const mixed = make("canvas", "ask-mixed");
    mixed.style.setProperty("--rows", rows.length + 1);
    paintSigned(mixed, [...rows, site.mixed[head][asker]]);
    const weight = figure(weights[answerer]);
    return [
      block(
        `q(${ask}) · k(${told}), dimension by dimension`,
        `they sum to ${figure(logit)}; softmax makes it a weight of ${weight}`,
        plot,
      ),
      block(
        `What ${ask} takes along`,
        "a row an answerer: its value times its weight; the last row is their sum, which the head hands on",
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
        kind: word === truth ? "ask-bar-good" : "",
      })),
    );
  }

  // What the edits changed, place by place.
  output(answer) {
    const table = make("table", "ask-output");
    const head = table.createTHead().insertRow();
    for (const title of ["Place", "Says", "After the changes"]) head.append(make("th", "", title));
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

function block(title, help, body) {
  const element = make("section", "ask-block");
  element.append(make("h3", "", title), make("p", "tiny quiet", help), body);
  return element;
}

function best(row) {
  return row.indexOf(Math.max(...row));
}

function visible(word) {
  return word === " " ? "␣" : word === "\n" ? "⏎" : word;
}
