// Step labels below the columns of a heat-map, each centred under its column.
const MOST = 5;
const ROOM = 56; // pixels for a label

// `box` is as wide as the columns. A hidden box has no width yet.
export function columnAxis(box, steps) {
  const fitting = Math.floor((box.clientWidth || MOST * ROOM) / ROOM);
  const marks = Math.min(MOST, Math.max(2, fitting), steps.length);
  const columns = Array.from({ length: marks }, (_, mark) =>
    Math.round((mark * (steps.length - 1)) / Math.max(1, marks - 1)),
  );
  const labels = columns.map((column) => {
    const label = Object.assign(document.createElement("span"), { textContent: String(steps[column]) });
    label.style.left = `${(100 * (column + 0.5)) / steps.length}%`;
    return label;
  });
  box.classList.add("column-axis");
  box.replaceChildren(...labels);
}
