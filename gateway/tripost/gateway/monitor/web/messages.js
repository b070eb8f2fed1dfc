// Looking for messages, with the conditions of `tripost queue list`, in the queue and in the history; and doing
// something to all that fit.

import { el, put, show } from "./dom.js";
import { ago, ahead, clock, duration, octets, plural, size } from "./format.js";
import { address } from "./route.js";
import { buttons } from "./actions.js";
import { get } from "./api.js";
import { section } from "./overview.js";
import { bare } from "./verdict.js";

const STATES = ["ready", "deferred", "held", "suspended", "active", "down", "ending"];
// name, label, hint, and how its text becomes a condition
const FIELDS = [
  ["sender", "Sender", "fred@truc.fr, *@truc.fr, <>"],
  ["recipient", "Recipient", "marc@machin.com"],
  ["domain", "Domain", "machin.com, *.example"],
  ["next_hop", "Next hop", "mx:machin.com"],
  ["site", "Site", "smtp.machin.com"],
  ["account", "Account", ""],
  ["id", "Id", ""],
  ["error", "Error", "a class, or a part of the last reply"],
  ["header", "Header", "Subject: invoice"],
  ["older", "Older than", "4h", duration],
  ["younger", "Younger than", "10m", duration],
  ["larger", "Larger than", "1MiB", size],
  ["attempts", "Attempts at least", "3", Number],
];
const LIMIT = 100;

/** What one types into a single box: an id, an address, @domain, a next hop, or a part of an address. */
export function quick(text) {
  const wanted = text.trim();
  if (!wanted) return {};
  if (wanted.startsWith("@")) return { domain: wanted.slice(1) };
  if (wanted.includes("@") || wanted === "<>") return wanted === "<>" ? { sender: "<>" } : { address: wanted };
  if (/^[a-z]+:/.test(wanted)) return { next_hop: wanted };
  return /^[0-9A-Z]{16,24}$/.test(wanted) ? { id: wanted } : { address: `*${wanted}*` };
}

export class Messages {
  constructor({ conditions }) {
    this.given = conditions;
    this.box = el("input", {
      type: "search",
      name: "q",
      value: conditions.q ?? "",
      placeholder: "id, address, @domain, next hop",
      autocomplete: "off",
      spellcheck: "false",
    });
    this.told = el("p", { class: "sentence", role: "status" });
    this.wrong = el("p", { class: "wrong", role: "alert" });
    this.table = new MessageTable();
    this.past = el("ul", { class: "past" });
    this.pastPart = show(section("In the history", "history", this.past), false);
    this.does = show(
      buttons(
        ["retry", "hold", "release", "reroute", "bounce", "delete"],
        () => this.conditions(),
        () => "all that fit",
      ),
      false,
    );
    this.node = el(
      "div",
      {},
      el("h1", {}, "Messages"),
      this.form(),
      this.wrong,
      this.told,
      this.does,
      section("In the queue", "messages", this.table.node),
      this.pastPart,
    );
    this.again = () => Object.keys(this.given).length && this.search();
    addEventListener("acted", this.again);
    if (Object.keys(conditions).length) this.search();
    else put(this.told, "Say what you look for; or leave it empty for what is queued.");
  }

