// The runs table: the selection outlives pages, sorting and live updates in this tab.

const KEY = "picked-runs";
const picked = new Set(JSON.parse(sessionStorage.getItem(KEY) ?? "[]"));
const bar = document.querySelector("[data-picked]");
const link = bar.querySelector("[data-picked-compare]");
const table = document.getElementById("rows");

function show() {
  for (const box of table.querySelectorAll("[data-pick]")) {
    box.checked = picked.has(box.value);
    box.closest("tr").classList.toggle("picked", box.checked);
  }
  bar.hidden = !picked.size;
  bar.querySelector("[data-picked-count]").textContent = picked.size;
  link.href = `${new URL(link.href).pathname}?runs=${[...picked].sort((a, b) => a - b).join(",")}`;
  link.setAttribute("aria-disabled", String(picked.size < 2));
  sessionStorage.setItem(KEY, JSON.stringify([...picked]));
}

table.addEventListener("change", (event) => {
  if (!event.target.matches("[data-pick]")) return;
  if (event.target.checked) picked.add(event.target.value);
  else picked.delete(event.target.value);
  show();
});
bar.querySelector("[data-picked-clear]").addEventListener("click", () => {
  picked.clear();
  show();
});
table.addEventListener("live", show);
show();
