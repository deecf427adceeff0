// A line and a label that follow the pointer over the strips of the heat-map.
import { figure } from "../charts/numbers.js";

export class HeatHover {
  constructor(heat) {
    this.heat = heat;
    this.line = Object.assign(document.createElement("div"), { className: "heat-line", hidden: true });
    this.tip = Object.assign(document.createElement("div"), { className: "heat-tip", hidden: true });
    heat.grid.append(this.line, this.tip);
    heat.grid.addEventListener("pointermove", (event) => this.move(event));
    heat.grid.addEventListener("pointerleave", () => this.hide());
  }

  hide() {
    this.line.hidden = this.tip.hidden = true;
  }

  move(event) {
    const strip = event.target.closest(".heat-strip");
    if (!strip) return this.hide();
    const box = strip.getBoundingClientRect();
    const frame = this.heat.grid.getBoundingClientRect();
    const { steps, values } = this.heat;
    const at = Math.min(steps.length - 1, Math.floor(((event.clientX - box.left) / box.width) * steps.length));
    const value = values.get(strip.dataset.name)?.[at];
    this.write(strip.dataset.name, at, value);
    const left = event.clientX - frame.left;
    this.line.hidden = this.tip.hidden = false;
    this.line.style.left = `${left}px`;
    const over = left + 14 + this.tip.offsetWidth > frame.width;
    this.tip.style.left = `${over ? left - 14 - this.tip.offsetWidth : left + 14}px`;
    this.tip.style.top = `${event.clientY - frame.top + 14}px`;
  }

  write(name, at, value) {
    const { steps } = this.heat;
    const last = at + 1 < steps.length ? steps[at + 1] - 1 : steps[at];
    const span = last > steps[at] ? `steps ${steps[at]} to ${last}` : `step ${steps[at]}`;
    const strong = Object.assign(document.createElement("b"), {
      textContent: value === null ? "non-finite" : figure(value),
    });
    this.tip.replaceChildren(`${name.split("/").slice(1).join(" ")} · ${span} · `, strong);
  }
}
