// Arithmetic on the points of a series.

// Exponential moving average, unbiased at the start; holes stay holes.
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

// Fewer points, none invented: first, minimum, maximum, last and one hole of each bucket, as the server does.
export function thin(series, most) {
  const { step, value } = series;
  const buckets = Math.max(1, Math.floor(most / 5));
  const keep = new Set();
  for (let bucket = 0; bucket < buckets; bucket++) {
    const from = Math.floor((bucket * step.length) / buckets);
    const to = Math.floor(((bucket + 1) * step.length) / buckets);
    let [low, high, hole] = [-1, -1, -1];
    for (let at = from; at < to; at++) {
      if (value[at] === null) hole = at;
      else {
        if (low < 0 || value[at] < value[low]) low = at;
        if (high < 0 || value[at] > value[high]) high = at;
      }
    }
    [from, low, high, hole, to - 1].filter((at) => at >= from && at < to).forEach((at) => keep.add(at));
  }
  const order = [...keep].sort((a, b) => a - b);
  for (const column of ["step", "time", "value"]) series[column] = order.map((at) => series[column][at]);
}
