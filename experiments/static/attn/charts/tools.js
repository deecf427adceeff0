// The smoothing and axis controls above charts; they notify listeners and update the address.
import { remember } from "../frame/address.js";

export function chartTools(changed) {
  const form = document.querySelector("[data-chart-tools]");
  const read = () => {
    const data = new FormData(form);
    return { smooth: Number(data.get("smooth")), axis: data.get("axis"), y: data.get("y") };
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    const view = read();
    form.querySelector("output").textContent = view.smooth;
    remember({
      smooth: String(view.smooth) === form.smooth.dataset.usual ? null : view.smooth,
      axis: view.axis === "step" ? null : view.axis,
      y: view.y === "auto" ? null : view.y,
    });
    changed(view);
  });
  return read();
}

// Calls `enter` when an element first comes near the view, and `seen` whenever it enters or leaves.
export function whenNear(element, enter, seen = () => {}) {
  let entered = false;
  new IntersectionObserver(
    ([entry]) => {
      if (entry.isIntersecting && !entered) {
        entered = true;
        enter();
      }
      seen(entry.isIntersecting);
    },
    { rootMargin: "250px" },
  ).observe(element);
}
