// Live regions: `data-live` is a URL of HTML, `data-every` the seconds between polls. The X-Next-Poll header of the
// answer sets the next pause; 0 stops. Hidden tabs poll ten times less often.
import { morph } from "./morph.js";

const HIDDEN_FACTOR = 10;
const MAX_PAUSE_S = 30;

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
    const seconds = Math.min(this.every * 2 ** this.failures, Math.max(MAX_PAUSE_S, this.every));
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
      this.failures += 1; // the server is away: the region stays, and the pause doubles
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

// htmx elements with `hx-trigger="poll"`; found anew at every tick, since they come and go.
function pollTriggers(htmx) {
  const tick = () => {
    for (const element of document.querySelectorAll("[data-poll]")) htmx.trigger(element, "poll");
    setTimeout(tick, pause(1.5));
  };
  setTimeout(tick, pause(1.5));
}
