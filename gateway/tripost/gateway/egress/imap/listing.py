"""which mailboxes LIST and LSUB name, and with which attributes

Names in modified UTF-7, levels apart by ".".

Promise  a pattern costs time in its length and the names', whatever its wildcards.
Source   RFC 9051 §6.3.9, RFC 5258, RFC 6154 (SPECIAL-USE), RFC 3348 (CHILDREN).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tripost.gateway.egress.imap.values import Listing

MOST_PATTERN = 1000
USES = {
    "drafts": "\\Drafts",
    "sent": "\\Sent",
    "sent messages": "\\Sent",
    "sent items": "\\Sent",
    "trash": "\\Trash",
    "deleted messages": "\\Trash",
    "deleted items": "\\Trash",
    "junk": "\\Junk",
    "spam": "\\Junk",
    "archive": "\\Archive",
    "archives": "\\Archive",
}


class Pattern:
    """% is for any text without the separator, * for any text. Raises ValueError when it is too long."""

    def __init__(self, text: str) -> None:
        parts: list[str] = []
        for one in text:
            if one in "%*" and parts and parts[-1] in ("%", "*"):
                parts[-1] = "*" if "*" in (one, parts[-1]) else "%"
            else:
                parts.append(one)
        if len(parts) > MOST_PATTERN:
            raise ValueError("the pattern is too long")
        self._literals: dict[str, int] = {}
        self._star = self._percent = 0
        for at, one in enumerate(parts):
            if one == "*":
                self._star |= 1 << at
            elif one == "%":
                self._percent |= 1 << at
            else:
                self._literals[one] = self._literals.get(one, 0) | 1 << at
        self._wild = self._star | self._percent
        self._end = 1 << len(parts)

    def matches(self, name: str) -> bool:
        """Each bit of `now` is a place in the pattern that may have been reached."""
        now = 1
        now |= (now & self._wild) << 1
        for one in name:
            after = (now & self._literals.get(one, 0)) << 1 | now & self._star
            if one != ".":
                after |= now & self._percent
            now = after | (after & self._wild) << 1
            if not now:
                return False
        return bool(now & self._end)


class Row(msgspec.Struct, frozen=True):
    """One line of an answer. `below`: it is told because of what is below it (CHILDINFO)."""

    name: str
    attributes: tuple[str, ...]
    exists: bool
    below: bool = False


def _parents(name: str) -> Iterable[str]:
    at = name.find(".")
    while at >= 0:
        yield name[:at]
        at = name.find(".", at + 1)


def _matcher(asked: Listing) -> list[Pattern]:
    reference = asked.reference.decode("latin-1")
    found: list[Pattern] = []
    for octets in asked.patterns:
        text = octets.decode("utf-8", "replace")
        whole = reference + text if reference and not text.startswith(".") else text.lstrip(".")
        if whole[:5].upper() == "INBOX" and whole[5:6] in ("", ".", "*", "%"):
            whole = "INBOX" + whole[5:]
        found.append(Pattern(whole))
    return found


def list_rows(asked: Listing, names: Sequence[str], subscribed: Sequence[str]) -> list[Row]:
    """`names` of all that exist but INBOX. Raises ValueError."""
    patterns = _matcher(asked)
    there, wanted = {"INBOX", *names}, set(subscribed)
    parents = {parent for name in there for parent in _parents(name)}
    candidates = wanted if "SUBSCRIBED" in asked.select else there | parents
    found: list[Row] = []
    for name in sorted(candidates, key=lambda one: (one != "INBOX", one)):
        if not any(one.matches(name) for one in patterns):
            continue
        use = use_of(name)
        if "SPECIAL-USE" in asked.select and not use:
            continue
        found.append(Row(name, tuple(_attributes(asked, name, there, parents, wanted, use)), name in there))
    if "RECURSIVEMATCH" in asked.select:
        found = _recursive(asked, found, patterns, there, parents, wanted)
    return found


def _attributes(
    asked: Listing, name: str, there: set[str], parents: set[str], wanted: set[str], use: str
) -> Iterable[str]:
    if name not in there:
        yield "\\NonExistent" if asked.extended else "\\Noselect"
    yield "\\HasChildren" if name in parents else "\\HasNoChildren"
    if name in wanted and ("SUBSCRIBED" in asked.select or "SUBSCRIBED" in asked.returns):
        yield "\\Subscribed"
    if use and name in there:
        yield use


def use_of(name: str) -> str:
    """What a mailbox of that name is for; "" for nothing special."""
    return USES.get(name.removeprefix("INBOX.").lower(), "")


def _recursive(
    asked: Listing, found: list[Row], patterns: list[Pattern], there: set[str], parents: set[str], wanted: set[str]
) -> list[Row]:
    """RFC 5258 §3.5: those too below which something is selected that the patterns do not name."""
    chosen = wanted if "SUBSCRIBED" in asked.select else {name for name in there if use_of(name)}
    named = {row.name: row for row in found}
    for name in sorted(chosen):
        if any(one.matches(name) for one in patterns):
            continue
        for parent in _parents(name):
            if any(one.matches(parent) for one in patterns):
                row = named.get(parent)
                if row is None:
                    use = use_of(parent)
                    attributes = tuple(_attributes(asked, parent, there, parents, wanted, use))
                    row = Row(parent, attributes, parent in there)
                named[parent] = msgspec.structs.replace(row, below=True)
    return [named[name] for name in sorted(named, key=lambda one: (one != "INBOX", one))]


def lsub_rows(asked: Listing, subscribed: Sequence[str]) -> list[Row]:
    """RFC 3501 §6.3.9: what is subscribed; with %, also what is above it. Raises ValueError."""
    patterns = _matcher(asked)
    wanted = set(subscribed)
    percent = any(b"%" in one for one in asked.patterns)
    above = {parent for name in wanted for parent in _parents(name)} - wanted if percent else set[str]()
    found: list[Row] = []
    for name in sorted(wanted | above, key=lambda one: (one != "INBOX", one)):
        if any(one.matches(name) for one in patterns):
            found.append(Row(name, ("\\Noselect",) if name in above else (), True))
    return found
