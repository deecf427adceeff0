// Rows of the heat-map that are zero but for rounding, and why.
import { getJson } from "../charts/feed.js";

const NOTHING = 1e-6; // of the panel's largest value

export const ABOUT = "below a millionth of the largest value here: zero but for rounding";
const ONE_KEY =
  "every query attends to one key alone (the entropy of its attention is exactly 0). " +
  "A softmax with one key has nothing to choose, so W_q and W_k get no gradient.";

// Names whose values are all known, next to nothing beside the largest of any, and not plainly 0.
export function nearlyZero(values) {
  const sizes = new Map(
    [...values].map(([name, row]) => [
      name,
      row.reduce((most, value) => Math.max(most, value === null ? Infinity : Math.abs(value)), 0),
    ]),
  );
  const largest = Math.max(...[...sizes.values()].filter(Number.isFinite), 0);
  return new Set([...sizes].filter(([, size]) => size > 0 && size < NOTHING * largest).map(([name]) => name));
}

// Sites where attention fell on one key in every probe so far. Asked for only when a row needs the reason.
export async function sitesOfOneKey(run) {
  const grid = await getJson("series/grid/", { run, names: "attn/entropy/*", columns: 1, reduce: "max" });
  return new Set(
    grid.names.filter((_, at) => grid.values[at].every((value) => value === 0)).map((name) => name.split("/")[2]),
  );
}

export function explained(names, oneKey) {
  return names.filter((name) => /^grad_norm\/[^/]+\/W_[qk](\/|$)/.test(name) && oneKey.has(name.split("/")[1]));
}

// One line for all rows of one key; null where there is none.
export function reason(names, oneKey) {
  const sites = [...new Set(explained(names, oneKey).map((name) => name.split("/")[1]))];
  return sites.length ? `${sites.join(", ")}: ${ONE_KEY}` : null;
}

export function hint(name, oneKey) {
  const why = explained([name], oneKey).length ? ` Here ${ONE_KEY}` : "";
  return `≈ 0: ${ABOUT}.${why}`;
}
