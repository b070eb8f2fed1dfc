// All destinations, however many: the fullest come with /live, others are searched for by name. And one of them.

import { announce, button, el, put, set, show } from "./dom.js";
import { ahead, count, exact, octets, perSecond, plural, span } from "./format.js";
import { Heat, doing, fullest } from "./heat.js";
import { Sites, most, withHops } from "./sites.js";
import { address } from "./route.js";
import { buttons, resume, suspend } from "./actions.js";
import { get } from "./api.js";
import { LIMITS, bare } from "./verdict.js";
import { section } from "./overview.js";
import { MessageTable } from "./messages.js";

const LIMIT = 200; // rows of one search

export class Destinations {
  constructor({ conditions }) {
    this.input = el("input", {
      type: "search",
      name: "like",
      value: conditions.like ?? "",
      placeholder: "part of a name, or *.example",
      autocomplete: "off",
      spellcheck: "false",
    });
    this.told = el("p", { class: "sentence" });
    this.heat = new Heat({ caption: "What waits, by next hop and age" });
    this.sites = new Sites({ caption: "Sites that are spoken to" });
    const form = el(
      "form",
      { class: "search", role: "search" },
      el("label", {}, "Destination", this.input),
      el("button", { type: "submit" }, "Search"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      location.hash = address("destinations", "", { like: this.input.value.trim() });
    });
    this.input.addEventListener("input", () => this.later());
    this.node = el(
      "div",
      {},
      el("h1", {}, "Destinations"),
      form,
      this.told,
      section("Waiting, by age", "waiting", this.heat.node),
      section("Sites", "controllers", this.sites.node),
    );
    this.site = conditions.site ?? "";
    if (this.input.value) this.search();
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.search(), 250);
  }

  async search() {
    const like = this.input.value.trim();
    this.found = null;
    if (!like) return this.live && this.update(this.live);
    const asked = like.includes("*") || like.includes("?") ? like : `*${like}*`;
    this.asked = asked;
    try {
      const { rows, sum } = await get("queue/summary", { next_hop: asked, limit: LIMIT });
      if (this.asked !== asked) return undefined;
      this.found = { rows, sum };
      if (this.live) this.update(this.live);
      announce(this.told.textContent);
    } catch (fault) {
      put(this.told, fault.message);
    }
    return undefined;
  }

  update(live) {
    this.live = live;
    const { state, now } = live;
    const searched = this.input.value.trim();
    if (searched && this.found) {
      const rows = this.found.rows.map(({ next_hop, ...one }) => [next_hop, { ...state.hops?.[next_hop], ...one }]);
      this.heat.update(rows, state.ages, now);
      const fits = this.found.sum.next_hops ?? rows.length;
      put(
        this.told,
        plural(fits, "next hop fits", "next hops fit") +
          (fits > rows.length ? `; the ${exact(rows.length)} fullest` : ""),
      );
    } else if (!searched) {
      const shown = fullest(state.hops).filter(([, one]) => !this.site || one.site === this.site);
      this.heat.update(shown, state.ages, now);
      const of = `${plural(state.hops_total ?? 0, "next hop has", "next hops have")} mail waiting`;
      put(
        this.told,
        this.site
          ? `Next hops of ${this.site}`
          : shown.length < state.hops_total
            ? `${of}; the ${exact(shown.length)} fullest`
            : of,
      );
    }
    const needle = searched.replaceAll("*", "").toLowerCase();
    this.sites.update(
      most(withHops(state.sites, state.hops)).filter(
        ([name]) => (!this.site || name === this.site) && name.toLowerCase().includes(needle),
      ),
      now,
    );
  }
}

export class Destination {
  constructor({ what }) {
    this.name = what;
    this.state = el("span", { class: "chip" });
    this.facts = el("dl", { class: "facts" });
    this.reply = el("q", {});
    this.suspend = button("Suspend", () => suspend("destination", what));
    this.resume = button("Resume", () => resume("destination", what), { class: "main" });
    this.heat = new Heat({ caption: "What waits, by age" });
    this.sites = new Sites({ caption: "Its site" });
    this.table = new MessageTable();
    const does = buttons(
      ["retry", "hold", "release", "reroute", "bounce", "delete"],
      () => ({ next_hop: what }),
      () => `all mail for ${bare(what)}`,
    );
    does.prepend(this.suspend, this.resume);
    this.node = el(
      "div",
      {},
      el("h1", { class: "name" }, bare(what), " ", this.state),
      el(
        "p",
        { class: "sentence" },
        el("a", { href: address("messages", "", { next_hop: what }) }, "its messages"),
        " · ",
        el("a", { href: address("dialogue", "", { destination: what }) }, "its dialogue"),
      ),
      el("p", { class: "why" }, this.reply),
      does,
      this.facts,
      section("Waiting, by age", "waiting", this.heat.node),
      section("Site", "controllers", this.sites.node),
      section("Oldest messages", "messages", this.table.node),
    );
    this.again = () => this.load();
    addEventListener("acted", this.again);
    this.load();
  }

  close() {
    removeEventListener("acted", this.again);
  }

  async load() {
    try {
      const { rows } = await get("queue/summary", { next_hop: this.name, limit: 1 });
      this.found = rows[0];
      const list = await get("queue/list", { next_hop: this.name, limit: 20 });
      this.table.fill(list.rows, list.sum.more ? "and more" : "");
    } catch (fault) {
      this.table.fault(fault);
    }
    if (this.live) this.update(this.live);
  }

  update(live) {
    this.live = live;
    const { state, now } = live;
    const one = state.hops?.[this.name] ?? this.found ?? { state: "ready", deliveries: 0 };
    const said = (state.suspensions ?? []).find((each) => each.kind === "destination" && each.what === this.name);
    const until = said?.until ? `goes on ${ahead(said.until, now)}` : "until it is resumed";
    const suspended = Boolean(said) || one.state === "suspended";
    const [word, kind] = suspended ? ["suspended", "suspended"] : doing(one);
    put(this.state, word);
    set(this.state, "data-state", kind);
    show(this.suspend, !suspended);
    show(this.resume, suspended);
    put(this.reply, one.reply ?? "");
    facts(this.facts, [
      ["Messages", exact(one.deliveries)],
      ["Recipients", one.recipients === undefined ? "" : count(one.recipients)],
      ["Octets", one.octets ? octets(one.octets) : ""],
      ["Oldest", one.oldest ? span(one.oldest) : ""],
      [
        "Next try",
        one.next_due && !suspended ? ahead(one.state === "down" && one.until ? one.until : one.next_due, now) : "",
      ],
      ["In a row failed", one.failures ? exact(one.failures) : ""],
      ["Sent", one.rate === undefined ? "" : `${perSecond(one.rate)}/s`],
      ["Bound by", one.by in LIMITS ? `${LIMITS[one.by] ?? one.by}${one.wait ? `, ${span(one.wait)} more` : ""}` : ""],
      ["Suspended", said ? `${said.reason || "by an operator"}, ${until}` : ""],
      ["Site", one.site ?? ""],
    ]);
    this.heat.update([[this.name, one]], state.ages, now);
    const sites = withHops(state.sites, state.hops);
    this.sites.update(one.site in sites ? [[one.site, sites[one.site]]] : [], now);
  }
}

/** Terms and what they are; those without are left out. */
export function facts(list, pairs) {
  const shown = pairs.filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const text = JSON.stringify(shown.map(([name, value]) => [name, value.textContent ?? value]));
  if (list.text === text) return;
  list.text = text;
  list.replaceChildren(...shown.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}
