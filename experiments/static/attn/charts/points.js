// Arithmetic on the points of a series.

// Exponential moving average with bias correction; holes stay holes.
export function smoothed(values, weight) {
  let [last, steps] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    last = last * weight + (1 - weight) * value;
    steps += 1;
    return last / (1 - weight ** steps);
  });
}

export function nearest(xs, x) {
  let [low, high] = [0, xs.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle;
    else high = middle;
  }
  return Math.abs(xs[low] - x) <= Math.abs(xs[high] - x) ? low : high;
}

// Values without neighbours: a line of one point has no length, so it is drawn as a dot.
export function isolated(values) {
  const absent = (at) => values[at] === null || values[at] === undefined;
  return values.flatMap((_, at) => (!absent(at) && absent(at - 1) && absent(at + 1) ? [at] : []));
}

// Lines with equal points, in groups of two or more: [[place, place, …], …].
export function coincident(lines) {
  const groups = [];
  lines.forEach((line, place) => {
    const group = line.x.length && groups.find(([first]) => equal(lines[first], line));
    if (group) group.push(place);
    else groups.push([place]);
  });
  return groups.filter((group) => group.length > 1);
}

function equal(one, other) {
  const last = one.y.length - 1;
  if (other.y.length !== one.y.length || other.y[0] !== one.y[0] || other.y[last] !== one.y[last]) return false;
  return one.y.every((value, at) => value === other.y[at] && one.x[at] === other.x[at]);
}

// Places of the first, minimum, maximum, one hole and last value from `from` to before `to`.
function pointsKept(value, from, to) {
  let [low, high, hole] = [-1, -1, -1];
  for (let at = from; at < to; at++) {
    if (value[at] === null) hole = at;
    else {
      if (low < 0 || value[at] < value[low]) low = at;
      if (high < 0 || value[at] > value[high]) high = at;
    }
  }
  return [from, low, high, hole, to - 1].filter((at) => at >= from && at < to);
}

// Thins as the server does: keeps the first, minimum, maximum, last and one hole of each bucket.
export function thin(series, limit) {
  const { step, value } = series;
  const buckets = Math.max(1, Math.floor(limit / 5));
  const keep = new Set();
  for (let bucket = 0; bucket < buckets; bucket++) {
    const from = Math.floor((bucket * step.length) / buckets);
    const to = Math.floor(((bucket + 1) * step.length) / buckets);
    for (const at of pointsKept(value, from, to)) keep.add(at);
  }
  const order = [...keep].sort((a, b) => a - b);
  for (const column of ["step", "time", "value"]) series[column] = order.map((at) => series[column][at]);
}
