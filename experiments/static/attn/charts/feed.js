// Points of series from REST: each panel's history once, then only new points.
import { pause } from "../frame/live.js";
import { thin } from "./points.js";

const MAX_POINTS = 1000;
const KEPT = 4000;
const LIVE_POINTS = 100; // per chart and poll: fine enough for a screen, and a fast run does not flood the network

export async function getJson(path, params) {
  const answer = await fetch(`/api/v1/${path}?${new URLSearchParams(params)}`, {
    headers: { Accept: "application/json" },
  });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

// One panel's share of the feed: the series that match `names`, in order of arrival.
class Share {
  constructor(names, changed) {
    this.names = names;
    this.changed = changed;
    this.series = new Map();
    this.horizon = -1; // everything up to this step has been requested
    this.loaded = false;
    this.active = true;
  }

  take(received) {
    let fresh = 0;
    for (const item of received) {
      const key = `${item.run} ${item.name}`;
      const known = this.series.get(key);
      if (known) fresh += append(known, item);
      else {
        this.series.set(key, { ...item, ...item.points, points: undefined });
        fresh += item.points.step.length;
      }
    }
    return fresh;
  }
}

export class Feed {
  constructor(runs, { every = 1 } = {}) {
    this.runs = runs;
    this.every = every;
    this.shares = [];
    this.live = false;
    this.quiet = 0;
  }

  async subscribe(names, changed) {
    const share = new Share(names, changed);
    this.shares.push(share);
    await this.load(share);
    return share;
  }

  async load(share) {
    try {
      const { series } = await getJson("series/", {
        runs: this.runs.join(","),
        names: share.names,
        max_points: MAX_POINTS,
      });
      share.series.clear();
      share.take(series);
      share.horizon = lastStep(series, -1);
      share.loaded = true;
    } catch {
      share.loaded = false; // the next poll tries again
    }
    share.changed(share);
  }

  reload() {
    return Promise.all(this.shares.map((share) => this.load(share)));
  }

  start() {
    if (this.live) return;
    this.live = true;
    this.quiet = 0;
    this.plan();
  }

  // Polls once more for the last commit, charts out of sight included.
  async stop() {
    if (!this.live) return;
    this.live = false;
    clearTimeout(this.timer);
    await this.finish();
  }

  async finish() {
    const answered = await this.visit(this.shares);
    if (!answered && !this.live) this.timer = setTimeout(() => this.finish(), pause(3));
  }

  plan() {
    clearTimeout(this.timer);
    if (!this.live) return;
    const slow = this.quiet > 60 ? 10 : 1;
    this.timer = setTimeout(() => this.visit().finally(() => this.plan()), pause(this.every * slow));
  }

  // Resolves to whether the server has answered for all shares.
  async visit(shares = this.shares.filter((share) => share.active)) {
    await Promise.all(shares.filter((share) => !share.loaded).map((share) => this.load(share)));
    const ready = shares.filter((share) => share.loaded);
    try {
      if (ready.length) await this.poll(ready);
    } catch {
      this.quiet += 1; // the server is away: the next poll repeats the request
      return false;
    }
    return ready.length === shares.length;
  }

  // All panels in one request. A commit holds the points of all groups up to one step, so everything up to the last
  // step of an answer is known, for slow groups too.
  async poll(shares) {
    const names = [...new Set(shares.flatMap((share) => share.names.split(",")))].join(",");
    const since = Math.min(...shares.map((share) => share.horizon));
    const lines = shares.reduce((sum, share) => sum + Math.max(1, share.series.size), 0);
    const most = Math.max(8, Math.floor((LIVE_POINTS * shares.length) / lines));
    const { series } = await getJson("series/", {
      runs: this.runs.join(","),
      names,
      max_points: most,
      since_step: since,
    });
    const horizon = this.runs.length === 1 ? lastStep(series, since) : null;
    let fresh = 0;
    for (const share of shares) {
      const mine = series.filter((item) => matches(item.name, share.names));
      const came = share.take(mine);
      share.horizon = horizon === null ? slowest(share) : Math.max(share.horizon, horizon);
      if (came) share.changed(share);
      fresh += came;
    }
    this.quiet = fresh ? 0 : this.quiet + 1;
  }

  // The same series in finer detail inside a window of steps.
  async zoom(share, from, to) {
    const window = { from_step: Math.max(0, Math.floor(from)), to_step: Math.ceil(to) };
    const { series } = await getJson("series/", {
      runs: this.runs.join(","),
      names: share.names,
      max_points: MAX_POINTS,
      ...window,
    });
    for (const item of series) {
      const known = share.series.get(`${item.run} ${item.name}`);
      if (known) splice(known, item.points, window);
    }
    share.changed(share);
  }
}

function lastStep(series, otherwise) {
  return series.reduce((last, item) => Math.max(last, item.points.step.at(-1) ?? -1), otherwise);
}

// With many runs, the slowest decides the first step to request.
function slowest(share) {
  const last = new Map();
  for (const item of share.series.values())
    last.set(item.run, Math.max(last.get(item.run) ?? -1, item.step.at(-1) ?? -1));
  return last.size ? Math.min(...last.values()) : -1;
}

function append(known, item) {
  const last = known.step.at(-1) ?? -1;
  const { step, time, value } = item.points;
  let fresh = 0;
  for (let at = 0; at < step.length; at++) {
    if (step[at] <= last) continue;
    known.step.push(step[at]);
    known.time.push(time[at]);
    known.value.push(value[at]);
    fresh += 1;
    if (value[at] === null) known.nonfinite += 1;
  }
  known.count += fresh;
  if (known.step.length > KEPT) thin(known, KEPT / 2);
  return fresh;
}

function splice(known, points, window) {
  const keep = (at) => known.step[at] < window.from_step || known.step[at] > window.to_step;
  const rows = known.step.map((step, at) => [step, known.time[at], known.value[at]]).filter((_, at) => keep(at));
  for (const [at, step] of points.step.entries()) rows.push([step, points.time[at], points.value[at]]);
  rows.sort((a, b) => a[0] - b[0]);
  [known.step, known.time, known.value] = [0, 1, 2].map((column) => rows.map((row) => row[column]));
}

const patterns = new Map();

export function matches(name, globs) {
  return globs.split(",").some((glob) => {
    if (!patterns.has(glob)) {
      const text = glob
        .split(/(\*\*|\*)/)
        .map((part) => ({ "**": ".*", "*": "[^/]*" })[part] ?? part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
      patterns.set(glob, new RegExp(`^${text.join("")}$`));
    }
    return patterns.get(glob).test(name);
  });
}
