// One message: why it is where it is, what was tried, what can be done.

import { el, put, show } from "./dom.js";
import { ahead, clock, octets, seconds, stamp } from "./format.js";
import { address } from "./route.js";
import { buttons } from "./actions.js";
import { get, session } from "./api.js";
import { facts } from "./destinations.js";
import { section } from "./overview.js";
import { bare } from "./verdict.js";

const AGAIN = 3000; // ms between two looks at a message that is not done
const HEADERS = 16_384; // characters that are shown

export class Message {
  constructor({ what }) {
    this.id = what;
    this.facts = el("dl", { class: "facts" });
    this.wrong = el("p", { class: "wrong", role: "alert" });
    this.why = el("ul", { class: "whys" });
    this.whyPart = section("Where it is, and why", "why", this.why);
    this.past = el("ol", { class: "tries" });
    this.head = el("pre", { tabindex: 0, "aria-label": "Header" });
    this.headPart = show(section("Header", "header", this.head), false);
    this.does = show(
      buttons(
        ["retry", "hold", "release", "reroute", "bounce", "delete"],
        () => ({ id: what }),
        () => what,
      ),
      false,
    );
    this.node = el(
      "div",
      {},
      el("h1", { class: "id" }, what),
      this.wrong,
      this.does,
      this.facts,
      this.whyPart,
      section("What was tried", "history", this.past),
      this.headPart,
    );
    this.again = () => this.load();
    addEventListener("acted", this.again);
    this.load();
  }

  async load() {
    clearTimeout(this.timer);
    const [why, history] = await Promise.allSettled([
      get("queue/explain", { about: this.id }),
      get("history", { about: this.id }),
    ]);
    if (this.closed) return;
    const rows = why.value?.rows ?? [];
    const parts = history.value?.rows ?? [];
    put(this.wrong, rows.length || parts.length ? "" : (why.reason?.message ?? ""));
    const queued = rows.some((one) => one.expires);
    show(this.does, queued);
    this.explain(rows, queued);
    this.remember(parts, queued);
    if (queued) this.timer = setTimeout(() => this.load(), AGAIN);
    if (queued && session.may === "act" && !this.shown) this.header();
    if (!this.asked && queued) this.look(parts);
  }

  explain(rows, queued) {
    show(this.whyPart, queued);
    const held = rows.filter((one) => one.state === "held").length;
    for (const one of this.does.children) {
      if (one.dataset.verb === "release") show(one, held);
      if (one.dataset.verb === "hold") show(one, held < rows.length);
    }
    const now = Date.now() / 1000;
    replace(this.why, rows, (one) =>
      el(
        "li",
        { "data-state": one.state },
        el("span", { class: "chip", "data-state": one.state }, one.state),
        el("strong", {}, one.recipient),
        el("span", {}, " by ", el("a", { href: address("destination", one.next_hop) }, bare(one.next_hop))),
        el("p", {}, one.reason),
        el(
          "p",
          { class: "more" },
          [
            one.next ? `goes on ${ahead(one.next, now)}` : "",
            one.expires ? `expires ${ahead(one.expires, now)}` : "",
            one.command ? el("code", {}, one.command) : "",
          ]
            .filter(Boolean)
            .flatMap((each, at) => (at ? [" · ", each] : [each])),
        ),
      ),
    );
  }

  remember(parts, queued) {
    const [first] = parts;
    const tries = parts.flatMap((one) => one.attempts);
    if (first) this.envelope(first, queued);
    const begun = first?.accepted
      ? [
          {
            time: first.accepted,
            outcome: "accepted",
            reply: first.client ? `from ${first.client}` : "",
            recipient: first.sender || "<>",
          },
        ]
      : [];
    replace(this.past, [...begun, ...tries], attempt);
    if (!begun.length && !tries.length) this.past.replaceChildren(el("li", { class: "none" }, "Nothing yet."));
  }

  envelope(one, queued) {
    facts(this.facts, [
      ["Sender", one.sender || "<>"],
      ["Accepted", one.accepted ? stamp(one.accepted) : ""],
      ["From", [one.client, one.account && `as ${one.account}`].filter(Boolean).join(" ")],
      ["Size", one.size ? octets(one.size) : ""],
      ["Open", queued ? String(one.open) : "none: it is done"],
      ["Done", one.ended && !one.open ? `${stamp(one.ended)}, after ${seconds(one.ended - one.accepted)}` : ""],
    ]);
  }

  /** What the history has not got: the envelope from the queue. */
  async look(parts) {
    this.asked = true;
    if (parts.length && parts[0].accepted) return;
    try {
      const { rows } = await get("queue/list", { id: this.id, limit: 1 });
      const [one] = rows;
      if (one) this.envelope({ ...one, open: one.deliveries.length }, true);
    } catch {
      // what the history says must do
    }
  }

  async header() {
    this.shown = true;
    try {
      const { rows } = await get("queue/show", { id: this.id });
      const text = rows[0]?.header ?? "";
      put(this.head, text.slice(0, HEADERS));
      show(this.headPart, text);
    } catch {
      show(this.headPart, false);
    }
  }

  update() {}

  close() {
    this.closed = true;
    removeEventListener("acted", this.again);
    clearTimeout(this.timer);
  }
}

/** Anew only where something changed, so that what is selected or focused stays. */
function replace(list, items, make) {
  const known = JSON.stringify(items);
  if (list.known === known || (list.known && list.contains(document.activeElement))) return;
  list.known = known;
  list.replaceChildren(...items.map(make));
}

function attempt(one) {
  const transfer = one.transfer;
  const how = transfer ? [transfer.address, transfer.tls || "plain text", times(transfer)] : [];
  if (one.due) how.push(`again ${clock(one.due)}`);
  if (one.report) how.push(el("a", { href: address("message", one.report) }, `report ${one.report}`));
  return el(
    "li",
    { "data-outcome": one.outcome },
    el("time", { class: "n", datetime: new Date(one.time * 1000).toISOString() }, stamp(one.time)),
    el("span", { class: "chip", "data-state": one.outcome }, one.outcome),
    el(
      "span",
      { class: "who" },
      one.recipient ?? "",
      one.host ? ` at ${one.host}` : "",
      one.attempt > 1 ? `, attempt ${one.attempt}` : "",
    ),
    el("q", {}, one.reply ?? ""),
    el(
      "span",
      { class: "more n" },
      how.filter(Boolean).flatMap((each, at) => (at ? [" · ", each] : [each])),
    ),
  );
}

function times(transfer) {
  const parts = ["connect", "greeting", "handshake", "mail", "data", "dot"].filter((name) => transfer[name]);
  return parts.map((name) => `${name} ${seconds(transfer[name])}`).join(", ");
}
