// A strip of colours, one column per value, and the scale that explains it.
import { channels, colour, ramp } from "./palette.js";

// `span` is [low, high] in decades; non-finite values (null) are marked, zeros take the colour `zero` or none.
export function paintStrip(canvas, values, span, zero = null) {
  canvas.height = 1;
  canvas.width = Math.max(1, values.length);
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, 1);
  const [colours, bad] = [ramp(), channels(colour("ramp-bad"))];
  values.forEach((value, at) => {
    const shade = value === 0 ? zero : value === null || !span ? bad : colours[place(value, span)];
    if (shade) image.data.set([...shade, 255], at * 4);
  });
  context.putImageData(image, 0, 0);
}

function place(value, [low, high]) {
  const share = (Math.log10(Math.abs(value)) - low) / (high - low || 1);
  return Math.max(0, Math.min(255, Math.round(255 * share)));
}

export function scaleBar() {
  const bar = document.createElement("canvas");
  const values = Array.from({ length: 256 }, (_, at) => 10 ** (at / 255));
  paintStrip(bar, values, [0, 1]);
  return bar;
}
