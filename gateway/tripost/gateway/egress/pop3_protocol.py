"""the server's side of POP3, without I/O

Lines in, commands out. What the grammar and the state decide is an error text
here; the rest is the session's.

States   AUTHORIZATION → TRANSACTION → UPDATE (RFC 1939 §3).
Source   RFC 1939, 2449 (CAPA), 3206 (response codes).
"""

from __future__ import annotations

import msgspec

from tripost.delivery.wire.lines import LineReader, Trouble

LINE_LIMIT = 512  # RFC 2449 §4 says 255; passwords may be long
NUMBER_DIGITS = 9

# verb → (state it belongs to: a(uthorization), t(ransaction) or both; fewest, most arguments)
_COMMANDS: dict[str, tuple[str, int, int]] = {
    "CAPA": ("at", 0, 0),
    "USER": ("a", 1, 1),
    "PASS": ("a", 1, 1),
    "QUIT": ("at", 0, 0),
    "STAT": ("t", 0, 0),
    "LIST": ("t", 0, 1),
    "RETR": ("t", 1, 1),
    "DELE": ("t", 1, 1),
    "NOOP": ("t", 0, 0),
    "RSET": ("t", 0, 0),
    "UIDL": ("t", 0, 1),
    "TOP": ("t", 2, 2),
}
_NUMBERS = frozenset({"LIST", "RETR", "DELE", "UIDL", "TOP"})
_MULTILINE_CAPA = ("TOP", "UIDL", "USER", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE", "EXPIRE NEVER")


class Command(msgspec.Struct, frozen=True):
    """`text` is the argument of USER and PASS; `numbers` those of the others."""

    verb: str
    text: str = ""
    numbers: tuple[int, ...] = ()


class Mistake(msgspec.Struct, frozen=True):
    """To be answered with -ERR and this."""

    text: str


class Pop3Protocol:
    """One connection."""

    def __init__(self) -> None:
        self._lines = LineReader(LINE_LIMIT)
        self.logged_in = False

    def feed(self, data: bytes) -> None:
        self._lines.feed(data)

    def next(self) -> Command | Mistake | None:
        """None for more octets."""
        line = self._lines.next()
        if line is None:
            return None
        if line is Trouble.TOO_LONG:
            return Mistake(f"line longer than {LINE_LIMIT} octets")
        if isinstance(line, Trouble):
            return Mistake("bare CR or LF; lines end in CRLF")
        return self._parse(line.decode("utf-8", "replace"))

    def _parse(self, line: str) -> Command | Mistake:
        verb, _, rest = line.partition(" ")
        verb = verb.upper()
        known = _COMMANDS.get(verb)
        if known is None:
            return Mistake("unknown command")
        state, fewest, most = known
        if ("t" if self.logged_in else "a") not in state:
            return Mistake(f"{verb} only {'before' if self.logged_in else 'after'} the login")
        if verb in ("USER", "PASS"):  # a password may hold spaces
            return Command(verb, rest) if rest else Mistake(f"{verb} needs an argument")
        words = rest.split()
        if not fewest <= len(words) <= most:
            return Mistake(f"wrong number of arguments for {verb}")
        if verb in _NUMBERS and not all(_is_number(word) for word in words):
            return Mistake("no such message")
        return Command(verb, "", tuple(int(word) for word in words))


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= NUMBER_DIGITS


def capabilities() -> list[str]:
    return list(_MULTILINE_CAPA)


def top(content: bytes, state: list[int]) -> tuple[bytes, bool]:
    """The part of a chunk that TOP sends, and whether that was all.

    `state` is [in body?, lines still to be sent, octets of a CRLFCRLF seen]; begin with [0, lines, 2].
    """
    at = 0
    while at < len(content):
        if not state[0]:
            at, found = _end_of_header(content, at, state)
            if not found:
                return content, False
            state[0] = 1
        if state[1] <= 0:
            return content[:at], True
        end = content.find(b"\n", at)
        if end < 0:
            return content, False
        at = end + 1
        state[1] -= 1
    return content, bool(state[0]) and state[1] <= 0


def _end_of_header(content: bytes, at: int, state: list[int]) -> tuple[int, bool]:
    """Walk on to the empty line; state[2] counts the octets of CRLFCRLF that stand just before `at`."""
    wanted = b"\r\n\r\n"
    while at < len(content):
        if content[at] == wanted[state[2]]:
            state[2] += 1
        else:
            state[2] = 1 if content[at] == wanted[0] else 0
        at += 1
        if state[2] == len(wanted):
            return at, True
    return at, False
