// Models of images: click a patch, a word or a query, and see where it looks, or who looks at it, on the image.
import { channels, colour, ramp } from "../charts/palette.js";
import { mapOf } from "./map.js";
import { bars, button, figure, make, mean, paintBars } from "./parts.js";

const SIDE = 448; // pixels of the stage
const QUERIES = 12; // best-scored queries that are offered

export class ImageView {
  constructor(root, choose) {
    this.choose = choose;
    [this.map, this.detail] = ["map", "detail"].map((name) => root.querySelector(`[data-${name}]`));
  }

  // Whose Q, K, V or output a change can name; of patches those that are chosen, there are too many.
  places(answer, site, what, state) {
    const asks = what === "q" || what === "head";
    const kind = asks ? site.asks : site.answers;
    const count = kind === "text" ? answer.tokens.length : asks ? site.askers : site.answerers;
    const all =
      kind === "patch"
        ? [state.asker, state.answerer].filter((at) => at !== null)
        : Array.from({ length: count }, (_, at) => at);
    return [...new Set(all)].map((at) => ({ at, name: this.label(answer, kind, at) }));
  }

  label(answer, kind, at) {
    if (kind === "text") return answer.tokens[at] ?? "–";
    if (kind === "query") return at ? `query ${at - 1}` : "presence";
    return `patch ${Math.floor(at / answer.grid)},${at % answer.grid}`;
  }

  async draw(answer, shown, state) {
    const site = shown.sites.find((each) => each.name === state.site);
    const head = state.head === "mean" ? null : Number(state.head);
    const row = this.line(shown, site, state, head, "looks");
    const column = this.line(shown, site, state, head, "looked_at");
    const heat = site.answers === "patch" && row ? row : site.asks === "patch" ? column : null;
    const stage = make("canvas", "ask-stage");
    stage.width = stage.height = SIDE;
    stage.setAttribute("role", "img");
    stage.setAttribute("aria-label", `the image of sample ${answer.sample}`);
    stage.addEventListener("click", (event) => {
      const box = stage.getBoundingClientRect();
      const place = (at, size) => Math.max(0, Math.min(answer.grid - 1, Math.floor((at / size) * answer.grid)));
      this.pick(
        answer,
        "patch",
        place(event.clientY - box.top, box.height) * answer.grid + place(event.clientX - box.left, box.width),
        site,
      );
    });
    this.map.replaceChildren(
      stage,
      this.caption(answer, site, state, heat === row && row !== null),
      ...this.chips(answer, shown, site, state),
    );
    this.detail.replaceChildren(...this.details(answer, shown, site, state, head, row, column));
    const turn = {};
    this.turn = turn;
    const images = await Promise.all([answer.image, shown.output.mask].map(picture));
    if (turn === this.turn) paintStage(stage, images, heat, answer.grid, patchOf(site, state));
  }

  // One row or column of a head, or of all heads together; null where nothing is chosen.
  line(shown, site, state, head, which) {
    const at = which === "looks" ? state.asker : state.answerer;
    if (at === null) return null;
    const focus =
      shown.focus?.site === site.name && shown.focus[which === "looks" ? "asker" : "answerer"] === at
        ? shown.focus[which]
        : null;
    const of = (map) => (which === "looks" ? map[at] : map.map((each) => each[at]));
    const lines = site.weights ? site.weights.map(of) : focus;
    if (!lines?.[0]) return null;
    return head === null ? mean(lines.map((each) => [each]))[0] : lines[head];
  }

  caption(answer, site, state, looks) {
    const name = looks
      ? this.label(answer, site.asks, state.asker)
      : state.answerer === null
        ? ""
        : this.label(answer, site.answers, state.answerer);
    const words = name
      ? looks
        ? `where ${name} looks at ${site.name}`
        : `who looks at ${name} at ${site.name}`
      : "Click a patch, a word or a query.";
    return make("p", "small quiet", words);
  }

