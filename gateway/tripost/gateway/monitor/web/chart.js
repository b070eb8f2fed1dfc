// One small chart over the last five minutes: a figure that can be read from afar, lines behind it. SVG, so that the
// style sheet colours it, in the dark too. Moments that are missing (a restart, a lost connection) are gaps.

import { el, put, set, svg } from "./dom.js";
import { KEPT } from "./live.js";

const HIGH = 124;
const LOW = 80; // where there is little room
const NARROW = 210;
const TOP = 16; // room for the label of the upper line
const BOTTOM = 14;
const GAP = 5; // seconds without a sample that break a line
const FLOOR = 0.0001; // seconds: what a logarithmic scale shows at least

export class Chart {
  /**
   * `lines`: [{key, label, kind}], the first is the figure; `text(value)`; `log` for a logarithmic scale; `least`: what
   * the upper end of a linear scale is at least; `unit` behind the figure.
   */
  constructor({ title, lines, text, scaled = text, unit = "", log = false, least = 1 }) {
    Object.assign(this, { title, lines, text, scaled, unit, log, least });
    this.width = 260;
    this.figure = el("strong", { class: "n" }, "–");
    this.values = lines.map(() => el("b", { class: "n" }, "–"));
    this.height = HIGH;
    this.picture = svg("svg", { role: "img" });
    this.readout = el("span", { class: "at", hidden: true });
    this.node = el(
      "figure",
      { class: "chart" },
      el("figcaption", {}, el("span", { class: "title" }, title), this.figure, el("span", { class: "unit" }, unit)),
      this.picture,
      this.legend(),
    );
    this.draw();
    new ResizeObserver(([entry]) => {
      this.width = Math.max(120, Math.round(entry.contentRect.width));
      this.height = this.width < NARROW ? LOW : HIGH;
      this.update(this.samples ?? [], this.now ?? 0);
    }).observe(this.picture);
    this.picture.addEventListener("pointermove", (event) => this.point(event));
    this.picture.addEventListener("pointerleave", () => this.point(null));
  }

  legend() {
    const items = this.lines.map((line, at) =>
      el("li", {}, el("i", { class: `key ${line.kind}` }), line.label, " ", this.values[at]),
    );
    return el("ul", { class: "legend" }, items, el("li", { class: "when" }, this.readout));
  }

  draw() {
    this.grid = [0, 1].map(() => [svg("line", { class: "grid" }), svg("text", { class: "scale" })]);
    this.paths = this.lines.map((line) => svg("path", { class: `line ${line.kind}` }));
    this.area = svg("path", { class: `area ${this.lines[0].kind}` });
    this.from = svg("text", { class: "scale", x: 0 });
    this.to = svg("text", { class: "scale end" });
    this.cross = svg("line", { class: "cross", y1: TOP, visibility: "hidden" });
    const lines = this.grid.map(([line]) => line);
    const texts = this.grid.map(([, text]) => text);
    this.picture.append(...lines, this.area, ...this.paths, this.cross, ...texts, this.from, this.to);
    put(this.from, "−5 min");
    put(this.to, "now");
  }

  /** `samples`: rows with `time`, the newest last; `now`: the right edge. */
  update(samples, now) {
    this.samples = samples;
    this.now = now;
    set(this.picture, "viewBox", `0 0 ${this.width} ${this.height}`);
    set(this.picture, "height", this.height);
    for (const text of [this.from, this.to]) set(text, "y", this.height - 2);
    set(this.cross, "y2", this.height - BOTTOM);
    set(this.to, "x", this.width);
    this.scale();
    this.lines.forEach((line, at) => set(this.paths[at], "d", this.quiet(line) ? "" : this.path(line.key, false)));
    set(this.area, "d", this.path(this.lines[0].key, true));
    this.tell(samples.at(-1));
    if (this.pointed !== undefined) this.point({ offsetX: this.pointed });
  }

  /** Nothing went wrong: then there is no line of alarm at the bottom either. */
  quiet({ kind, key }) {
    return (kind === "bad" || kind === "warn") && !this.samples.some((one) => one[key]);
  }

  tell(sample) {
    const values = this.lines.map((line) => sample?.[line.key]);
    put(this.figure, this.worded(values[0]));
    values.forEach((value, at) => put(this.values[at], this.worded(value)));
    if (Math.floor(this.now / 10) === this.told) return; // what is read aloud need not change every second
    this.told = Math.floor(this.now / 10);
    const words = this.lines.map((line, at) => `${line.label} ${this.worded(values[at])}${this.unit}`);
    const seen = this.samples.map((one) => one[this.lines[0].key]).filter((one) => one !== null && one !== undefined);
    const most = seen.length ? `; at most ${this.text(Math.max(...seen))}${this.unit} in five minutes` : "";
    set(this.picture, "aria-label", `${this.title}: ${words.join(", ")}${most}`);
  }

