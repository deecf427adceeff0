// The new-experiment form: shows the errors of the server's check at the fields; adds and removes variants.

const form = document.getElementById("new");
const check = document.getElementById("check");
const variants = document.getElementById("variants");

// Every answer of the live check has the errors by input name, and the wrong lines of the YAML.
function placeErrors() {
  const data = check.firstElementChild?.dataset ?? {};
  const errors = JSON.parse(data.errors || "{}");
  for (const place of form.querySelectorAll("[data-error-for]")) write(place, errors[place.dataset.errorFor]);
  for (const row of variants.children) {
    const path = row.querySelector("[name=matrix-path]").value.trim();
    const at = [...variants.children].indexOf(row);
    write(
      row.querySelector(".field-error"),
      errors[`matrix.${path}`] ?? errors[`matrix.${at}`],
      row.querySelectorAll("input"),
    );
  }
  markLines((data.lines || "").split(",").filter(Boolean));
}

function write(place, words, inputs) {
  place.textContent = words ?? "";
  const fields =
    inputs ?? place.closest("[data-field]")?.querySelectorAll("input:not([type=hidden]), select, textarea") ?? [];
  for (const field of fields) {
    if (words) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
  if (words) place.closest("details")?.setAttribute("open", "");
}

function markLines(bad) {
  const gutter = form.querySelector(".yaml-lines");
  const text = form.querySelector(".yaml textarea");
  if (!gutter) return;
  const count = text.value.split("\n").length;
  text.rows = count;
  gutter.replaceChildren();
  for (let line = 1; line <= count; line++) {
    const mark = bad.includes(String(line))
      ? Object.assign(document.createElement("b"), { textContent: `● ${line}` })
      : String(line);
    gutter.append(mark, "\n");
  }
}

form.addEventListener("input", (event) => {
  if (event.target.name === "yaml") markLines([]);
});

form.addEventListener("click", (event) => {
  if (event.target.closest("[data-add-variant]")) {
    variants.append(document.getElementById("variant-template").content.cloneNode(true));
    variants.lastElementChild.querySelector("input").focus();
  }
  const drop = event.target.closest("[data-drop-variant]");
  if (drop) {
    drop.closest(".variant").remove();
    form.dispatchEvent(new Event("change", { bubbles: true }));
  }
});

// A new answer of the check; the editor's fragment has its own errors.
new MutationObserver(placeErrors).observe(check, { childList: true });
placeErrors();
