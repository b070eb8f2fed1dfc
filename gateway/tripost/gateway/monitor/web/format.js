// Numbers, durations and times for people. Figures have few digits and always a unit.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const exact = (n) => whole.format(n ?? 0);

/** 9,999 · 12.3k · 4.56M */
export function count(n) {
  n ??= 0;
  if (n < 10_000) return whole.format(n);
  for (const [size, unit] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (n >= size) return trim(n / size) + unit;
  }
  return whole.format(n);
}

function trim(x) {
  return x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2);
}

/** At most four characters, for narrow cells. */
export function short(n) {
  if (n < 1000) return String(n);
  for (const [size, unit] of [
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (n >= size) return (n / size < 10 ? (Math.floor((n / size) * 10) / 10).toString() : Math.floor(n / size)) + unit;
  }
  return String(n);
}

/** Per second. */
export function perSecond(x) {
  if (!x) return "0";
  return x < 10 && x % 1 ? x.toFixed(1) : count(Math.round(x));
}

export function octets(n) {
  if (n < 1024) return `${n ?? 0} B`;
  for (const [size, unit] of [
    [2 ** 30, "GiB"],
    [2 ** 20, "MiB"],
    [2 ** 10, "KiB"],
  ]) {
    if (n >= size) return `${trim(n / size)} ${unit}`;
  }
  return `${n} B`;
}

/** 0.4 ms · 12 ms · 1.2 s · 75 s · 12 min · 3 h 20 min · 4 d 2 h */
export function seconds(x) {
  if (x === undefined || x === null || Number.isNaN(x)) return "–";
  if (x === 0) return "0\u00a0s";
  if (x < 0.001) return `${(x * 1000).toFixed(2)}\u00a0ms`;
  if (x < 0.01) return `${(x * 1000).toFixed(1)}\u00a0ms`;
  if (x < 1) return `${Math.round(x * 1000)}\u00a0ms`;
  if (x < 10) return `${x % 1 ? x.toFixed(1) : x}\u00a0s`;
  if (x < 120) return `${Math.round(x)}\u00a0s`;
  const minutes = Math.round(x / 60);
  if (minutes < 120) return `${minutes}\u00a0min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours}\u00a0h ${minutes % 60}\u00a0min` : `${hours}\u00a0h`;
  return hours % 24 ? `${Math.floor(hours / 24)}\u00a0d ${hours % 24}\u00a0h` : `${Math.floor(hours / 24)}\u00a0d`;
}

/** In one unit, for scales. */
export function roughly(x) {
  for (const [size, unit] of [
    [86_400, "d"],
    [3600, "h"],
    [60, "min"],
  ]) {
    if (x >= 2 * size) return `${Math.round(x / size)}\u00a0${unit}`;
  }
  return seconds(x);
}

/** In whole seconds or more: for what changes while one looks. */
export const span = (x) => (x < 1 ? "0\u00a0s" : x < 120 ? `${Math.floor(x)}\u00a0s` : seconds(x));

export function ahead(when, now) {
  if (!when) return "never";
  return when - now < 1 ? "now" : `in ${span(when - now)}`;
}

export function ago(when, now) {
  return now - when < 1 ? "now" : `${span(now - when)} ago`;
}

const two = (n) => String(n).padStart(2, "0");

/** 17:30:02, with the day where it is not today's. */
export function clock(when, now = Date.now() / 1000) {
  const at = new Date(when * 1000);
  const text = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return at.toDateString() === new Date(now * 1000).toDateString() ? text : `${day(at)} ${text}`;
}

const day = (at) => `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;

/** Date and time to the millisecond. */
export function stamp(when) {
  const at = new Date(when * 1000);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return `${day(at)} ${time}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** "90", "90s", "5m", "4h", "5d" → seconds; NaN for what is none. */
export function duration(text) {
  const found = /^\s*(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|d)?\s*$/.exec(text);
  if (!found) return NaN;
  return Number(found[1]) * { s: 1, sec: 1, m: 60, min: 60, h: 3600, d: 86400 }[found[2] ?? "s"];
}

/** "50KiB", "1M", "1000" → octets; NaN for what is none. */
export function size(text) {
  const found = /^\s*(\d+(?:\.\d+)?)\s*(B|[KMG](?:i?B)?)?\s*$/i.exec(text);
  if (!found) return NaN;
  return Math.round(
    Number(found[1]) * { B: 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[(found[2] ?? "B")[0].toUpperCase()],
  );
}

export const plural = (n, one, many = `${one}s`) => `${exact(n)} ${n === 1 ? one : many}`;