  worded(value) {
    return value === null || value === undefined ? "–" : this.text(value);
  }

  scale() {
    let most = 0;
    let least = Infinity;
    for (const sample of this.samples) {
      for (const { key } of this.lines) {
        const value = sample[key];
        if (value > most) most = value;
        if (value > 0 && value < least) least = value;
      }
    }
    const ticks = this.log ? this.decades(least, most) : this.rounds(most);
    this.grid.forEach(([line, text], at) => {
      const shown = at < ticks.length;
      set(line, "visibility", shown ? null : "hidden");
      set(text, "visibility", shown ? null : "hidden");
      if (!shown) return;
      const y = Math.round(this.y(ticks[at])) + 0.5;
      for (const [name, value] of [
        ["x1", 0],
        ["x2", this.width],
        ["y1", y],
        ["y2", y],
      ])
        set(line, name, value);
      set(text, "x", 0);
      set(text, "y", y - 3);
      put(text, this.scaled(ticks[at]).replace(/\.0+(?=\D|$)/, ""));
    });
  }

  rounds(most) {
    const wanted = Math.max(most, this.least);
    const size = 10 ** Math.floor(Math.log10(wanted));
    this.high = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * size).find((n) => n >= wanted * 0.999);
    return [this.high, this.high / 2];
  }

  decades(least, most) {
    const low = Math.floor(Math.log10(Math.max(FLOOR, Math.min(least, 0.001))));
    const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(most, FLOOR)) - 0.001));
    [this.low, this.high] = [low, high];
    const half = Math.round((high + low) / 2);
    return (half < high && half > low ? [high, half] : [high]).map((one) => 10 ** one);
  }

  x(time) {
    return this.width - ((this.now - time) / KEPT) * this.width;
  }

  y(value) {
    const room = this.height - TOP - BOTTOM;
    const part = this.log
      ? (Math.log10(Math.max(value, FLOOR)) - this.low) / (this.high - this.low)
      : value / this.high;
    return TOP + room * (1 - Math.min(1, Math.max(0, part)));
  }

  path(key, area) {
    const base = this.height - BOTTOM;
    let text = "";
    let last = null;
    for (const sample of this.spread(key)) {
      const { value } = sample;
      const x = this.x(sample.time).toFixed(1);
      const y = this.y(value).toFixed(1);
      if (last && sample.begun - last.time <= GAP) text += `L${x} ${y}`;
      else text += `${area && last ? `L${last.x} ${base}Z` : ""}${area ? `M${x} ${base}L` : "M"}${x} ${y}`;
      last = { time: sample.time, x };
    }
    return area && last ? `${text}L${last.x} ${base}Z` : text;
  }

  /** Means of so many seconds that two pixels have one: what is finer is noise. */
  *spread(key) {
    const step = Math.max(1, Math.round((2 * KEPT) / this.width));
    let slot = null;
    for (const sample of this.samples) {
      const value = sample[key];
      if (value === null || value === undefined || this.now - sample.time > KEPT + 2) continue;
      const number = Math.floor(sample.time / step);
      if (slot?.number === number && sample.time - slot.time <= GAP) {
        slot.sum += value;
        slot.n++;
        slot.time = sample.time;
      } else {
        if (slot) yield { time: slot.time, begun: slot.begun, value: slot.sum / slot.n };
        slot = { number, time: sample.time, begun: sample.time, sum: value, n: 1 };
      }
    }
    if (slot) yield { time: slot.time, begun: slot.begun, value: slot.sum / slot.n };
  }

  /** The moment under the pointer. */
  point(event) {
    this.pointed = event?.offsetX;
    this.readout.hidden = !event;
    set(this.cross, "visibility", event ? null : "hidden");
    if (!event) return this.tell(this.samples?.at(-1));
    const time = this.now - (1 - event.offsetX / this.width) * KEPT;
    const near = this.samples.reduce(
      (best, one) => (Math.abs(one.time - time) < Math.abs((best?.time ?? Infinity) - time) ? one : best),
      null,
    );
    if (!near) return undefined;
    const x = this.x(near.time).toFixed(1);
    set(this.cross, "x1", x);
    set(this.cross, "x2", x);
    put(this.readout, `−${Math.max(0, Math.round(this.now - near.time))} s`);
    this.lines.forEach((line, at) => put(this.values[at], this.worded(near[line.key])));
    return undefined;
  }
}
