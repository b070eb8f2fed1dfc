// What an operator does. Each action first tells how much it would touch (a dry run), asks once, and when it is done
// offers to undo it for as long as that works.

import { announce, button, el, put } from "./dom.js";
import { ahead, exact, plural } from "./format.js";
import { get, post, session } from "./api.js";
import { askToken } from "./login.js";
import { bare } from "./verdict.js";

// verb → what it does, what it did, and what a person should know first
const VERBS = {
  hold: { label: "Hold", did: "Held", says: "They are not tried until they are released, and do not expire." },
  release: { label: "Release", did: "Released", says: "They are tried again when they are due." },
  retry: {
    label: "Retry now",
    did: "Made due",
    says: "What is deferred is due now, and hosts that are down are probed now. This cannot be undone.",
    last: true,
  },
  reroute: {
    label: "Reroute…",
    did: "Rerouted",
    says: "They go another way: smtp://host:port, lmtp://…, mx, local, discard, or config: as is configured.",
    to: "To",
  },
  bounce: { label: "Bounce", did: "Bounced", says: "They end, and their senders get a report.", grave: true },
  delete: { label: "Delete", did: "Deleted", says: "They end, and nobody is told.", grave: true },
};
const SPANS = [
  ["until it is resumed", 0],
  ["15 minutes", 900],
  ["1 hour", 3600],
  ["4 hours", 14400],
  ["1 day", 86400],
];
const SHOWN = 4; // words about what was done that stand at a time

