// Step labels below the columns of a heat-map, each centred under its column.

export function columnAxis(box, steps, most = 5) {
  const marks = Math.min(most, steps.length);
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
