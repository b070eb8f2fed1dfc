// One look: is it well, what is stuck and why, how much flows, where does it wait.

import { button, busy, el, keyed, put, set, show } from "./dom.js";
import { ago, count, exact, perSecond, plural, roughly, seconds } from "./format.js";
import { Chart } from "./chart.js";
import { Heat, fullest } from "./heat.js";
import { Sites, most, withHops } from "./sites.js";
import { address } from "./route.js";
import { resume, steer, suspend, undo } from "./actions.js";
import { concerns, verdict } from "./verdict.js";
import { bare } from "./verdict.js";

const NARROW = matchMedia("(max-width: 640px)");
const concernsShown = () => (NARROW.matches ? 3 : 5); // the others are counted
const ROWS = 12;

const CHARTS = [
  {
    title: "Throughput",
    unit: "/s",
    text: perSecond,
    least: 10,
    lines: [
      { key: "out", label: "out", kind: "a" },
      { key: "accepted", label: "in", kind: "b" },
    ],
  },
  { title: "Queue", text: count, least: 10, lines: [{ key: "queued", label: "recipients", kind: "a" }] },
  {
    title: "Turned away",
    unit: "/s",
    text: perSecond,
    least: 1,
    lines: [
      { key: "deferred", label: "deferred", kind: "warn" },
      { key: "failed", label: "failed", kind: "bad" },
    ],
  },
  {
    title: "To accept",
    text: seconds,
    scaled: roughly,
    log: true,
    lines: [
      { key: "accept_p99", label: "p99", kind: "a" },
      { key: "accept_p50", label: "p50", kind: "b" },
    ],
  },
  {
    title: "To deliver",
    text: seconds,
    scaled: roughly,
    log: true,
    lines: [
      { key: "deliver_p99", label: "p99", kind: "a" },
      { key: "deliver_p50", label: "p50", kind: "b" },
    ],
  },
];

export class Overview {
  constructor() {
    this.headline = el("h1", {});
    this.sentence = el("p", { class: "sentence" });
    this.concerns = el("ul", { class: "concerns", "aria-label": "What needs a look" });
    this.rest = el("a", { class: "rest", href: "#/destinations" });
    this.charts = CHARTS.map((one) => new Chart(one));
    this.connections = connections();
    this.heat = new Heat({ caption: "What waits, by next hop and age" });
    this.heatMore = el("a", { href: "#/destinations" });
    this.sites = new Sites({ caption: "Sites that are spoken to" });
    this.sitesMore = el("a", { href: "#/destinations" });
    this.failures = failures();
    this.did = recent();
    this.node = el(
      "div",
      { class: "overview" },
      el(
        "section",
        { class: "verdict", "aria-label": "State" },
        this.headline,
        this.sentence,
        this.concerns,
        this.rest,
      ),
      el(
        "section",
        { class: "charts", "aria-label": "The last five minutes" },
        this.charts.map((one) => one.node),
        this.connections.node,
      ),
      section("Waiting, by age", "waiting", this.heat.node, this.heatMore),
      el(
        "div",
        { class: "side" },
        section("Recent failures", "failures", this.failures.node),
        section("Operators", "did", this.did.node),
      ),
      section("Sites", "controllers", this.sites.node, this.sitesMore),
    );
  }

  update({ state, series, now }) {
    const found = concerns(state, now);
    const { level, headline, sentence } = verdict(state, found);
    set(this.node.firstChild, "data-level", level);
    put(this.headline, headline);
    put(this.sentence, sentence);
    keyed(
      this.concerns,
      found.slice(0, concernsShown()),
      (one) => one.key,
      makeConcern,
      fillConcern,
      busy(this.concerns),
    );
    const more = found.length - concernsShown();
    show(this.concerns, found.length);
    put(show(this.rest, more > 0), `and ${plural(more, "other")}`);
    const rows = series.map((one) => ({ ...one, out: (one.relayed ?? 0) + (one.delivered ?? 0) }));
    for (const chart of this.charts) chart.update(rows, now);
    this.connections.update(state);
    const hops = fullest(state.hops);
    this.heat.update(hops.slice(0, ROWS), state.ages, now);
    put(show(this.heatMore, hops.length > ROWS), `all ${exact(state.hops_total)} next hops`);
    const sites = most(withHops(state.sites, state.hops));
    this.sites.update(sites.slice(0, ROWS), now);
    put(show(this.sitesMore, sites.length > ROWS), `all ${exact(state.sites_total)} sites`);
    this.failures.update(state.failures ?? [], now);
    this.did.update(state.actions ?? [], now);
  }
}

export function section(title, kind, ...inside) {
  const id = `s-${kind}`;
  return el("section", { class: `panel ${kind}`, "aria-labelledby": id }, el("h2", { id }, title), inside);
}

function makeConcern(one) {
  const parts = {
    word: el("span", { class: "chip" }),
    what: one.hop ? el("a", { href: address("destination", one.hop) }) : el("strong", {}),
    why: el("span", { class: "why" }),
    more: el("span", { class: "more n" }),
    does: el("span", { class: "does act" }),
  };
  const node = el("li", {}, parts.word, parts.what, parts.why, parts.more, parts.does);
  node.parts = parts;
  return node;
}

const WORDS = { bad: "stuck", warn: "look", note: "note" };

