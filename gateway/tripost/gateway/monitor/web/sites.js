// How the gateway treats each site: how many connections it has and may have, at what rate, what binds it now, how long
// it is left alone, and what it said last.

import { busy, el, keyed, put, set } from "./dom.js";
import { ago, perSecond, span } from "./format.js";
import { LIMITS, first } from "./verdict.js";
import { address } from "./route.js";

const COLUMNS = [
  ["Site", "name"],
  ["Open of allowed (most)", "uses"],
  ["Rate", "n rate"],
  ["Bound by", "by"],
  ["Left alone", "n rest"],
  ["Last reply", "reply"],
];

/** Sites, with what is sent to their next hops and what was last said for one of them. */
export function withHops(sites, hops) {
  const found = Object.fromEntries(Object.entries(sites ?? {}).map(([name, one]) => [name, { ...one, sent: 0 }]));
  for (const hop of Object.values(hops ?? {})) {
    const site = found[hop.site];
    if (!site) continue;
    site.sent += hop.rate ?? 0;
    if (hop.reply && hop.reply_at > (site.reply_at ?? 0))
      Object.assign(site, { reply: hop.reply, reply_at: hop.reply_at });
  }
  return found;
}

export class Sites {
  constructor({ caption }) {
    const head = COLUMNS.map(([text, kind]) => el("th", { role: "columnheader", scope: "col", class: kind }, text));
    this.body = el("tbody", { role: "rowgroup" });
    this.empty = el("p", { class: "none" }, "No site is spoken to.");
    this.table = el(
      "table",
      { class: "sites", role: "table" },
      el("caption", { class: "hide" }, caption),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)),
      this.body,
    );
    this.node = el("div", { class: "scroll" }, this.table, this.empty);
  }

  update(sites, now) {
    const found = Array.isArray(sites) ? sites : most(sites);
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
    this.table.hidden = !found.length;
  }

  make([name]) {
    const td = (kind, ...inside) => el("td", { role: "cell", class: kind }, inside);
    const parts = {
      bar: el("span", { class: "used" }),
      may: el("span", { class: "may" }),
      uses: el("span", { class: "n" }),
      said: el("span", { class: "site" }),
    };
    parts.rate = td("n rate");
    parts.by = td("by");
    parts.rest = td("n rest");
    parts.reply = el("q", {});
    parts.when = el("span", { class: "when n" });
    const bar = el("span", { class: "bar", "aria-hidden": "true" }, parts.may, parts.bar);
    const row = el(
      "tr",
      { role: "row" },
      el(
        "th",
        { role: "rowheader", scope: "row", class: "name" },
        el("a", { href: address("destinations", "", { site: name }), title: name }, first(name)),
        parts.said,
      ),
      td("uses", bar, parts.uses),
      parts.rate,
      parts.by,
      parts.rest,
      td("reply", parts.when, parts.reply),
    );
    row.parts = parts;
    return row;
  }

  fill(row, [, one]) {
    const { parts } = row;
    const top = Math.max(1, one.connections);
    parts.bar.style.width = `${Math.min(100, (100 * one.open) / top)}%`;
    parts.may.style.width = `${Math.min(100, (100 * one.limit) / top)}%`;
    put(parts.uses, `${one.open} of ${one.limit}${one.limit < one.connections ? ` (${one.connections})` : ""}`);
    set(parts.uses, "title", `${one.open} open, ${one.limit} found good, at most ${one.connections}`);
    put(parts.said, one.said ? `limits by ${one.said}` : "");
    put(parts.rate, rates(one));
    put(parts.by, one.by ? (LIMITS[one.by] ?? one.by) : "");
    set(parts.by, "title", one.why);
    set(parts.by, "data-bound", Boolean(one.by));
    put(
      parts.rest,
      one.rest > this.now ? `${span(one.rest - this.now)} more` : one.by && one.wait ? span(one.wait) : "",
    );
    put(parts.reply, one.reply || "");
    set(parts.reply, "title", one.reply);
    set(parts.reply, "data-kind", (one.reply || "")[0]);
    put(parts.when, one.reply_at ? ago(one.reply_at, this.now) : "");
  }
}

/** What goes there now, and what may. */
function rates(one) {
  const now = one.sent === undefined ? "" : `${perSecond(one.sent)}/s`;
  const may = [one.rate && `at most ${one.rate}`, one.connection_rate && `${one.connection_rate} connections`];
  return [now, ...may].filter(Boolean).join(", ");
}

export function most(sites) {
  return Object.entries(sites ?? {}).sort(
    ([a, one], [b, other]) => Boolean(other.by) - Boolean(one.by) || other.workers - one.workers || (a < b ? -1 : 1),
  );
}