  form() {
    const fields = FIELDS.map(([name, label, hint]) =>
      el(
        "label",
        {},
        label,
        el("input", {
          name,
          value: this.given[name] ? this.shown(name) : "",
          placeholder: hint,
          autocomplete: "off",
          spellcheck: "false",
        }),
      ),
    );
    const wanted = (this.given.states ?? "").split(",");
    const states = STATES.map((one) =>
      el(
        "label",
        { class: "check" },
        el("input", { type: "checkbox", name: "states", value: one, checked: wanted.includes(one) }),
        one,
      ),
    );
    const more = el(
      "details",
      {
        open:
          matchMedia("(min-width: 821px)").matches &&
          (FIELDS.some(([name]) => this.given[name]) || Boolean(this.given.states)),
      },
      el("summary", {}, "More conditions"),
      el("div", { class: "fields" }, fields),
      el("fieldset", {}, el("legend", {}, "State"), states),
    );
    const form = el(
      "form",
      { class: "search", role: "search" },
      el("label", {}, "Message", this.box),
      el("button", { type: "submit", class: "main" }, "Search"),
      more,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit(new FormData(form));
    });
    return form;
  }

  /** Seconds and octets in the address stand in the fields as they are. */
  shown(name) {
    return this.given[name];
  }

  submit(data) {
    const found = { q: this.box.value.trim(), states: data.getAll("states").join(",") };
    for (const [name, label, , read] of FIELDS) {
      const text = String(data.get(name)).trim();
      if (!text) continue;
      const value = read ? read(text) : text;
      if (Number.isNaN(value)) return put(this.wrong, `${label}: ${text} is not understood`);
      found[name] = value;
    }
    const next = address("messages", "", found);
    if (next === location.hash || !Object.values(found).some(Boolean)) {
      this.given = found;
      this.search();
    } else location.hash = next;
    return undefined;
  }

  conditions() {
    const { q = "", ...rest } = this.given;
    const found = { ...quick(q), ...rest };
    for (const name of ["older", "younger", "larger", "attempts"]) if (found[name]) found[name] = Number(found[name]);
    if (typeof found.states === "string") found.states = found.states ? found.states.split(",") : [];
    for (const [name, value] of Object.entries(found)) if (value === "" || value?.length === 0) delete found[name];
    return found;
  }

  async search() {
    put(this.wrong, "");
    put(this.told, "Looking…");
    const conditions = this.conditions();
    const about = this.given.q && !/[*?]/.test(this.given.q) ? this.given.q.trim() : (conditions.id ?? "");
    const past = about ? this.remember(about) : Promise.resolve(0);
    try {
      const { rows, sum } = await get("queue/list", { ...conditions, limit: LIMIT });
      this.table.fill(rows, sum.more ? `The first ${LIMIT}: say more to see others.` : "");
      show(this.does, rows.length && Object.keys(conditions).length);
      const fit = plural(sum.messages, "queued message fits", "queued messages fit");
      const ended = await past;
      put(
        this.told,
        (sum.more ? `More than ${LIMIT} messages fit` : fit) +
          (about ? `; ${plural(ended, "is", "are")} in the history.` : "."),
      );
    } catch (fault) {
      this.table.fill([], "");
      put(this.told, "");
      put(this.wrong, fault.message);
    }
  }

  /** What became of it; how many. */
  async remember(about) {
    try {
      const { rows } = await get("history", { about, limit: 50 });
      const messages = rows.filter((one, at) => at === 0 || rows[at - 1].id !== one.id);
      this.past.replaceChildren(...messages.map(pastRow));
      show(this.pastPart, messages.length);
      return messages.length;
    } catch {
      show(this.pastPart, false);
      return 0;
    }
  }

  update() {}

  close() {
    removeEventListener("acted", this.again);
  }
}

function pastRow(one) {
  const last = one.attempts.at(-1);
  return el(
    "li",
    {},
    el("a", { class: "id", href: address("message", one.id) }, one.id),
    el("span", { class: "when n" }, one.accepted ? clock(one.accepted) : ""),
    el("span", {}, one.sender || "<>"),
    el("span", { class: "chip", "data-state": last?.outcome ?? "" }, one.open ? "queued" : (last?.outcome ?? "")),
    el("span", {}, last?.recipient ?? ""),
    el("q", {}, last?.reply ?? ""),
  );
}

const COLUMNS = ["Id", "Age", "Sender", "Recipients", "Next hop", "State", "Tries", "Next", "Last reply"];
const KINDS = ["id", "n age", "sender", "to", "hop", "state", "n tries", "n next", "reply"];

export class MessageTable {
  constructor() {
    this.body = el("tbody", { role: "rowgroup" });
    this.note = el("p", { class: "none" });
    const head = COLUMNS.map((text, at) => el("th", { role: "columnheader", scope: "col", class: KINDS[at] }, text));
    this.table = el(
      "table",
      { class: "list", role: "table" },
      el("caption", { class: "hide" }, "Messages"),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)),
      this.body,
    );
    this.table.hidden = true;
    this.node = el("div", { class: "scroll" }, this.table, this.note);
  }

  fill(rows, note) {
    const now = Date.now() / 1000;
    this.body.replaceChildren(...rows.map((one) => row(one, now)));
    show(this.table, rows.length);
    put(this.note, note || (rows.length ? "" : "None."));
  }

  fault(fault) {
    show(this.table, false);
    put(this.note, fault.message);
  }
}

function row(one, now) {
  const [first = {}] = one.deliveries;
  const people = one.deliveries.map((each) => each.recipient);
  const due = first.state === "deferred" ? ahead(first.due, now) : "";
  const reply = one.deliveries.find((each) => each.reply)?.reply ?? "";
  const values = [
    el("a", { href: address("message", one.id) }, one.id),
    el("span", { title: clock(one.accepted) }, ago(one.accepted, now).replace(" ago", "")),
    el("span", { title: `${one.sender || "<>"}, ${octets(one.size)}` }, one.sender || "<>"),
    el(
      "span",
      { title: people.slice(0, 20).join("\n") },
      people.length > 1 ? `${people[0]} and ${people.length - 1} more` : (people[0] ?? ""),
    ),
    el("a", { href: address("destination", first.next_hop ?? "") }, bare(first.next_hop ?? "")),
    el("span", { class: "chip", "data-state": first.state }, first.state ?? ""),
    String(Math.max(0, ...one.deliveries.map((each) => each.attempts))),
    due,
    el("q", { title: reply }, reply),
  ];
  return el(
    "tr",
    { role: "row" },
    values.map((value, at) =>
      el(at ? "td" : "th", { role: at ? "cell" : "rowheader", scope: at ? null : "row", class: KINDS[at] }, value),
    ),
  );
}
