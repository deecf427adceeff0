// Colours for canvases, from the CSS variables; read again when the theme changes.

const probe = document.createElement("span");
probe.hidden = true;
document.body.append(probe);
let cache = new Map();

export function colour(name) {
  if (!cache.has(name)) {
    probe.style.color = `var(--${name})`;
    cache.set(name, getComputedStyle(probe).color);
  }
  return cache.get(name);
}

// Ten colours, then the same ten in four dash patterns: fifty distinct lines.
const SERIES = 10;
const DASHES = [null, [7, 3], [2, 3], [10, 3, 2, 3], [14, 5]];

export function seriesStyle(at) {
  return { colour: colour(`series-${(at % SERIES) + 1}`), dash: DASHES[Math.floor(at / SERIES) % DASHES.length] };
}

// The swatch of a line: its colour and dashes.
export function paintSwatch(swatch, { colour: ink, dash }) {
  let end = 0;
  const stops = [];
  for (const [at, length] of (dash ?? []).entries()) {
    stops.push(`${at % 2 ? "transparent" : ink} ${end}px ${end + length}px`);
    end += length;
  }
  swatch.style.background = dash ? `repeating-linear-gradient(90deg, ${stops.join(", ")})` : ink;
}

export function matrixColour(name) {
  const match = /(?:^|\/)W_([qkvo])(?:\/|$)/.exec(name);
  return match ? colour(match[1]) : null;
}

// 256 colours of the heat-map's scale as [r, g, b].
export function ramp() {
  const stops = [0, 1, 2, 3, 4, 5, 6].map((at) => channels(colour(`ramp-${at}`)));
  return Array.from({ length: 256 }, (_, at) => {
    const place = (at / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    return stops[low].map((value, channel) => value + (stops[low + 1][channel] - value) * (place - low));
  });
}

export function channels(text) {
  return text
    .match(/[\d.]+/g)
    .slice(0, 3)
    .map(Number);
}

document.addEventListener("themechange", () => {
  cache = new Map();
});
