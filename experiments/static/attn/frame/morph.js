// Makes one element's children like another's and keeps nodes, so that focus, hover, selection and scroll stay.
// Children match by `data-key` or id, others by place. Elements with `data-keep` are never changed.
// Ours and not idiomorph: that one writes the server's value into every field but the one that has the focus.

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.dataset.key || node.id || "" : "");

function alike(have, want) {
  return have.nodeType === want.nodeType && have.nodeName === want.nodeName;
}

export function morph(have, want) {
  const keyed = new Map([...have.children].filter(keyOf).map((child) => [keyOf(child), child]));
  let cursor = have.firstChild;
  for (const wanted of [...want.childNodes]) {
    const key = keyOf(wanted);
    const match = key ? keyed.get(key) : cursor && !keyOf(cursor) && alike(cursor, wanted) ? cursor : null;
    if (!match || !alike(match, wanted)) {
      have.insertBefore(wanted, cursor);
      continue;
    }
    if (match === cursor) cursor = cursor.nextSibling;
    else move(have, match, cursor);
    update(match, wanted);
  }
  while (cursor) {
    const next = cursor.nextSibling;
    cursor.remove();
    cursor = next;
  }
}

// A node that moveBefore has moved keeps the focus; not every browser has it.
function move(parent, node, before) {
  if (parent.moveBefore) parent.moveBefore(node, before);
  else parent.insertBefore(node, before);
}

function update(have, want) {
  if (have.isEqualNode(want)) return;
  if (have.nodeType !== Node.ELEMENT_NODE) {
    have.data = want.data;
    return;
  }
  if (have.hasAttribute("data-keep")) return;
  for (const { name } of [...have.attributes]) {
    if (!want.hasAttribute(name) && !(name === "open" || name === "class")) have.removeAttribute(name);
  }
  for (const { name, value } of want.attributes) {
    if (have.getAttribute(name) !== value) have.setAttribute(name, value);
  }
  morph(have, want);
}