function fillConcern(node, one) {
  const { parts } = node;
  set(node, "data-level", one.level);
  put(parts.word, one.word ?? WORDS[one.level]);
  set(parts.word, "data-level", one.level);
  put(parts.what, one.what);
  put(parts.why, one.why);
  set(parts.why, "title", one.why);
  put(parts.more, [one.more ?? []].flat().filter(Boolean).join(" · "));
  const can = [...(one.can ?? []), ...(one.pause ? ["unpause"] : [])].join();
  if (node.can === can) return;
  node.can = can;
  const does = {
    retry: () =>
      button("Retry now", () => steer("retry", { next_hop: one.hop }, `mail for ${bare(one.hop)}`), { class: "small" }),
    suspend: () => button("Suspend", () => suspend("destination", one.hop), { class: "small" }),
    resume: () => button("Resume", () => resume("destination", one.hop), { class: "small" }),
    unpause: () => button("Resume", () => resume(one.pause.kind, one.pause.what), { class: "small" }),
  };
  parts.does.replaceChildren(
    ...can
      .split(",")
      .filter(Boolean)
      .map((name) => does[name]()),
  );
}

const OUT = "out, to other hosts";
const SPOKEN = new Set(["smtp", "submission", "lmtp", "pop3"]); // whose dialogue can be listened to

function connections() {
  const figure = el("strong", { class: "n" }, "–");
  const rows = el("ul", { class: "rows" });
  const node = el(
    "figure",
    { class: "chart connections" },
    el("figcaption", {}, el("span", { class: "title" }, "Connections"), figure, el("span", { class: "unit" }, " in")),
    rows,
  );
  const make = ([name]) => {
    const said = SPOKEN.has(name) || name === OUT;
    const href = address("dialogue", "", { service: name === OUT ? "delivery" : name });
    const parts = [el(said ? "a" : "span", said ? { href } : {}), el("b", { class: "n" })];
    return Object.assign(el("li", {}, parts), { parts });
  };
  const fill = (row, [name, n, most]) => {
    put(row.parts[0], name);
    put(row.parts[1], exact(n));
    set(row, "title", most ? `at most ${exact(most)} at a time` : null);
  };
  return {
    node,
    update({ connections: now = {}, clients }) {
      const coming = Object.entries(now.in ?? {}).sort();
      put(figure, exact(coming.reduce((sum, [, n]) => sum + n, 0)));
      keyed(rows, [...coming, [OUT, now.out ?? 0, now.most_out]], ([name]) => name, make, fill);
      set(node, "title", clients ? `${clients.live} watch /live, ${clients.events} read /events` : null);
    },
  };
}

function failures() {
  const rows = el("ul", { class: "rows failures" });
  const none = el("p", { class: "none" }, "None in the last hour.");
  const node = el("div", {}, rows, none);
  const make = () => {
    const parts = {
      n: el("b", { class: "n" }),
      kind: el("a", {}),
      outcome: el("span", { class: "outcome" }),
      last: el("q", {}),
      when: el("span", { class: "when n" }),
    };
    return Object.assign(
      el("li", {}, parts.n, el("span", {}, parts.kind, " ", parts.outcome), parts.when, parts.last),
      { parts },
    );
  };
  const fill = (row, one) => {
    const { parts } = row;
    put(parts.n, count(one.count));
    put(parts.kind, one.class);
    set(parts.kind, "href", address("messages", "", { error: one.class }));
    put(parts.outcome, one.outcome === one.class ? "" : one.outcome);
    set(row, "data-outcome", one.outcome);
    put(parts.last, one.last?.reply ?? "");
    set(parts.last, "title", [one.last?.recipient, one.last?.host].filter(Boolean).join(" at "));
    put(parts.when, one.last ? ago(one.last.time, row.now) : "");
  };
  return {
    node,
    update(found, now) {
      const sorted = [...found].sort((a, b) => b.count - a.count).slice(0, 8);
      keyed(
        rows,
        sorted,
        (one) => `${one.class} ${one.outcome}`,
        make,
        (row, one) => fill(Object.assign(row, { now }), one),
        busy(rows),
      );
      show(none, !sorted.length);
    },
  };
}

function recent() {
  const rows = el("ul", { class: "rows did" });
  const none = el("p", { class: "none" }, "Nothing was done lately.");
  const all = el("a", { href: "#/actions" }, "all actions");
  const make = (one) => {
    const parts = { text: el("span", {}), when: el("span", { class: "when n" }) };
    parts.back = button("Undo", () => undo(one.action), {
      class: "small act",
      "aria-label": `Undo action ${one.action}`,
    });
    return Object.assign(el("li", {}, parts.text, parts.when, parts.back), { parts });
  };
  const fill = (row, one, now) => {
    put(row.parts.text, `${done(one)}, by ${one.who}` + (one.state === "undone" ? " (undone)" : ""));
    set(row.parts.text, "title", one.reason);
    put(row.parts.when, ago(one.at, now));
    row.parts.back.hidden = !one.can_be_undone;
  };
  return {
    node: el("div", {}, rows, none, all),
    update(found, now) {
      keyed(
        rows,
        found.slice(0, 5),
        (one) => one.action,
        make,
        (row, one) => fill(row, one, now),
        busy(rows),
      );
      show(none, !found.length);
      show(all, found.length);
    },
  };
}

const PAST = {
  hold: "Held",
  release: "Released",
  retry: "Retried",
  reroute: "Rerouted",
  priority: "Prioritised",
  bounce: "Bounced",
  delete: "Deleted",
  expire: "Expired",
  undo: "Undid",
};

/** What an action did. */
export function done(one) {
  return `${PAST[one.verb] ?? one.verb} ${plural(one.messages, "message")}`;
}
