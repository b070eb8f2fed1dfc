"""from the model to lines of styled text, for a terminal of a given size. Pure.

The head tells what flows and what is queued, the table next hops, below it the
newest failures by class; the last line is for keys, questions and answers. Wider
terminals get more columns, lower ones no failures.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import msgspec

from tripost.gateway.top.model import BAD, Model, Row
from tripost.gateway.top.words import Line, Span, age, brief, clean, count, fit, fit_line, octets, rate, width

SMALLEST = 40, 8
FAILURES = 6  # lines, with their head
FLOW = 80  # cells, of the figures beside which the bars are
TALL = 18  # lines from which failures are shown
BARS = " ▁▂▃▄▅▆▇█"
KEYS = (
    *(("s", "sort"), ("/", "filter"), ("e", "explain"), ("h", "hold"), ("l", "release"), ("z", "suspend")),
    *(("w", "resume"), ("t", "retry"), ("u", "undo"), ("f", "failures"), ("?", "help"), ("q", "quit")),
)
FEW = tuple(one for one in KEYS if one[1] not in ("release", "retry", "failures"))
HELP = (
    "↑ ↓ PgUp PgDn Home End   choose a next hop (also j and k)",
    "s o                      sort by the next column; the other way round",
    "/                        filter: words of name, site, state or reply; Esc ends it",
    "e or Enter               why its first message is not delivered yet",
    "h                        hold what is queued for it; counted first, then asked",
    "l                        release what is held",
    "t                        try its messages and its hosts now",
    "z                        suspend it: nothing is tried, neither what waits nor what comes",
    "w                        resume it",
    "u                        take back the newest action that can be taken back",
    "f                        failures by class, on or off",
    "q or Ctrl-C              leave",
    "",
    "Looking needs no token on the gateway's own machine; acting needs the token of",
    "[monitor] token_file. A column's head tells by what the table is sorted.",
)


class Column(msgspec.Struct, frozen=True):
    """`sort`: the word of `model.SORTS`; `text(row, now)`."""

    head: str
    cells: int
    text: Callable[[Row, float], str]
    sort: str = ""
    right: bool = True


def _why(row: Row, now: float) -> str:
    wait = row.until - now if row.until > now else row.wait
    word = row.by if row.by != row.state else ""
    return f"{word} {age(wait)}".strip() if wait > 0 else word


STATE = Column("STATE", 9, lambda row, now: row.state, "state", right=False)
QUEUED = Column("QUEUED", 7, lambda row, now: count(row.deliveries), "queued")
RATE = Column("OUT/S", 6, lambda row, now: rate(row.rate) if row.rate else "", "rate")
OLDEST = Column("OLDEST", 7, lambda row, now: age(row.oldest) if row.oldest else "", "oldest")
WHY = Column("WAITS FOR", 15, _why, right=False)
SIZE = Column("OCTETS", 9, lambda row, now: octets(row.octets))
TRIES = Column("FAILED", 6, lambda row, now: str(row.failures) if row.failures else "")
AGES = Column("AGE →", 10, lambda row, now: heat(row.ages), right=False)


def columns(cells: int) -> list[Column]:
    """What fits beside the name and the last reply."""
    if cells < 76:
        return [STATE, QUEUED, RATE]
    if cells < 110:
        return [STATE, QUEUED, RATE, OLDEST, WHY]
    if cells < 150:
        return [STATE, QUEUED, AGES, RATE, OLDEST, WHY]
    return [STATE, QUEUED, AGES, SIZE, RATE, OLDEST, TRIES, WHY]


def heat(ages: list[int]) -> str:
    """Deliveries by age as bars, each against the highest; what is there is seen."""
    top = max(ages, default=0)
    return "".join([BARS[max(1, round(one / top * 8))] if one else "·" for one in ages]) if top else ""


def spark(numbers: list[float], cells: int) -> str:
    """The last ones as bars."""
    some = numbers[-cells:]
    top = max(some, default=0)
    return "".join([BARS[round(one / top * 8)] if top else " " for one in some])


def draw(model: Model, cells: int, lines: int, now: float) -> list[Line]:
    """Exactly `lines` lines, each exactly `cells` wide."""
    if cells < SMALLEST[0] or lines < SMALLEST[1]:
        text = [[Span(f"at least {SMALLEST[0]}×{SMALLEST[1]}", "bad")]]
    else:
        text = _whole(model, cells, lines, now)
    text = [fit_line(line, cells) for line in text[:lines]]
    blank: Line = [Span(" " * cells)]
    return text + [blank] * (lines - len(text))


def _whole(model: Model, cells: int, lines: int, now: float) -> list[Line]:
    head = _head(model, cells, now)
    room = lines - len(head) - 1
    if model.mode in ("text", "help"):
        body = _pages(model, cells, room)
    else:
        below = _failures(model, cells, now) if model.failures and lines >= TALL else []
        model.page = max(1, room - len(below) - 1)
        body = _table(model, cells, now)
        body += [[] for _ in range(room - len(below) - len(body))] + below
    return [*head, *body, _foot(model, cells)]


# --- the head ---


def _head(model: Model, cells: int, now: float) -> list[Line]:
    state = model.state
    title: Line = [Span(" tripost ", "title"), Span(clean(f" {state.get('hostname', '')} {state.get('version', '')} "))]
    if not model.connected:
        title.append(Span(clean(f" {model.why_not or 'connecting'} "), "bad"))
    elif state.get("ready", True):
        title.append(Span(f" {state.get('state', '')} ", "good"))
    else:
        title.append(Span(clean(f" {state.get('state', '')}: {state.get('reason', '')} "), "bad"))
    title.append(Span(f" up {age(state.get('up', 0.0))}", "dim"))
    clock = datetime.datetime.fromtimestamp(now).strftime("%H:%M:%S")
    gap = cells - sum([width(span.text) for span in title]) - len(clock) - 1
    if gap > 0:
        title.append(Span(" " * gap + clock, "dim"))
    if not state:
        return [title]
    return [title, *_flow(state, cells), *_depth(state)]


def _figure(label: str, value: str, style: str = "figure") -> Line:
    return [Span(f" {label} ", "dim"), Span(value, style)]


def _flow(state: dict[str, Any], cells: int) -> list[Line]:
    rates, latency = state["rates"], state["latency"]
    per = {name: one["s1"] for name, one in rates.items()}
    flow: Line = []
    for label, name, style in (
        ("in/s", "accepted", "figure"),
        ("out/s", "relayed", "figure"),
        ("local/s", "delivered", "figure"),
        ("deferred/s", "deferred", "warn"),
        ("failed/s", "failed", "bad"),
    ):
        flow += _figure(label, fit(rate(per[name]), 6), style if per[name] else "dim")
    late: Line = []
    for label, name in (("accept", "accept"), ("deliver", "deliver")):
        one = latency[name]
        figures = " ".join([brief(one[part]) for part in ("p50", "p90", "p99")]) if one["count"] else "-"
        late += _figure(f"{label} p50/90/99", fit(figures, 20))
    series = state.get("series")
    if not series or cells < 110:
        return [flow, late]
    bars = cells - FLOW - 6
    for number, (label, name) in enumerate((("in", "accepted"), ("out", "relayed"))):
        line = flow if number == 0 else late
        line.append(Span(" " * (FLOW - sum([width(span.text) for span in line]))))
        line += [Span(f" {fit(label, 4)}", "dim"), Span(spark(series[name], bars), "chart")]
    return [flow, late]


def _depth(state: dict[str, Any]) -> list[Line]:
    queue, links, states = state["queue"], state["connections"], state.get("states", {})
    depth: Line = []
    for label, value in (
        ("queued", f"{queue['messages']:,} ({queue['queued']:,} recipients) {octets(queue['octets'])}"),
        ("hops", f"{state.get('hops_total', 0):,}"),
        ("connections", f"{sum(links['in'].values()):,} in {links['out']:,} out"),
    ):
        depth += _figure(label, value)
    kinds: Line = []
    for word in ("active", "ready", "deferred", "down", "suspended", "held", "ending"):
        number = states.get(word, 0)
        kinds += _figure(word, count(number), "dim" if not number else "bad" if word in BAD else "figure")
    lost = sum(state.get("dropped", {}).values())
    if lost:
        kinds += _figure("events lost", count(lost), "warn")
    return [depth, kinds]


# --- the table ---


def _table(model: Model, cells: int, now: float) -> list[Line]:
    some = columns(cells)
    taken = sum([one.cells + 1 for one in some])
    name = max(12, min(44, (cells - taken) // 2)) if cells >= 76 else max(8, cells - taken)
    left = cells - taken - name - 1
    arrow = "▲" if model.reversed else "▼"
    head = fit(f"NEXT HOP{arrow if model.sort == 'name' else ''}", name)
    for one in some:
        head += " " + fit(one.head + (arrow if one.sort and one.sort == model.sort else ""), one.cells, one.right)
    if left > 5:
        head += " " + fit("LAST REPLY", left)
    lines: list[Line] = [[Span(fit(head, cells), "head")]]
    for row in model.window():
        lines.append(_row(row, some, name, left, now, chosen=row.name == model.selected))
    if len(lines) == 1:
        fitting = f" that fits {clean(model.filter)!r}" if model.filter else ""
        lines.append([Span(f" nothing is queued{fitting}", "dim")])
    return lines


def _row(row: Row, some: list[Column], name: int, left: int, now: float, *, chosen: bool) -> Line:
    style = "bad" if row.state in BAD else "warn" if row.by else ""
    spans: Line = [Span(fit(clean(row.name), name))]
    for one in some:
        text = f" {fit(clean(one.text(row, now)), one.cells, one.right)}"
        spans.append(Span(text, style if one in (STATE, WHY) else "chart" if one is AGES else ""))
    if left > 5:
        spans.append(Span(f" {fit(clean(row.reply), left)}", "dim"))
    return [Span("".join([one.text for one in spans]), "selected")] if chosen else spans


# --- below it ---


def _failures(model: Model, cells: int, now: float) -> list[Line]:
    found: list[dict[str, Any]] = model.state.get("failures", [])[: FAILURES - 1]
    head = f"{fit('FAILURES, LAST HOUR', 32)} {fit('COUNT', 7, right=True)} {fit('AGO', 7, right=True)}  LAST"
    lines: list[Line] = [[Span(fit(head, cells), "head")]]
    for one in found:
        last = one["last"]
        ago = age(max(0.0, now - last["time"]))
        figures = f"{fit(count(one['count']), 7, right=True)} {fit(ago, 7, right=True)} "
        whom = last.get("host") or last.get("recipient") or ""
        lines.append(
            [
                Span(fit(clean(one["class"]), 20), "bad" if one["outcome"] == "failed" else "warn"),
                Span(f" {fit(one['outcome'], 11)} {figures} "),
                Span(clean(f"{whom}: {last['reply']}"), "dim"),
            ]
        )
    if not found:
        lines.append([Span(" none", "dim")])
    return lines


def _pages(model: Model, cells: int, room: int) -> list[Line]:
    texts = list(HELP) if model.mode == "help" else model.lines or ["nothing to explain"]
    folded = [part for text in texts for part in _folded(text, cells - 2)]
    first = max(0, min(model.scroll, len(folded) - room))
    shown: list[Line] = [[Span(f" {one}")] for one in folded[first : first + room]]
    return shown + [[] for _ in range(room - len(shown))]


def _folded(text: str, cells: int) -> list[str]:
    lines: list[str] = []
    rest = text
    while width(rest) > cells:
        cut = rest[:cells].rfind(" ")
        cut = cut if cut > cells // 2 else cells // (2 if not rest.isascii() else 1)
        lines.append(rest[:cut])
        rest = "    " + rest[cut:].lstrip()
    return [*lines, rest]


def _foot(model: Model, cells: int) -> Line:
    match model.mode:
        case "filter":
            return [Span(" filter: ", "key"), Span(f"{clean(model.typed)}█"), Span("  Enter, or Esc", "dim")]
        case "duration":
            text = f" suspend {clean(model.selected)} for (90s, 2h, 1d; nothing: until it is resumed): "
            return [Span(text, "key"), Span(f"{clean(model.typed)}█")]
        case "confirm":
            return [Span(f" {model.question} ", "warn"), Span(" y ", "key"), Span("yes, any other key: no", "dim")]
        case "text" | "help":
            return [Span(" any key goes back", "dim")]
        case _:
            return _keys(model, cells)


def _keys(model: Model, cells: int) -> Line:
    if model.busy:
        return [Span(f" {clean(model.busy)} …", "dim")]
    if model.note:
        return [Span(f" {model.note}", "bad" if model.bad else "good")]
    line: Line = [Span(f" /{clean(model.filter)} ", "warn")] if model.filter else []
    left = cells - sum([width(one.text) for one in line])
    for key, text in KEYS if left >= sum([len(text) + 3 for _, text in KEYS]) else FEW:
        line += [Span(f" {key}", "key"), Span(f" {text}", "dim")]
    return line