  chips(answer, shown, site, state) {
    const row = (title, items) => {
      const line = make("div", "row ask-chips");
      line.append(make("span", "tiny quiet", title), ...items);
      return line;
    };
    const on = (kind, at) =>
      (site.asks === kind && state.asker === at) || (site.answers === kind && state.answerer === at);
    const words = answer.tokens.map((word, at) =>
      button("chip", word, () => this.pick(answer, "text", at, site), on("text", at)),
    );
    const scores = shown.output.scores
      .map((score, at) => ({ score, at: at + 1 }))
      .sort((a, b) => b.score - a.score)
      .slice(0, QUERIES);
    const queries = [{ score: shown.output.presence, at: 0 }, ...scores].map(({ score, at }) =>
      button(
        "chip",
        `${this.label(answer, "query", at)} ${figure(score)}`,
        () => this.pick(answer, "query", at, site),
        on("query", at),
      ),
    );
    return [row("words", words), row("queries by score", queries)];
  }

  // Where the chosen thing cannot ask or answer at the shown site, a site where it can is shown.
  pick(answer, kind, at, site) {
    if (site.asks === kind) return this.choose({ asker: at, answerer: site.answers === kind ? at : null });
    if (site.answers === kind) return this.choose({ asker: null, answerer: at });
    const other =
      answer.sites.findLast((each) => each.asks === kind && each.answers === "patch") ??
      answer.sites.findLast((each) => each.asks === "patch" && each.answers === kind);
    return other
      ? this.choose({
          site: other.name,
          asker: other.asks === kind ? at : null,
          answerer: other.asks === kind ? null : at,
        })
      : null;
  }

  details(answer, shown, site, state, head, row, column) {
    const found = [];
    if (site.asks !== "patch" && site.answers !== "patch" && site.weights)
      found.push(this.square(answer, site, state, head));
    if (row && site.answers === "text")
      found.push(this.words(answer, row, `${this.label(answer, site.asks, state.asker)} asks the text`));
    if (site.q && head !== null && state.asker !== null && state.answerer !== null)
      found.push(this.product(answer, site, state, head));
    if (row && column && site.asks === "patch" && site.answers === "patch")
      found.push(
        block(
          "Both ways",
          `it gives itself ${figure(row[state.asker])}; the most it gives anybody is ${figure(Math.max(...row))}, ` +
            `the most anybody gives it is ${figure(Math.max(...column))}`,
          make("span"),
        ),
      );
    return [...found, this.verdict(answer, shown)];
  }

  square(answer, site, state, head) {
    const cut = (rows) => (site.answers === "text" ? rows.map((each) => each.slice(0, answer.tokens.length)) : rows);
    const whole = cut(head === null ? mean(site.weights) : site.weights[head]);
    const weights = site.asks === "text" ? whole.slice(0, answer.tokens.length) : whole;
    const names = {
      askers: weights.map((_, at) => this.label(answer, site.asks, at)),
      answerers: weights[0].map((_, at) => this.label(answer, site.answers, at)),
    };
    return mapOf(weights, names, state, null, (asker, answerer) =>
      this.choose({ asker: asker ?? state.asker, answerer: answerer ?? state.answerer }),
    );
  }

  words(answer, row, title) {
    return block(
      title,
      "softmax over the prompt's words",
      bars(answer.tokens.map((label, at) => ({ label, value: row[at] }))),
    );
  }

  product(answer, site, { asker, answerer }, head) {
    const product = site.q[head][asker].map((value, at) => value * site.k[head][answerer][at] * site.scale);
    const plot = make("canvas", "ask-product");
    paintBars(plot, product);
    const sum = figure(product.reduce((all, value) => all + value, 0));
    return block(
      `q(${this.label(answer, site.asks, asker)}) · k(${this.label(answer, site.answers, answerer)}), ` +
        "dimension by dimension",
      `they sum to ${sum}`,
      plot,
    );
  }

