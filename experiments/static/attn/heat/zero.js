// Rows of the heat-map that are zero up to rounding, and the reason.
import { getJson } from "../charts/feed.js";

const NEGLIGIBLE = 1e-6; // relative to the largest value of the heat-map

export const ABOUT = "below a millionth of the largest value here: zero up to rounding";
const ONE_KEY =
  "every query attends to a single key (attention entropy is exactly 0). " +
  "A softmax over one key is constant, so W_q and W_k get no gradient.";

// Names whose values are all finite and negligible relative to the largest of any, but not exactly 0.
export function nearlyZero(values) {
  const sizes = new Map(
    [...values].map(([name, row]) => [
      name,
      row.reduce((most, value) => Math.max(most, value === null ? Infinity : Math.abs(value)), 0),
    ]),
  );
  const largest = Math.max(...[...sizes.values()].filter(Number.isFinite), 0);
  return new Set([...sizes].filter(([, size]) => size > 0 && size < NEGLIGIBLE * largest).map(([name]) => name));
}

// Sites whose attention fell on one key in every probe. Requested only when a row needs the reason.
export async function sitesOfOneKey(run) {
  const grid = await getJson("series/grid/", { run, names: "attn/entropy/*", columns: 1, reduce: "max" });
  return new Set(
    grid.names.filter((_, at) => grid.values[at].every((value) => value === 0)).map((name) => name.split("/")[2]),
  );
}

export function explained(names, oneKey) {
  return names.filter((name) => /^grad_norm\/[^/]+\/W_[qk](\/|$)/.test(name) && oneKey.has(name.split("/")[1]));
}

// One line for all rows with one key; null where there is none.
export function reason(names, oneKey) {
  const sites = [...new Set(explained(names, oneKey).map((name) => name.split("/")[1]))];
  return sites.length ? `${sites.join(", ")}: ${ONE_KEY}` : null;
}

export function hint(name, oneKey) {
  const why = explained([name], oneKey).length ? ` Here ${ONE_KEY}` : "";
  return `≈ 0: ${ABOUT}.${why}`;
}
