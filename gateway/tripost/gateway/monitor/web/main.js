// The page: a header that says whether what is shown is live, and one view below.

import { announce, button, el, put, set } from "./dom.js";
import { clock, exact, span } from "./format.js";
import { here } from "./route.js";
import { Live } from "./live.js";
import { know, session } from "./api.js";
import { loginPart } from "./login.js";
import { Overview } from "./overview.js";
import { Destination, Destinations } from "./destinations.js";
import { Messages } from "./messages.js";
import { Message } from "./message.js";
import { Events } from "./events.js";
import { Dialogue } from "./dialogue.js";
import { Audit } from "./audit.js";

// view → [its class, the navigation's entry, its title]
const VIEWS = {
  overview: [Overview, "overview", "Overview"],
  destinations: [Destinations, "destinations", "Destinations"],
  destination: [Destination, "destinations", "Destination"],
  messages: [Messages, "messages", "Messages"],
  message: [Message, "messages", "Message"],
  events: [Events, "events", "Events"],
  dialogue: [Dialogue, "dialogue", "Dialogue"],
  actions: [Audit, "actions", "Actions"],
};
const main = document.getElementById("main");
const parts = Object.fromEntries(["host", "pulse", "gateway"].map((id) => [id, document.getElementById(id)]));
const live = new Live();
let view = null;
let shown = "";

function route(event) {
  if (event && location.hash && !location.hash.startsWith("#/")) return; // a link within the page
  const at = here();
  const [kind, entry, title] = VIEWS[at.view] ?? VIEWS.overview;
  shown = title;
  view?.close?.();
  view = new kind(at);
  main.replaceChildren(view.node);
  main.dataset.view = at.view;
  for (const link of document.querySelectorAll("nav a"))
    set(link, "aria-current", link.hash === `#/${entry}` ? "page" : null);
  document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  if (event) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true }); // the keyboard and screen readers begin at the new view
  }
  draw(live);
}

function draw(one) {
  pulse(one);
  if (!one.state) return;
  put(parts.host, one.state.hostname ?? "");
  const up = one.state.up === undefined ? "" : `up ${span(one.state.up + one.age)}`;
  put(parts.gateway, [`tripost ${one.state.version ?? ""}`, up].filter(Boolean).join(" · "));
  document.title = `${shown} · ${one.state.hostname ?? "tripost"}`;
  if (!one.paused) view.update(one);
}

let was = "connecting";

/** Is it live? Old figures look old, and the header says how old they are. */
function pulse(one) {
  let word = "live";
  let text = "Live";
  if (!one.open) {
    const wait = Math.max(0, Math.ceil((one.again - performance.now()) / 1000));
    word = one.state ? "lost" : "connecting";
    text = one.again ? `Reconnecting${wait > 1 ? ` in ${wait} s` : "…"}` : "Connecting…";
    if (one.state) text += ` Data from ${clock(one.state.time)}`;
  } else if (one.stale) {
    word = one.state ? "stale" : "connecting";
    text = one.state ? `No data for ${exact(Math.floor(one.age))} s` : "Connecting…";
  } else if (one.paused) {
    word = "paused";
    text = `Paused at ${clock(one.state.time)}`;
  }
  put(parts.pulse, text);
  document.body.dataset.link = word;
  if (word === was) return;
  if (word === "lost") announce("Connection to the gateway lost; reconnecting. What is shown is old.");
  if (word === "stale") announce("No data from the gateway. What is shown is old.");
  if (word === "live" && was !== "connecting" && was !== "paused") {
    announce(one.restarts > (pulse.restarts ?? 0) ? "Connected again. The gateway was restarted." : "Connected again.");
    know();
  }
  pulse.restarts = one.restarts;
  was = word;
}

const pause = button(
  el("span", {}, "Pause"),
  () => {
    live.paused = !live.paused;
    set(pause, "aria-pressed", String(live.paused));
    put(pause.firstChild, live.paused ? "Go on" : "Pause");
    live.draw();
  },
  { class: "small pause", "aria-pressed": "false" },
);

document.getElementById("tools").append(pause, loginPart());
addEventListener("hashchange", route);
route();
live.listeners.add(draw);
live.lost = know; // a login that has ended looks like a gateway that is gone
let could = true;
session.listeners.add(({ may }) => {
  if (!could && may !== "nothing") live.link.connect();
  could = may !== "nothing";
});
know();