  verdict(answer, shown) {
    const { presence, area, iou, scores } = shown.output;
    const rows = [
      { label: "is it there?", value: presence },
      { label: "best score", value: Math.max(...scores) },
      { label: "image share", value: area },
    ];
    if (iou !== undefined) rows.push({ label: "IoU with the truth", value: iou, kind: "ask-bar-good" });
    const truth =
      answer.present === undefined
        ? "a prompt of your own: nobody knows the truth"
        : answer.present
          ? "the image holds what the prompt names"
          : "nothing in the image is meant";
    return block(`What the model finds for “${answer.prompt}”`, truth, bars(rows));
  }

  // What the edits changed.
  output(answer) {
    const table = make("table", "ask-output");
    const head = table.createTHead().insertRow();
    for (const title of ["", "As it is", "After the changes"]) head.append(make("th", "", title));
    const body = table.createTBody();
    const [before, after] = [answer.output, answer.edited.output];
    const rows = [
      ["presence", "presence"],
      ["area", "share of the image found"],
      ["iou", "IoU with the truth"],
    ].map(([key, title]) => [title, before[key], after[key]]);
    rows.push(["best score", Math.max(...before.scores), Math.max(...after.scores)]);
    for (const [title, was, is] of rows.filter((each) => each[1] !== undefined)) {
      const row = body.insertRow();
      row.className = Math.abs(was - is) > 0.05 ? "differs" : "";
      row.append(make("td", "", title), make("td", "mono", figure(was)), make("td", "mono", figure(is)));
    }
    return table;
  }
}

function patchOf(site, { asker, answerer }) {
  return site.asks === "patch" && asker !== null ? asker : site.answers === "patch" ? answerer : null;
}

async function picture(data) {
  const image = new Image();
  image.src = `data:image/png;base64,${data}`;
  await image.decode();
  return image;
}

// The image, the outline of what was found, the weights over it relative to their largest, the chosen patch.
function paintStage(stage, [image, mask], heat, grid, patch) {
  const context = stage.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, SIDE, SIDE);
  const cell = SIDE / grid;
  if (heat) {
    const [most, colours] = [Math.max(...heat) || 1, ramp()];
    heat.forEach((value, at) => {
      const share = value / most;
      context.fillStyle = `rgb(${colours[Math.round(255 * share)].map(Math.round).join(" ")} / ${0.12 + 0.75 * share})`;
      context.fillRect((at % grid) * cell, Math.floor(at / grid) * cell, cell, cell);
    });
  }
  outline(context, mask);
  if (patch === null) return;
  context.strokeStyle = colour("accent");
  context.lineWidth = 3;
  context.strokeRect((patch % grid) * cell + 1.5, Math.floor(patch / grid) * cell + 1.5, cell - 3, cell - 3);
}

function outline(context, mask) {
  const small = Object.assign(document.createElement("canvas"), { width: mask.width, height: mask.height });
  const inside = small.getContext("2d", { willReadFrequently: true });
  inside.drawImage(mask, 0, 0);
  const { data } = inside.getImageData(0, 0, mask.width, mask.height);
  const is = (x, y) => x >= 0 && y >= 0 && x < mask.width && y < mask.height && data[4 * (y * mask.width + x)] > 127;
  const size = SIDE / mask.width;
  context.fillStyle = `rgb(${channels(colour("good")).join(" ")})`;
  for (let y = 0; y < mask.height; y++)
    for (let x = 0; x < mask.width; x++) if (is(x, y)) edges(context, is, x, y, size);
}

// The sides on which a pixel of the mask borders on none.
function edges(context, is, x, y, size) {
  if (!is(x - 1, y)) context.fillRect(x * size, y * size, 2, size);
  if (!is(x + 1, y)) context.fillRect((x + 1) * size - 2, y * size, 2, size);
  if (!is(x, y - 1)) context.fillRect(x * size, y * size, size, 2);
  if (!is(x, y + 1)) context.fillRect(x * size, (y + 1) * size - 2, size, 2);
}

function block(title, help, body) {
  const element = make("section", "ask-block");
  element.append(make("h3", "", title), make("p", "tiny quiet", help), body);
  return element;
}
