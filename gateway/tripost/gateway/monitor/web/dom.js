// Making and changing elements. What comes from mail (addresses, replies, names of hosts) becomes text and nothing
// else: no function here, nor anywhere on this page, parses markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== undefined && child !== null && child !== false) node.append(child);
  }
  return node;
}

/** el("td", {class: "n", title}, "text", node, …): strings become text. `onclick` and the like are functions. */
export function el(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** Touches the document only where something changes: screen readers and selections are left alone. */
export function put(node, text) {
  const wanted = String(text ?? "");
  if (node.textContent !== wanted) node.textContent = wanted;
  return node;
}

export function set(node, name, value) {
  if (value === undefined || value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : String(value));
  return node;
}

export function show(node, yes) {
  if (node.hidden === Boolean(yes)) node.hidden = !yes;
  return node;
}

/** Is someone in there, with the pointer or the keyboard? What he looks at must not jump away under him. */
export function busy(node) {
  return node.matches(":hover") || node.contains(document.activeElement);
}

/**
 * Makes the children of `parent` stand for `items`: those that are known by their key are kept and updated.
 * `make(item)` gives an element, `update(element, item)` changes it. With `still`, known ones keep their places.
 */
export function keyed(parent, items, key, make, update, still = false) {
  const known = (parent.keys ??= new Map());
  const wanted = new Map(items.map((item) => [key(item), item]));
  for (const [name, node] of known) {
    if (wanted.has(name)) continue;
    if (node.contains(document.activeElement)) {
      node.classList.add("gone"); // it goes once nobody is in it
      continue;
    }
    node.remove();
    known.delete(name);
  }
  let before = null;
  for (const [name, item] of wanted) {
    let node = known.get(name);
    const fresh = !node;
    if (fresh) {
      node = make(item);
      known.set(name, node);
    }
    node.classList.remove("gone");
    update(node, item);
    const place = before ? before.nextElementSibling : parent.firstElementChild;
    if (fresh && still) parent.append(node);
    else if (!still && place !== node && !node.contains(document.activeElement)) parent.insertBefore(node, place);
    before = node;
  }
}

/** A button that says what it does. */
export function button(label, does, attributes = {}) {
  return el("button", { type: "button", onclick: does, ...attributes }, label);
}

let told = 0;

/** To screen readers, politely: only what a person must know, and not the same twice. */
export function announce(text) {
  const voice = document.getElementById("voice");
  if (voice.textContent === text && Date.now() - told < 5000) return;
  told = Date.now();
  voice.textContent = text;
}
