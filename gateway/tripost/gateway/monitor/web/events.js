// The stream of events, as it comes, or filtered. After a lost connection it goes on where it was: /events resumes by
// number, and says so where something is missing.

import { button, el, put } from "./dom.js";
import { exact, plural, stamp } from "./format.js";
import { address } from "./route.js";
import { Link } from "./link.js";
import { query } from "./api.js";

const KEPT = 300; // rows
const KINDS = {
  "what ends": "relayed,delivered,failed,discarded,deleted",
  "what is stuck": "deferred,failed,unreachable,backoff,limited,suspended,trouble",
  "what comes": "accepted,refused,shed,loginfailed,noticed",
  operators: "steered,suspended,resumed",
  everything: "",
};

export class Events {
  constructor({ conditions }) {
    this.rows = [];
    this.seen = this.lost = 0;
    this.after = conditions.after ? Number(conditions.after) : 0;
    this.chosen = conditions.kind in KINDS ? conditions.kind : "what is stuck";
    const select = el(
      "select",
      { name: "kind", onchange: () => this.choose(select.value) },
      Object.keys(KINDS).map((name) => el("option", { value: name, selected: name === this.chosen }, name)),
    );
    this.still = button("Pause", () => this.pause(), { "aria-pressed": "false" });
    this.told = el("p", { class: "sentence" });
    this.list = el("ol", { class: "events", tabindex: 0, "aria-label": "Events, the newest first" });
    this.node = el(
      "div",
      {},
      el("h1", {}, "Events"),
      el("div", { class: "row" }, el("label", { class: "inline" }, "Show", select), this.still),
      this.told,
      this.list,
    );
    this.begin();
  }

  begin() {
    this.link = new Link(
      () => `events?${query({ event: KINDS[this.chosen], after: this.after })}`,
      (message) => this.heard(message),
      ({ open }) => this.say(open),
    );
  }

  choose(kind) {
    this.chosen = kind;
    this.link.close();
    this.rows = [];
    this.begin();
  }

  pause() {
    this.paused = !this.paused;
    this.still.setAttribute("aria-pressed", String(Boolean(this.paused)));
    put(this.still, this.paused ? "Go on" : "Pause");
  }

  heard(message) {
    if (message.kind === "hello") {
      this.after ||= message.last ?? 0;
      return;
    }
    if (message.kind === "gap") {
      this.lost += message.dropped ?? 0;
      this.rows.push({ gap: message });
      if (message.first) this.after = Math.max(this.after, message.first - 1);
    } else if (message.event) {
      this.seen++;
      this.after = Math.max(this.after, message.seq ?? 0);
      this.rows.push(message);
    }
    if (this.rows.length > KEPT) this.rows.splice(0, this.rows.length - KEPT);
    this.fresh = true;
  }

  say(open) {
    this.open = open;
  }

  update() {
    const lost = this.lost ? `, ${exact(this.lost)} missing` : "";
    put(
      this.told,
      `${this.open ? "" : "Connecting… "}${plural(this.seen, "event")}${lost}; the last is number ${this.after}`,
    );
    if (!this.fresh || this.paused) return;
    this.fresh = false;
    this.list.replaceChildren(...this.rows.map((one) => this.nodes.get(one) ?? this.remember(one)).reverse());
  }

  nodes = new WeakMap();

  remember(one) {
    const node = one.gap ? gap(one.gap) : line(one);
    this.nodes.set(one, node);
    return node;
  }

  close() {
    this.link.close();
  }
}

const gap = (one) =>
  el("li", { class: "gap" }, `${one.dropped ? exact(one.dropped) : "Some"} events are missing here (${one.reason})`);

const SHOWN = ["recipient", "sender", "next_hop", "site", "host", "client", "account", "what", "reason", "reply", "by"];

function line(one) {
  const words = SHOWN.filter((name) => one[name]).map((name) =>
    el("span", { class: `f ${name}`, title: name }, String(one[name])),
  );
  if (one.recipients)
    words.unshift(
      el(
        "span",
        { class: "f" },
        Array.isArray(one.recipients) ? one.recipients.slice(0, 3).join(", ") : plural(one.recipients, "recipient"),
      ),
    );
  const id =
    one.id && one.event !== "steered" ? el("a", { class: "id", href: address("message", one.id) }, one.id) : "";
  return el(
    "li",
    { "data-event": one.event },
    el("time", { class: "n" }, stamp(one.time).slice(11)),
    el("b", {}, one.event),
    id,
    words,
  );
}
