// What the gateway does now, as /live tells it: a snapshot, then what changed of it (JSON Merge Patch, RFC 7396). The
// page draws at most twice a second, whatever comes, and not at all while nobody looks.

import { Link } from "./link.js";

export const KEPT = 300; // seconds of figures in the charts
const DRAW = 500; // ms
const STALE = 3; // seconds without a word after which what is shown is called old

/** As RFC 7396 says, into objects without a prototype: names from mail are keys here. */
export function merged(target, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const result = target && typeof target === "object" && !Array.isArray(target) ? target : Object.create(null);
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = merged(result[name], value);
  }
  return result;
}

export class Live {
  constructor() {
    this.state = null; // the last state, or null before the first snapshot
    this.series = [];
    this.heardAt = -Infinity; // performance.now() of the last word
    this.open = false;
    this.again = 0;
    this.restarts = 0;
    this.paused = false;
    this.listeners = new Set();
    this.lost = () => {}; // at each attempt in vain
    this.drawnAt = 0;
    this.link = new Link(
      () => "live",
      (message) => this.heard(message),
      (now) => this.changed(now),
    );
    setInterval(() => this.draw(), 1000); // ages go on while nothing is heard
    document.addEventListener("visibilitychange", () => document.hidden || this.draw());
  }

  heard(message) {
    this.heardAt = performance.now();
    const { kind, sample, series, ...rest } = message;
    if (kind === "snapshot") {
      if (this.state && this.state.boot !== rest.boot) this.restarts++;
      this.state = merged(null, rest);
      this.open = true;
      this.series = rows(series);
    } else if (this.state && message.tick !== this.tick + 1) {
      this.link.connect(); // something was missed: begin anew rather than show what is not so
      return;
    } else if (this.state) {
      this.state = merged(this.state, rest);
      if (sample) this.series.push(plain(sample));
      if (this.series.length > KEPT) this.series.splice(0, this.series.length - KEPT);
    }
    this.tick = message.tick;
    this.soon();
  }

  changed({ open, again }) {
    this.open = false; // until it has told how things are now
    this.again = again;
    if (!open) this.lost();
    this.draw();
  }

  soon() {
    if (this.timer) return;
    const wait = Math.max(0, this.drawnAt + DRAW - performance.now());
    this.timer = setTimeout(() => requestAnimationFrame(() => this.draw()), wait);
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (document.hidden) return;
    this.drawnAt = performance.now();
    for (const each of this.listeners) each(this);
  }

  /** Seconds since the last word. */
  get age() {
    return (performance.now() - this.heardAt) / 1000;
  }

  get stale() {
    return !this.open || this.age > STALE;
  }

  /** The gateway's wall clock, which may not be ours. */
  get now() {
    return this.state ? this.state.time + this.age : Date.now() / 1000;
  }
}

/** A second in which nothing was timed has no latency, not one of 0. */
function plain(sample) {
  for (const name of Object.keys(sample)) if (/_p\d+$/.test(name) && !sample[name]) sample[name] = null;
  return sample;
}

function rows(columns) {
  if (!columns) return [];
  const names = Object.keys(columns);
  return columns.time.map((_, at) => plain(Object.fromEntries(names.map((name) => [name, columns[name][at]]))));
}
