// Models of images: click a patch, a word or a query to see what it attends to, or what attends to it, on the image.
import { channels, colour, ramp } from "../charts/palette.js";
import { mapOf } from "./map.js";
import { bars, block, button, figure, make, mean, paintBars } from "./parts.js";

const SIDE = 448; // pixels of the stage
const QUERIES = 12; // best-scored queries that are offered

export class ImageView {
  constructor(root, choose) {
    this.choose = choose;
    [this.map, this.detail] = ["map", "detail"].map((name) => root.querySelector(`[data-${name}]`));
  }

  // The positions whose Q, K, V or output a change can name; of patches only the chosen ones, as there are many.
  places(answer, site, what, state) {
    const ofQueries = what === "q" || what === "head";
    const kind = ofQueries ? site.asks : site.answers;
    const count = kind === "text" ? answer.tokens.length : ofQueries ? site.askers : site.answerers;
    const all =
      kind === "patch"
        ? [state.query, state.key].filter((at) => at !== null)
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
    const row = this.weights(shown, site, state, head, "row");
    const column = this.weights(shown, site, state, head, "column");
    const heat = site.answers === "patch" && row ? row : site.asks === "patch" ? column : null;
    const stage = make("canvas", "inspect-stage");
    stage.width = stage.height = SIDE;
    stage.setAttribute("role", "img");
    stage.setAttribute("aria-label", `Image of sample ${answer.sample}`);
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
    const drawing = {};
    this.drawing = drawing;
    const images = await Promise.all([answer.image, shown.output.mask].map(picture));
    if (drawing === this.drawing) paintStage(stage, images, heat, answer.grid, patchOf(site, state));
  }

  // One row or column of a head, or of all heads together; null where nothing is chosen.
  weights(shown, site, state, head, which) {
    const isRow = which === "row";
    const at = isRow ? state.query : state.key;
    if (at === null) return null;
    const focus = shown.focus?.site === site.name ? shown.focus : {};
    const focused = (isRow ? focus.asker : focus.answerer) === at ? focus[isRow ? "looks" : "looked_at"] : null;
    const cut = (map) => (isRow ? map[at] : map.map((each) => each[at]));
    const byHead = site.weights ? site.weights.map(cut) : focused;
    if (!byHead?.[0]) return null;
    return head === null ? mean(byHead.map((each) => [each]))[0] : byHead[head];
  }

  caption(answer, site, state, isRow) {
    const text = () => {
      if (isRow) return `Attention of ${this.label(answer, site.asks, state.query)} at ${site.name}`;
      if (state.key === null) return "Click a patch, a word or a query.";
      return `Attention to ${this.label(answer, site.answers, state.key)} at ${site.name}`;
    };
    return make("p", "small quiet", text());
  }

  chips(answer, shown, site, state) {
    const row = (title, items) => {
      const line = make("div", "row inspect-chips");
      line.append(make("span", "tiny quiet", title), ...items);
      return line;
    };
    const on = (kind, at) => (site.asks === kind && state.query === at) || (site.answers === kind && state.key === at);
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
    return [row("Words", words), row("Queries by score", queries)];
  }

  // Where the chosen element is neither query nor key at the shown site, another site is shown.
  pick(answer, kind, at, site) {
    if (site.asks === kind) return this.choose({ query: at, key: site.answers === kind ? at : null });
    if (site.answers === kind) return this.choose({ query: null, key: at });
    const other =
      answer.sites.findLast((each) => each.asks === kind && each.answers === "patch") ??
      answer.sites.findLast((each) => each.asks === "patch" && each.answers === kind);
    return other
      ? this.choose({
          site: other.name,
          query: other.asks === kind ? at : null,
          key: other.asks === kind ? null : at,
        })
      : null;
  }

