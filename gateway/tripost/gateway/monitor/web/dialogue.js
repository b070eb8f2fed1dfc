// What is said in live sessions, as it happens, without secrets and without content: the server redacts it.

import { button, el, put } from "./dom.js";
import { exact, stamp } from "./format.js";
import { address } from "./route.js";
import { Link } from "./link.js";
import { query } from "./api.js";

const KEPT = 500; // lines
const SERVICES = ["", "smtp", "submission", "lmtp", "pop3", "delivery"];

export class Dialogue {
  constructor({ conditions }) {
    this.given = conditions;
    this.lines = [];
    this.heardLines = this.lost = 0;
    this.only = "";
    const field = (name, hint) =>
      el("input", { name, value: conditions[name] ?? "", placeholder: hint, autocomplete: "off", spellcheck: "false" });
    const service = el(
      "select",
      { name: "service" },
      SERVICES.map((one) => el("option", { value: one, selected: one === (conditions.service ?? "") }, one || "any")),
    );
    const form = el(
      "form",
      { class: "search" },
      el("label", {}, "Client", field("client", "192.0.2.7 or 192.0.2.0/24")),
      el("label", {}, "Destination", field("destination", "machin.com")),
      el("label", {}, "Service", service),
      el("button", { type: "submit", class: "main" }, "Listen"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.given = Object.fromEntries(new FormData(form));
      history.replaceState(null, "", address("dialogue", "", this.given));
      this.listen();
    });
    this.told = el("span", { role: "status" });
    this.count = el("span", {}); // not told aloud: it changes all the time
    this.onlyPart = el("p", { class: "row" });
    this.list = el("ol", { class: "said", tabindex: 0, "aria-label": "Dialogue, the newest last" });
    this.node = el(
      "div",
      {},
      el("h1", {}, "Dialogue"),
      form,
      el("p", { class: "sentence" }, this.told, " ", this.count),
      this.onlyPart,
      this.list,
    );
    if (Object.keys(conditions).length) this.listen();
    else put(this.told, "Whose sessions? Passwords and content are never shown.");
  }

  listen() {
    this.link?.close();
    this.lines = [];
    this.show("");
    put(this.told, "Listening…");
    this.link = new Link(
      () => `trace?${query(this.given)}`,
      (message) => this.heard(message),
      ({ open, reason }) => put(this.told, open ? "Listening…" : `Not listening. ${reason ?? ""} Trying again.`),
    );
  }

  heard(message) {
    if (message.dropped) this.lost += message.dropped;
    if (message.error) put(this.told, message.error);
    if (message.session === undefined) return;
    this.heardLines++;
    this.lines.push(message);
    if (this.lines.length > KEPT) this.lines.splice(0, this.lines.length - KEPT);
    this.fresh = true;
  }

  /** One session, or with "" all. */
  show(session) {
    this.only = session;
    this.fresh = true;
    this.onlyPart.replaceChildren(
      ...(session === ""
        ? []
        : [`Session ${session} `, button("all sessions", () => this.show(""), { class: "small" })]),
    );
  }

  update() {
    if (!this.link || !this.fresh) return;
    this.fresh = false;
    const lost = this.lost ? `, ${exact(this.lost)} missing` : "";
    if (this.heardLines) put(this.count, `${exact(this.heardLines)} lines${lost}`);
    const shown = this.only === "" ? this.lines : this.lines.filter((one) => one.session === this.only);
    const end = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 40;
    this.list.replaceChildren(...shown.map((one) => this.nodes.get(one) ?? this.remember(one)));
    if (end) this.list.scrollTop = this.list.scrollHeight;
  }

  nodes = new WeakMap();

  remember(one) {
    const who = button(String(one.session), () => this.show(one.session), {
      class: "plain n",
      "aria-label": `Only session ${one.session}`,
    });
    const ways = { "<": "said to us", ">": "said by us", "*": "beside" };
    const node = el(
      "li",
      { "data-way": one.direction },
      el("time", { class: "n" }, stamp(one.time).slice(11)),
      who,
      el("span", { class: "peer" }, `${one.service} ${one.peer}`),
      el(
        "span",
        { class: "way", title: ways[one.direction], "aria-label": ways[one.direction], role: "img" },
        one.direction,
      ),
      el("span", { class: "text" }, one.text),
    );
    this.nodes.set(one, node);
    return node;
  }

  close() {
    this.link?.close();
  }
}
