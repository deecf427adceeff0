// Live regions: `data-live` is an address of HTML, `data-every` seconds between visits. The answer's
// X-Next-Poll header sets the next pause, 0 ends it. Hidden tabs are visited ten times less often.
import { morph } from "./morph.js";

const HIDDEN_FACTOR = 10;
const LONGEST_S = 30;

export function pause(seconds) {
  return 1000 * seconds * (document.hidden ? HIDDEN_FACTOR : 1);
}

class Region {
  constructor(element) {
    this.element = element;
    this.failures = 0;
    this.every = Number(element.dataset.every);
    this.plan();
  }

  plan() {
    clearTimeout(this.timer);
    if (!this.every || !this.element.isConnected) return;
    const seconds = Math.min(this.every * 2 ** this.failures, Math.max(LONGEST_S, this.every));
    this.timer = setTimeout(() => this.visit(), pause(seconds));
  }

  async visit() {
    clearTimeout(this.timer);
    try {
      const answer = await fetch(this.element.dataset.live, { headers: { "HX-Request": "true" } });
      if (answer.redirected) return location.reload(); // the session has ended
      if (!answer.ok) throw new Error(`${answer.status}`);
      this.show(await answer.text());
      this.every = Number(answer.headers.get("X-Next-Poll") ?? this.every);
      this.failures = 0;
    } catch {
      this.failures += 1; // the server is away: what is shown stays, and the pause doubles
    }
    document.documentElement.toggleAttribute("data-away", this.failures > 2);
    this.plan();
  }

  show(html) {
    const fresh = this.element.cloneNode(false);
    fresh.innerHTML = html;
    morph(this.element, fresh);
    this.element.dispatchEvent(new CustomEvent("live", { bubbles: true }));
  }
}

export function startLive(htmx) {
  const regions = [...document.querySelectorAll("[data-live]")].map((element) => new Region(element));
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    for (const region of regions) if (region.every) region.visit();
  });
  pollTriggers(htmx);
}

// htmx elements with `hx-trigger="poll"`: they come and go, so the clock looks for them.
function pollTriggers(htmx) {
  const tick = () => {
    for (const element of document.querySelectorAll("[data-poll]")) htmx.trigger(element, "poll");
    setTimeout(tick, pause(1.5));
  };
  setTimeout(tick, pause(1.5));
}
