"""what `tripost top` shows and does, without a terminal or a network

The model has the state as /live tells it, what the person chose (sorting, filter,
selection) and what he is being asked. `key` takes a key, `answered` an answer of
/api/v1; both may give an `Ask`, which the driver puts to the gateway. Pure.

Promise  nothing is done to mail but what was confirmed, and the count was told before.
States   list → filter | duration | confirm | text | help → list; `busy` while an
         answer is waited for.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tripost.gateway import units
from tripost.gateway.top.words import clean

SORTS = ("queued", "rate", "oldest", "state", "name")
BAD = ("down", "suspended", "held")
LONGEST = 200  # characters that may be typed
VERBS = {"h": "hold", "l": "release", "t": "retry"}
SAID = {"hold": "Hold", "release": "Release", "retry": "Try now"}


class Ask(msgspec.Struct, frozen=True):
    """A request; `then`: what its answer is for. `post`: it acts, or counts what would."""

    path: str
    arguments: dict[str, Any]
    then: str
    post: bool = True


class Row(msgspec.Struct, frozen=True):
    """A next hop, as /live or a search tells it."""

    name: str
    state: str
    deliveries: int
    rate: float = 0.0
    recipients: int = 0
    octets: int = 0
    oldest: float = 0.0
    by: str = ""
    wait: float = 0.0
    until: float = 0.0
    failures: int = 0
    ages: list[int] = []
    site: str = ""
    reply: str = ""


class Model:
    """`page`: rows that the list has room for, told by whoever draws it."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self.connected = False
        self.why_not = ""
        self.sort, self.reversed = "queued", False
        self.filter = ""
        self.found: list[Row] | None = None  # beyond what /live shows
        self.selected = ""
        self.first = 0
        self.page = 10
        self.mode = "list"
        self.typed = ""
        self.note, self.bad = "", False
        self.question = ""
        self.lines: list[str] = []
        self.scroll = 0
        self.failures = True
        self.busy = ""
        self.ended = False
        self._next: Ask | None = None
        self._own: dict[str, Any] | None = None  # what was just done, of which /live may not tell yet
        self._rows: list[Row] | None = None

    # --- what the gateway tells ---

    def told(self, state: dict[str, Any]) -> None:
        self.state, self.connected, self.why_not = state, True, ""
        self._rows = None

    def lost(self, why: str) -> None:
        self.connected, self.why_not, self.busy = False, why, ""

    def rows(self) -> list[Row]:
        """Sorted and filtered."""
        if self._rows is None:
            hops: dict[str, dict[str, Any]] = self.state.get("hops", {})
            shown = [_row(name, one) for name, one in hops.items()]
            if self.filter:
                shown = [one for one in shown if fits(self.filter, one)]
                known = {one.name for one in shown}
                shown += [one for one in self.found or [] if one.name not in known]
            self._rows = sorted(shown, key=self._key, reverse=self.reversed)
        return self._rows

    def _key(self, row: Row) -> tuple[Any, ...]:
        match self.sort:
            case "queued":
                return -row.deliveries, row.name
            case "rate":
                return -row.rate, row.name
            case "oldest":
                return -row.oldest, row.name
            case "state":
                return row.state not in BAD, row.state, -row.deliveries, row.name
            case _:
                return (row.name,)

    def again(self) -> Ask | None:
        """What a filter found beyond what /live shows is asked for now and then."""
        return search(self.filter) if self.filter and self.connected and not self.busy else None

    # --- the selection ---

    def window(self) -> list[Row]:
        """The rows that are in sight; the selected one is among them."""
        rows = self.rows()
        at = self._at(rows)
        self.selected = rows[at].name if rows else ""
        self.first = max(0, min(self.first, at, len(rows) - self.page))
        if at >= self.first + self.page:
            self.first = at - self.page + 1
        return rows[self.first : self.first + self.page]

    def _at(self, rows: list[Row]) -> int:
        return next((number for number, row in enumerate(rows) if row.name == self.selected), 0)

    def _move(self, by: int) -> None:
        rows = self.rows()
        if rows:
            self.selected = rows[max(0, min(len(rows) - 1, self._at(rows) + by))].name

    # --- keys ---

    def key(self, key: str) -> Ask | None:
        if key == "interrupt":
            self.ended = True
            return None
        match self.mode:
            case "filter" | "duration":
                return self._type(key)
            case "confirm":
                return self._confirm(key)
            case "text" | "help":
                self._read(key)
                return None
            case _:
                return self._choose(key)

    def _choose(self, key: str) -> Ask | None:
        self.note = ""
        moves = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -self.page, "page-down": self.page}
        moves |= {"home": -1_000_000, "end": 1_000_000}
        if key in moves:
            self._move(moves[key])
        elif key == "q":
            self.ended = True
        elif key in ("?", "f", "s", "o", "/", "escape"):
            self._look(key)
        elif key == "u":
            return self._undo()
        elif key in VERBS or key in ("z", "w", "e", "enter"):
            return self._act(key)
        return None

    def _look(self, key: str) -> None:
        """Keys that change what is seen."""
        self._rows = None
        match key:
            case "?":
                self.mode, self.scroll = "help", 0
            case "f":
                self.failures = not self.failures
            case "s":
                self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
            case "o":
                self.reversed = not self.reversed
            case "/":
                self.mode, self.typed = "filter", self.filter
            case _:
                self.filter, self.found = "", None

    def _act(self, key: str) -> Ask | None:
        hop = self.selected
        if not hop or not self.connected:
            self._say("nothing is selected" if self.connected else "not connected", bad=True)
            return None
        if self.busy:
            return None
        if key == "z":
            self.mode, self.typed = "duration", ""
            return None
        if key == "w":
            return self._ask(Ask("queue/resume", {"what": hop}, f"resume {hop}"))
        if key in VERBS:
            verb = VERBS[key]
            return self._ask(Ask(f"queue/{verb}", {"next_hop": hop, "dry_run": True}, f"count {verb} {hop}"))
        return self._ask(Ask("queue/list", {"next_hop": hop, "limit": 1}, f"first {hop}", post=False))

    def _ask(self, ask: Ask) -> Ask:
        self.busy = ask.then
        return ask

    def _undo(self) -> Ask | None:
        """The newest action that can be taken back."""
        actions: list[dict[str, Any]] = self.state.get("actions", [])
        own, self._own = self._own, None
        told = any(one["action"] == own["action"] for one in actions) if own is not None else True
        one = own if not told else next((one for one in actions if one.get("can_be_undone")), None)
        if one is None:
            self._say("no action can be taken back", bad=True)
            return None
        self._next = Ask("queue/undo", {"action": one["action"]}, "undo")
        self.mode = "confirm"
        self.question = f"Take back {one['verb']} of {one['messages']} messages by {clean(one['who'])}?"
        return None

    def _confirm(self, key: str) -> Ask | None:
        ask, self._next, self.mode = self._next, None, "list"
        if key != "y" or ask is None:
            self._say("nothing was done")
            return None
        return self._ask(ask)

    def _type(self, key: str) -> Ask | None:
        if key == "escape":
            self.mode = "list"
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif key == "enter":
            return self._entered()
        elif len(key) == 1 and len(self.typed) < LONGEST:
            self.typed += key
        return None

    def _entered(self) -> Ask | None:
        typed, mode, self.mode = self.typed.strip(), self.mode, "list"
        if mode == "filter":
            self.filter, self.found, self._rows = typed, None, None
            return search(typed) if typed and self.connected else None
        try:
            seconds = units.duration(typed) if typed else 0.0
        except ValueError as wrong:
            self._say(str(wrong), bad=True)
            return None
        hop = self.selected
        return self._ask(Ask("queue/suspend", {"what": hop, "seconds": seconds}, f"suspend {hop}"))

    def _read(self, key: str) -> None:
        by = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -10, "page-down": 10, " ": 10}.get(key)
        if by is None:
            self.mode = "list"
        else:
            self.scroll = max(0, min(self.scroll + by, max(0, len(self.lines) - 1) if self.mode == "text" else 30))

    def _say(self, text: str, *, bad: bool = False) -> None:
        self.note, self.bad = clean(text), bad

    # --- answers ---

    def answered(self, ask: Ask, rows: list[dict[str, Any]], sums: dict[str, Any]) -> Ask | None:
        """What is asked next, None for nothing."""
        self.busy = ""
        word, _, rest = ask.then.partition(" ")
        match word:
            case "search":
                self.found, self._rows = [_row(one["next_hop"], one) for one in rows], None
            case "count":
                verb, _, hop = rest.partition(" ")
                self._counted(verb, hop, int(sums.get("fit", 0)), int(sums.get("recipients", 0)))
            case "first":
                if rows:
                    return self._ask(Ask("queue/explain", {"about": rows[0]["id"]}, f"explain {rest}", post=False))
                self._say(f"nothing is queued for {rest}")
            case "explain":
                self.lines = [line for one in rows for line in explained(one)]
                self.mode, self.scroll = "text", 0
            case "act":
                verb, _, hop = rest.partition(" ")
                changed, action = sums.get("changed", 0), sums.get("action", "")
                if action:
                    self._own = {"action": action, "verb": verb, "messages": changed, "who": "you"}
                self._say(f"{verb} {hop}: {changed} messages" + ("; u takes it back" if action else ""))
            case "undo":
                self._say(f"taken back: {sums.get('changed', 0)} messages")
            case _:
                self._say(f"{clean(ask.then)}: done" + ("; w resumes" if word == "suspend" else ""))
        return None

    def _counted(self, verb: str, hop: str, messages: int, recipients: int) -> None:
        self._next = Ask(f"queue/{verb}", {"next_hop": hop}, f"act {verb} {hop}")
        self.mode = "confirm"
        self.question = f"{SAID[verb]} {messages:,} messages ({recipients:,} recipients) for {clean(hop)}?"

    def refused(self, ask: Ask, status: int, why: str) -> None:
        self.busy = ""
        if status in (401, 403):
            why = f"{why}: acting needs the token of [monitor] token_file (--token-file)"
        self._say(why, bad=True)


def _row(name: str, one: dict[str, Any]) -> Row:
    return Row(name, **{field: one[field] for field in Row.__struct_fields__[1:] if field in one})


def fits(pattern: str, row: Row) -> bool:
    """A part of its name, site, state or last reply; every word."""
    text = f"{row.name}\n{row.site}\n{row.state}\n{row.by}\n{row.reply}".lower()
    return all(word in text for word in pattern.lower().split())


def search(pattern: str) -> Ask:
    return Ask("queue/summary", {"next_hop": f"*{pattern}*", "limit": 100}, "search", post=False)


def explained(why: dict[str, Any]) -> list[str]:
    """One recipient's row of `explain`, for people."""
    head = f"{why['id']}  {why.get('sender') or '<>'} → {why['recipient']}"
    lines = [head, f"  {why['state']}: {why['reason']}"]
    if why.get("reply"):
        lines.append(f"  last said: {why['reply']}")
    if why.get("command"):
        lines.append(f"  to change that: {why['command']}")
    return [clean(one) for one in [*lines, ""]]