  details(answer, shown, site, state, head, row, column) {
    const blocks = [];
    if (site.asks !== "patch" && site.answers !== "patch" && site.weights)
      blocks.push(this.square(answer, site, state, head));
    if (row && site.answers === "text")
      blocks.push(this.words(answer, row, `Attention of ${this.label(answer, site.asks, state.query)} to the text`));
    if (site.q && head !== null && state.query !== null && state.key !== null)
      blocks.push(this.product(answer, site, state, head));
    if (row && column && site.asks === "patch" && site.answers === "patch")
      blocks.push(
        block(
          "Row and column",
          `weight on itself ${figure(row[state.query])}; maximum of its row ${figure(Math.max(...row))}, ` +
            `of its column ${figure(Math.max(...column))}`,
          make("span"),
        ),
      );
    return [...blocks, this.found(answer, shown)];
  }

  square(answer, site, state, head) {
    const cut = (rows) => (site.answers === "text" ? rows.map((each) => each.slice(0, answer.tokens.length)) : rows);
    const whole = cut(head === null ? mean(site.weights) : site.weights[head]);
    const weights = site.asks === "text" ? whole.slice(0, answer.tokens.length) : whole;
    const names = {
      queries: weights.map((_, at) => this.label(answer, site.asks, at)),
      keys: weights[0].map((_, at) => this.label(answer, site.answers, at)),
    };
    return mapOf(weights, names, state, null, (query, key) =>
      this.choose({ query: query ?? state.query, key: key ?? state.key }),
    );
  }

  words(answer, row, title) {
    return block(
      title,
      "softmax over the words of the prompt",
      bars(answer.tokens.map((label, at) => ({ label, value: row[at] }))),
    );
  }

  product(answer, site, { query, key }, head) {
    const product = site.q[head][query].map((value, at) => value * site.k[head][key][at] * site.scale);
    const plot = make("canvas", "inspect-product");
    paintBars(plot, product);
    const sum = figure(product.reduce((all, value) => all + value, 0));
    return block(
      `q(${this.label(answer, site.asks, query)}) · k(${this.label(answer, site.answers, key)}) by dimension`,
      `sum ${sum}`,
      plot,
    );
  }

  found(answer, shown) {
    const { presence, area, iou, scores } = shown.output;
    const rows = [
      { label: "presence", value: presence },
      { label: "best score", value: Math.max(...scores) },
      { label: "image share", value: area },
    ];
    if (iou !== undefined) rows.push({ label: "IoU with the label", value: iou, kind: "inspect-bar-good" });
    const truth =
      answer.present === undefined
        ? "your own prompt has no label"
        : answer.present
          ? "label: present in the image"
          : "label: not in the image";
    return block(`Result for “${answer.prompt}”`, truth, bars(rows));
  }

  // What the changes did.
  output(answer) {
    const table = make("table", "inspect-output");
    const head = table.createTHead().insertRow();
    for (const title of ["", "Original", "After the changes"]) head.append(make("th", "", title));
    const body = table.createTBody();
    const [before, after] = [answer.output, answer.edited.output];
    const rows = [
      ["presence", "presence"],
      ["area", "image share"],
      ["iou", "IoU with the label"],
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

function patchOf(site, { query, key }) {
  return site.asks === "patch" && query !== null ? query : site.answers === "patch" ? key : null;
}

async function picture(data) {
  const image = new Image();
  image.src = `data:image/png;base64,${data}`;
  await image.decode();
  return image;
}

// The image, the outline of the predicted mask, the weights relative to their largest, the chosen patch.
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

// The sides of a mask pixel without a neighbour in the mask.
function edges(context, is, x, y, size) {
  if (!is(x - 1, y)) context.fillRect(x * size, y * size, 2, size);
  if (!is(x + 1, y)) context.fillRect((x + 1) * size - 2, y * size, 2, size);
  if (!is(x, y - 1)) context.fillRect(x * size, y * size, size, 2);
  if (!is(x, y + 1)) context.fillRect(x * size, (y + 1) * size - 2, size, 2);
}
