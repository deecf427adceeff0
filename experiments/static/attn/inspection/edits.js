// Interventions in attention: built from a form, kept in the address, listed with a button that removes each.
import { button, make } from "./parts.js";

const WHAT = { q: "Q", k: "K", v: "V", head: "the head's output" };

export class Edits {
  constructor(root, changed) {
    this.form = root.querySelector("[data-edit]");
    this.list = root.querySelector("[data-edit-list]");
    this.changed = changed;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.add();
    });
    this.form.addEventListener("change", ({ target }) => this.fit(target.name !== "place"));
  }

  // `places(what, site)` gives [{at, name}]: positions of Q, K, V or the output; of the shown site if none is named.
  offer(places, sites, heads) {
    this.places = places;
    refill(this.form.elements.site, [["", "every site"], ...sites.map((name) => [name, name])]);
    refill(this.form.elements.head, [
      ["", "every head"],
      ...Array.from({ length: heads }, (_, at) => [String(at), `head ${at}`]),
    ]);
    this.fit();
  }

  fit(fresh = true) {
    if (fresh) this.fitPlaces();
    const kind = this.form.elements.kind.value;
    this.form.querySelector("[data-other]").hidden = kind !== "patch";
    const needed = kind === "swap" ? "(select two)" : "(none selected: all)";
    this.form.querySelector("[data-places-needed]").textContent = needed;
  }

  fitPlaces() {
    const box = this.form.querySelector("[data-places]");
    const old = new Set([...box.querySelectorAll("input:checked")].map((input) => input.value));
    const { what, site } = this.form.elements;
    box.replaceChildren(
      ...this.places(what.value, site.value).map(({ at, name }) => choice(name, at, old.has(String(at)))),
    );
  }

  read() {
    const data = new FormData(this.form);
    const edit = { kind: data.get("kind"), what: data.get("what"), places: data.getAll("place").map(Number) };
    if (data.get("site")) edit.site = data.get("site");
    if (data.get("head")) edit.head = Number(data.get("head"));
    return edit;
  }

  add() {
    const edit = this.read();
    const words = this.form.querySelector("[data-edit-problem]");
    const other = this.form.elements.other.value.trim();
    words.textContent =
      edit.kind === "swap" && edit.places.length !== 2
        ? "Select the two positions to swap."
        : edit.kind === "patch" && !other
          ? "Enter the other input that the vectors come from."
          : "";
    if (words.textContent) return;
    this.changed([...this.edits, edit], other || this.other);
  }

  show(edits, other) {
    [this.edits, this.other] = [edits, other];
    if (other && !this.form.elements.other.value) this.form.elements.other.value = other;
    const items = edits.map((edit, at) => {
      const item = make("li", "tag inspect-edit", this.words(edit));
      const drop = button("link-button", "×", () =>
        this.changed(
          edits.filter((_, index) => index !== at),
          other,
        ),
      );
      drop.ariaLabel = `Remove ${this.words(edit)}`;
      item.append(drop);
      return item;
    });
    this.list.replaceChildren(...items);
  }

  words({ kind, what, places, site, head }) {
    const known = new Map(this.places?.(what, site).map(({ at, name }) => [at, name]));
    const named = places.map((place) => known.get(place) ?? place).join(kind === "swap" ? " ↔ " : ", ");
    const where = [site, head === undefined ? "" : `head ${head}`].filter(Boolean).join(", ");
    return `${kind} ${WHAT[what]}${named ? ` of ${named}` : ""}${where ? ` at ${where}` : ""}`;
  }
}

// kind:what:site:head:place-place, separated by semicolons: short enough for an address.
export function written(edits) {
  return edits
    .map(({ kind, what, site = "", head = "", places }) => [kind, what, site, head, places.join("-")].join(":"))
    .join(";");
}

export function parsed(text) {
  return text
    .split(";")
    .filter(Boolean)
    .map((part) => {
      const [kind, what, site, head, places] = part.split(":");
      const edit = { kind, what, places: (places || "").split("-").filter(Boolean).map(Number) };
      if (site) edit.site = site;
      if (head) edit.head = Number(head);
      return edit;
    });
}

function choice(name, at, checked) {
  const label = make("label", "inspect-place");
  const input = Object.assign(document.createElement("input"), {
    type: "checkbox",
    name: "place",
    value: String(at),
    checked,
  });
  label.append(input, make("span", "", name));
  return label;
}

function refill(select, options) {
  const old = select.value;
  select.replaceChildren(...options.map(([value, title]) => Object.assign(make("option", "", title), { value })));
  if (options.some(([value]) => value === old)) select.value = old;
}