/** Asks for what is needed, then does it: `does(fields)` gives what to tell, or throws. */
function ask({ title, count, says, fields = [], label, grave, does }) {
  if (session.may !== "act") return askToken(() => ask({ title, count, says, fields, label, grave, does }));
  const many = el("p", { class: "many", role: "status" }, "Counting…");
  const wrong = el("p", { class: "wrong", role: "alert" });
  const go = el("button", { type: "submit", class: grave ? "grave" : "main", disabled: true }, label);
  const form = el(
    "form",
    { method: "dialog" },
    el("h2", { id: "asked" }, title),
    many,
    el("p", {}, says),
    fields.map(({ name, text, input }) => el("label", {}, text, Object.assign(input, { name }))),
    wrong,
    el(
      "div",
      { class: "row" },
      go,
      button("Cancel", () => dialog.close()),
    ),
  );
  const dialog = el("dialog", { "aria-labelledby": "asked", onclose: () => dialog.remove() }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    put(wrong, "");
    try {
      await does(Object.fromEntries(new FormData(form)));
      dialog.close();
    } catch (fault) {
      put(wrong, fault.message);
      go.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  counted(count, many, wrong, go);
  return dialog;
}

async function counted(count, many, wrong, go) {
  try {
    put(many, await count());
    go.disabled = false;
    go.focus();
  } catch (fault) {
    put(many, "");
    put(wrong, fault.message);
  }
}

/** `conditions` as the queue commands have them; `about` says whom they mean. */
export function steer(verb, conditions, about) {
  const kind = VERBS[verb];
  const fields = [];
  if (kind.to)
    fields.push({
      name: "to",
      text: kind.to,
      input: el("input", { required: true, autocomplete: "off", spellcheck: "false" }),
    });
  fields.push({ name: "reason", text: "Reason", input: el("input", { autocomplete: "off" }) });
  ask({
    title: `${kind.label.replace("…", "")} ${about}`,
    says: kind.says,
    label: kind.label.replace("…", ""),
    grave: kind.grave,
    fields,
    count: async () => {
      const body = kind.to ? { ...conditions, to: "config" } : conditions;
      const { sum } = await post(`queue/${verb}`, { ...body, dry_run: true });
      const skipped = sum.skipped ? `; ${exact(sum.skipped)} left alone` : "";
      return `${plural(sum.fit, "message")}, ${plural(sum.recipients, "recipient")}${skipped}`;
    },
    does: async (said) => {
      const { sum } = await post(`queue/${verb}`, { ...conditions, ...filled(said) });
      const when = kind.grave && sum.until ? `, for good ${ahead(sum.until, Date.now() / 1000)}` : "";
      const back = kind.last || !sum.action ? null : () => post("queue/undo", { action: sum.action });
      done(`${kind.did} ${plural(sum.changed, "message")}${when}`, back, sum.until);
    },
  });
}

const filled = (said) => Object.fromEntries(Object.entries(said).filter(([, value]) => value));

const named = (kind, what) => (kind === "destination" ? bare(what) : `mail of ${kind} ${what}`);

export function suspend(kind, what) {
  const spans = el(
    "select",
    {},
    SPANS.map(([text, value]) => el("option", { value }, text)),
  );
  ask({
    title: `Suspend ${named(kind, what)}`,
    says: "What waits and what comes stays where it is. It still expires.",
    label: "Suspend",
    fields: [
      { name: "seconds", text: "For", input: spans },
      { name: "reason", text: "Reason", input: el("input", { autocomplete: "off" }) },
    ],
    count: async () => {
      const by = { destination: "next_hop", sender: "sender", account: "account" }[kind];
      if (!by) return "";
      const { sum } = await get("queue/count", { [by]: what });
      return `${plural(sum.messages, "message waits", "messages wait")} there now`;
    },
    does: async ({ seconds, reason }) => {
      await post("queue/suspend", { kind, what, seconds: Number(seconds), reason });
      done(`Suspended ${named(kind, what)}`, () => post("queue/resume", { kind, what }));
    },
  });
}

/** At once: it only lets mail go on, and can be suspended again. */
export function resume(kind, what) {
  if (session.may !== "act") return askToken(() => resume(kind, what));
  return post("queue/resume", { kind, what }).then(
    () => done(`Resumed ${named(kind, what)}`, () => post("queue/suspend", { kind, what, seconds: 0, reason: "" })),
    (fault) => told(fault.message, "bad"),
  );
}

export async function undo(action) {
  if (session.may !== "act") return askToken(() => undo(action));
  try {
    const { sum } = await post("queue/undo", { action });
    return told(`Undone: ${plural(sum.changed, "message")}`);
  } catch (fault) {
    return told(fault.message, "bad");
  }
}

/** Says what was done; `back` undoes it until `until` (wall clock; 0: while it stands there). */
export function done(text, back, until = 0) {
  const note = told(text);
  if (!back) return;
  const again = button("Undo", async () => {
    again.disabled = true;
    try {
      await back();
      told(`Undone: ${text.toLowerCase()}`);
      note.remove();
    } catch (fault) {
      told(fault.message, "bad");
      again.remove();
    }
  });
  note.insertBefore(again, note.lastChild);
  const left = until ? until * 1000 - Date.now() : 0;
  if (left > 0 && left < 2 ** 31) setTimeout(() => again.remove(), left);
}

export function told(text, level = "good") {
  dispatchEvent(new Event("acted")); // whoever shows what may have changed looks again
  const place = document.getElementById("done");
  const note = el("li", { "data-level": level }, el("span", {}, text));
  note.append(button("✕", () => note.remove(), { class: "plain", "aria-label": "Dismiss" }));
  place.append(note);
  while (place.children.length > SHOWN) place.firstChild.remove();
  announce(text);
  if (level === "good")
    setTimeout(
      () => note.matches(":hover, :focus-within") || note.querySelector("button:not(.plain)") || note.remove(),
      8000,
    );
  return note;
}

/** A row of buttons for messages that fit `conditions`. */
export function buttons(verbs, conditions, about) {
  return el(
    "div",
    { class: "row act" },
    verbs.map((verb) =>
      button(VERBS[verb].label, () => steer(verb, conditions(), about()), {
        class: VERBS[verb].grave ? "grave" : "",
        "data-verb": verb,
      }),
    ),
  );
}
