// One look: what is wrong, in order of how much mail it keeps. Pure: a state in, words out.

import { ahead, perSecond, plural, seconds, span } from "./format.js";

export const LIMITS = {
  dns: "its hosts are being looked for",
  connections: "all connections that it may have are in use",
  feedback: "it refused more connections",
  rate: "its rate is reached",
  connection_rate: "its connection rate is reached",
  max_connections: "all connections of the gateway are in use",
  rest: "it is left alone for a while",
};

const OLD = 600; // seconds of waiting after which a limit is worth a look
const FRESH = 600; // seconds for which trouble is told

const RANK = { bad: 0, warn: 1, note: 2 };

export const bare = (hop) => hop.replace(/^mx:/, "");

/** Of a site's hosts the first, and how many more there are. */
export function first(site) {
  const hosts = site.split(",");
  return hosts.length > 1 ? `${hosts[0]} +${hosts.length - 1}` : site;
}

/** [{level, what, why, more, hop, can}]: `can` names what would help. */
export function concerns(state, now) {
  const found = [];
  if (state.accepting === false) {
    const why = state.reason || "the spool takes no more";
    found.push({ level: "bad", what: "New mail is refused", why, weight: Infinity });
  }
  for (const [hop, one] of Object.entries(state.hops ?? {})) {
    const item = concern(hop, one, state, now);
    if (item) found.push({ ...item, hop, key: hop, weight: one.deliveries });
  }
  for (const one of state.suspensions ?? []) {
    if (one.kind === "destination") continue;
    const more = one.until ? `goes on ${ahead(one.until, now)}` : "until it is resumed";
    const why = one.reason || "by an operator";
    found.push({ level: "note", what: `${one.kind} ${one.what}`, word: "suspended", why, more, pause: one, weight: 0 });
  }
  for (const one of state.trouble ?? []) {
    if (now - one.time > FRESH) continue;
    found.push({
      level: "warn",
      what: `Trouble in ${one.where}`,
      why: one.reason,
      more: `${span(now - one.time)} ago`,
      weight: 1,
    });
  }
  for (const one of found) one.key ??= one.what + one.why;
  return found.sort((a, b) => RANK[a.level] - RANK[b.level] || b.weight - a.weight);
}

/** What was last said, where it was no yes. */
const refusal = (one) => (one.reply?.startsWith("2") ? "" : one.reply);

function concern(hop, one, state, now) {
  const waits = `${plural(one.deliveries, "message")}${one.oldest ? `, the oldest ${span(one.oldest)}` : ""}`;
  if (one.state === "down") {
    const next = one.until || one.next_due ? `tried again ${ahead(one.until || one.next_due, now)}` : "";
    return {
      level: "bad",
      what: bare(hop),
      word: "down",
      why: one.why || one.reply || "it could not be spoken to",
      more: [waits, next],
      can: ["retry", "suspend"],
    };
  }
  if (one.state === "suspended") {
    const said = (state.suspensions ?? []).find((each) => each.kind === "destination" && each.what === hop);
    const until = one.until || said?.until ? `goes on ${ahead(one.until || said.until, now)}` : "until it is resumed";
    return {
      level: "note",
      what: bare(hop),
      word: "suspended",
      why: one.why || said?.reason || "by an operator",
      more: [waits, until],
      can: ["resume"],
    };
  }
  if (one.by === "rest") {
    const wait = one.wait ? `goes on in ${span(one.wait)}` : "";
    return {
      level: "warn",
      what: bare(hop),
      word: "slowed",
      why: refusal(one) || LIMITS.rest,
      more: [waits, wait],
      can: ["retry", "suspend"],
    };
  }
  if (one.by && one.by !== "dns" && one.oldest > OLD) {
    return {
      level: "warn",
      what: bare(hop),
      word: "behind",
      why: LIMITS[one.by] ?? one.by,
      more: [waits],
      can: ["suspend"],
    };
  }
  if (one.oldest > OLD && one.reply && !one.by) {
    return {
      level: "note",
      what: bare(hop),
      word: "deferred",
      why: refusal(one) || "some of it waits for its next try",
      more: [waits],
      can: ["retry", "suspend"],
    };
  }
  return null;
}

/** {level, headline, sentence} */
export function verdict(state, list) {
  const queue = state.queue ?? {};
  const rates = state.rates ?? {};
  const going = `${perSecond(rates.accepted?.s10)}/s in, ${perSecond(out(rates, "s10"))}/s out`;
  const waiting = queue.messages ? `${plural(queue.messages, "message")} in the queue` : "The queue is empty";
  const sentence = `${waiting}. ${going}.`;
  if (state.state && state.state !== "serving") {
    const what = { starting: "The gateway is starting.", draining: "The gateway is stopping." }[state.state];
    return { level: "warn", headline: what ?? `The gateway is ${state.state}.`, sentence };
  }
  if (state.accepting === false) return { level: "bad", headline: "New mail is refused.", sentence };
  const down = list.filter((one) => one.level === "bad" && one.hop);
  if (down.length) {
    const kept = down.reduce((sum, one) => sum + one.weight, 0);
    const headline = `${plural(down.length, "destination is", "destinations are")} down.`;
    return {
      level: "bad",
      headline,
      sentence: `${plural(kept, "message waits", "messages wait")} for that. ${sentence}`,
    };
  }
  const slow = list.filter((one) => one.level === "warn");
  if (slow.length) {
    return { level: "warn", headline: `Mail flows, with ${plural(slow.length, "thing")} to look at.`, sentence };
  }
  if (!rates.accepted?.s10 && !out(rates, "s10")) {
    const headline = queue.messages ? "Nothing is stuck." : "All quiet.";
    return { level: "good", headline, sentence: `${waiting}.` };
  }
  return { level: "good", headline: "Mail flows.", sentence };
}

export function out(rates, span_) {
  return (rates.relayed?.[span_] ?? 0) + (rates.delivered?.[span_] ?? 0);
}

/** The bounds of ages in minutes as headings: {head, from, to} in seconds, `to` 0 for open. */
export function ages(minutes) {
  const bounds = [0, ...minutes];
  return bounds.map((from, at) => {
    const to = bounds[at + 1] ?? 0;
    const words = !from ? `under ${long(to)}` : to ? `${long(from)} to ${long(to)}` : `over ${long(from)}`;
    return { head: from ? brief(from) : `<${brief(to)}`, words, from: from * 60, to: to * 60 };
  });
}

const brief = (minutes) =>
  minutes < 60
    ? `${minutes}m`
    : `${Math.floor(minutes / 60)}h${minutes % 60 ? String(minutes % 60).padStart(2, "0") : ""}`;
const long = (minutes) => seconds(minutes * 60);

/** What binds a site, as a phrase. */
export function bound(one) {
  if (!one.by) return one.deliveries || one.pending ? "" : "nothing";
  const wait = one.wait ? `, ${span(one.wait)} more` : "";
  return `${LIMITS[one.by] ?? one.by}${wait}`;
}
