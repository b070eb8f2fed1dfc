// Who did what to the queue, what is suspended, and the way back.

import { button, el, put, show } from "./dom.js";
import { ahead, clock } from "./format.js";
import { resume, undo } from "./actions.js";
import { get } from "./api.js";
import { done, section } from "./overview.js";

const AGAIN = 3000; // ms

export class Audit {
  constructor() {
    this.wrong = el("p", { class: "wrong", role: "alert" });
    this.rows = el("ol", { class: "audit" });
    this.suspensions = el("ul", { class: "rows" });
    this.suspended = section("Suspended", "suspended", this.suspensions);
    this.node = el(
      "div",
      {},
      el("h1", {}, "Actions"),
      this.wrong,
      this.suspended,
      section("What was done", "did", this.rows),
    );
    this.again = () => this.load();
    addEventListener("acted", this.again);
    this.load();
  }

  async load() {
    clearTimeout(this.timer);
    try {
      const { rows } = await get("queue/audit");
      if (this.closed) return;
      this.fill(rows.reverse());
      put(this.wrong, "");
    } catch (fault) {
      put(this.wrong, fault.message);
    }
    if (!this.closed) this.timer = setTimeout(() => this.load(), AGAIN);
  }

  fill(rows) {
    const known = JSON.stringify(rows);
    if (this.known === known) return;
    this.known = known;
    const none = [el("li", { class: "none" }, "Nothing yet.")];
    this.rows.replaceChildren(...(rows.length ? rows.map((one) => this.row(one)) : none));
  }

  row(one) {
    const filter = Object.entries(one.filter ?? {})
      .map(([name, value]) => `${name} ${value}`)
      .join(", ");
    const back = one.can_be_undone
      ? button("Undo", () => undo(one.action), {
          class: "small act",
          "aria-label": `Undo action ${one.action}`,
        })
      : null;
    const until = one.state === "pending" ? `, for good ${ahead(one.until, Date.now() / 1000)}` : "";
    return el(
      "li",
      { "data-state": one.state },
      el("time", { class: "n" }, clock(one.at)),
      el("span", {}, done(one)),
      el(
        "span",
        { class: "more" },
        [`by ${one.who}`, filter, one.reason && `“${one.reason}”`].filter(Boolean).join(" · "),
      ),
      el("span", { class: "chip", "data-state": one.state }, `${one.state}${until}`),
      back,
    );
  }

  update({ state, now }) {
    const found = state.suspensions ?? [];
    show(this.suspended, found.length);
    const known = JSON.stringify(found) + Math.floor(now / 10);
    if (this.shown === known || this.suspensions.contains(document.activeElement)) return;
    this.shown = known;
    this.suspensions.replaceChildren(
      ...found.map((one) =>
        el(
          "li",
          {},
          el("span", {}, one.kind === "destination" ? one.what : `${one.kind} ${one.what}`),
          el(
            "span",
            { class: "more" },
            [one.reason, one.until ? `until ${clock(one.until, now)}` : "until it is resumed"]
              .filter(Boolean)
              .join(" · "),
          ),
          button("Resume", () => resume(one.kind, one.what), {
            class: "small act",
            "aria-label": `Resume ${one.what}`,
          }),
        ),
      ),
    );
  }

  close() {
    this.closed = true;
    removeEventListener("acted", this.again);
    clearTimeout(this.timer);
  }
}
