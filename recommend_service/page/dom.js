// Small helpers. Every value is inserted as text, never as HTML.

export const byId = (id) => document.getElementById(id);

export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const percent = (x) => `${Math.round(100 * x)} %`;

export const day = (iso) => new Date(iso).toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });

export const moment = (iso) =>
  new Date(iso).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

export const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

// Grey cards in place of what is being loaded.
export const skeleton = (tag, number) =>
  Array.from({ length: number }, () => el(tag, { class: "skeleton", "aria-hidden": "true" }, el("i"), el("i"), el("i")));
