// What waits where, and for how long: next hops × age, the fuller a cell the darker. A row's link is one stop for the
// keyboard; from there the arrow keys walk through its ages.

import { busy, button, el, keyed, put, set } from "./dom.js";
import { ahead, count, exact, short, span } from "./format.js";
import { address } from "./route.js";
import { ages, bare, first } from "./verdict.js";
import { resume, suspend } from "./actions.js";

/** A word for how a next hop does: [word, kind]. */
export function doing(one) {
  if (one.state === "down" || one.state === "suspended") return [one.state, one.state];
  if (one.by === "rest") return ["slowed", "deferred"];
  if (one.by && one.by !== "dns") return ["at its limit", "limited"];
  return ["going", "ready"];
}

/** 0 for nothing, then one level more for each three times as much. */
export const level = (n) => (n ? Math.min(7, 1 + Math.floor(Math.log(n) / Math.log(3))) : 0);

export class Heat {
  constructor({ caption }) {
    this.head = el("tr", { role: "row" });
    this.body = el("tbody", { role: "rowgroup" });
    this.empty = el("p", { class: "none" }, "Nothing waits.");
    this.node = el(
      "div",
      { class: "scroll" },
      el(
        "table",
        { class: "heat", role: "table" },
        el("caption", { class: "hide" }, caption),
        el("thead", { role: "rowgroup" }, this.head),
        this.body,
      ),
      this.empty,
    );
    this.body.addEventListener("keydown", (event) => walk(event));
  }

  /** `hops`: name → figures, or [name, figures] in the order wanted. */
  update(hops, minutes, now) {
    const found = Array.isArray(hops) ? hops : fullest(hops);
    if (this.minutes !== String(minutes)) this.heads(minutes);
    this.now = now;
    keyed(
      this.body,
      found,
      ([name]) => name,
      (row) => this.make(row),
      (node, row) => this.fill(node, row),
      busy(this.body),
    );
    this.empty.hidden = found.length > 0;
    this.head.parentNode.hidden = !found.length;
  }

  heads(minutes) {
    this.minutes = String(minutes);
    this.ages = ages(minutes);
    const cell = (text, kind, words) =>
      el("th", { role: "columnheader", scope: "col", class: kind, title: words, "aria-label": words }, text);
    this.head.replaceChildren(
      cell("Next hop", "name"),
      cell("State", "state"),
      ...this.ages.map((one) => cell(one.head, "age", `waiting ${one.words}`)),
      cell("All", "n all", "all that waits"),
      cell("Oldest", "n oldest"),
      cell("Next try", "n next"),
      el("th", { role: "columnheader", scope: "col", class: "does act" }, el("span", { class: "hide" }, "Actions")),
    );
    this.body.keys?.clear();
    this.body.replaceChildren();
  }

  make([name]) {
    const parts = {
      link: el("a", { href: address("destination", name), title: name }, bare(name)),
      site: el("span", { class: "site" }),
      state: el("span", { class: "chip" }),
      cells: this.ages.map((one) =>
        el("a", { tabindex: -1, href: address("messages", "", { next_hop: name, older: one.from, younger: one.to }) }),
      ),
      all: el("a", { tabindex: -1, href: address("messages", "", { next_hop: name }) }),
      oldest: el("td", { role: "cell", class: "n oldest" }),
      next: el("td", { role: "cell", class: "n next" }),
    };
    parts.suspend = button("Suspend", () => suspend("destination", name), {
      class: "small quiet",
      "aria-label": `Suspend ${bare(name)}`,
    });
    parts.resume = button("Resume", () => resume("destination", name), {
      class: "small",
      "aria-label": `Resume ${bare(name)}`,
    });
    const row = el(
      "tr",
      { role: "row" },
      el("th", { role: "rowheader", scope: "row", class: "name" }, parts.link, parts.site),
      el("td", { role: "cell", class: "state" }, parts.state),
      parts.cells.map((one) => el("td", { role: "cell", class: "age" }, one)),
      el("td", { role: "cell", class: "n all" }, parts.all),
      parts.oldest,
      parts.next,
      el("td", { role: "cell", class: "does act" }, parts.suspend, parts.resume),
    );
    row.parts = parts;
    return row;
  }

  fill(row, [name, one]) {
    const { parts } = row;
    put(parts.site, one.site && bare(one.site) !== bare(name) ? first(one.site) : "");
    set(parts.site, "title", one.site);
    const [word, kind] = doing(one);
    put(parts.state, word);
    set(parts.state, "data-state", kind);
    set(parts.state, "title", one.why);
    parts.cells.forEach((cell, at) => {
      const n = one.ages?.[at] ?? 0;
      put(cell, n ? short(n) : "");
      set(cell, "data-heat", level(n));
      set(cell, "title", `${exact(n)} waiting ${this.ages[at].words}`);
      set(cell, "aria-label", n ? `${exact(n)} waiting ${this.ages[at].words}` : null);
      set(cell, "aria-hidden", n ? null : "true");
    });
    put(parts.all, count(one.deliveries));
    set(parts.all, "title", exact(one.deliveries));
    put(parts.oldest, one.oldest ? span(one.oldest) : "");
    put(parts.next, one.state === "suspended" ? "" : nextTry(one, this.now));
    parts.suspend.hidden = one.state === "suspended";
    parts.resume.hidden = one.state !== "suspended";
  }
}

function nextTry(one, now) {
  const when = one.state === "down" ? one.until : one.next_due;
  return when ? ahead(when, now) : "";
}

export function fullest(hops) {
  return Object.entries(hops ?? {}).sort(
    ([a, one], [b, other]) => other.deliveries - one.deliveries || (a < b ? -1 : 1),
  );
}

function walk(event) {
  const ways = { ArrowRight: 1, ArrowLeft: -1 };
  const rows = { ArrowDown: 1, ArrowUp: -1 };
  const row = event.target.closest("tr");
  if (!row || !(event.key in ways || event.key in rows)) return;
  const stops = (one) => [...one.querySelectorAll("a")].filter((each) => each.getAttribute("aria-hidden") !== "true");
  let next = null;
  if (event.key in ways) {
    const all = stops(row);
    next = all[all.indexOf(event.target) + ways[event.key]];
  } else {
    const other = rows[event.key] > 0 ? row.nextElementSibling : row.previousElementSibling;
    next = other && (event.target.closest("th") ? other.querySelector("th a") : (stops(other)[1] ?? stops(other)[0]));
  }
  if (next) {
    next.focus();
    event.preventDefault();
  }
}
