"""octets in, whole commands out: lines, and the literals inside of them

A literal is announced at the end of a line. Whoever owns the reader decides
what becomes of it (`keep`, `stream`, `refuse`); nothing else is read before.

API      `feed`, then `next` until it gives None:
           Announced(…)  decide
           Data(octets)  of a literal that is streamed; Ended after the last
           Whole(text)   a command: its lines and literals as they came, a streamed
                         literal as the mark NUL number NUL
           Line(text)    while `raw` is set: AUTHENTICATE's lines, IDLE's DONE
           Mistake(…)    no command: to be answered with BAD or NO
Promise  memory is bounded by `limit` and what is fed at once; each octet is looked
         at once; how the octets are cut does not matter. A mistake ends with the
         line, or with the literal that was refused.
Source   RFC 9051 §4.3, RFC 7888 (LITERAL+), RFC 6855 and 3516 (literal8).
"""

from __future__ import annotations

import re

import msgspec

LINE_LIMIT = 65_536  # octets of a command without its literals
COMMAND_LIMIT = 262_144  # and with them
EARLY_LIMIT = 40_960  # either, before the login (ID may have 30 fields of 1,024 octets)
RAW_LIMIT = 12_288
MOST_LITERALS = 1000  # of one command
TAG_ROOM = 80  # octets at a command's beginning that are kept of one that is none
TAIL = 40  # and at its end, where a literal may be announced
_LITERAL = re.compile(rb"(~?)\{([0-9]{1,20})(\+?)\}\Z")
_TAG = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\+]{1,64}(?= |\Z)")


class Announced(msgspec.Struct, frozen=True):
    """`head` is the command so far, without the announcement. `sync`: the client waits for +."""

    head: bytes
    size: int
    sync: bool
    binary: bool


class Data(msgspec.Struct, frozen=True):
    octets: bytes


class Ended(msgspec.Struct, frozen=True):
    """The streamed literal is complete."""


class Whole(msgspec.Struct, frozen=True):
    text: bytes


class Line(msgspec.Struct, frozen=True):
    text: bytes


class Mistake(msgspec.Struct, frozen=True):
    """To be answered with `text`, which begins with BAD or NO; `tag` is "*" where none can be made out."""

    tag: str
    text: str


Event = Announced | Data | Ended | Whole | Line | Mistake


class CommandReader:
    """One connection's octets. `limit`, `line_limit`: of what a command may hold in memory."""

    def __init__(self) -> None:
        self.raw = False
        self.limit = self.line_limit = EARLY_LIMIT
        self._data = bytearray()
        self._looked = 0
        self._asked: Announced | None = None
        self._left = 0  # octets of the literal that is being read
        self._reset()

    def _reset(self) -> None:
        self._text = bytearray()  # the command so far
        self._lines = 0  # octets of its lines
        self._literals = self._streams = 0
        self._state = "line"  # line | keep | stream | skip | long
        self._wrong = ""  # why the command under way is none

    def log_in(self) -> None:
        self.limit, self.line_limit = COMMAND_LIMIT, LINE_LIMIT

    def feed(self, data: bytes) -> None:
        self._data += data

    def __len__(self) -> int:
        """Octets that are held."""
        return len(self._data) + len(self._text)

    def take(self) -> bytes:
        """All that was read and not yet part of a command; the reader is as new."""
        rest = bytes(self._data)
        self._data.clear()
        self._looked, self._asked = 0, None
        self._reset()
        return rest

    def next(self) -> Event | None:
        """None for more octets."""
        while self._asked is None:
            if self._state in ("keep", "stream", "skip"):
                if self._left and not self._data:
                    return None
                event = self._literal()
                if event is not None:
                    return event
            else:
                line = self._line()
                if not isinstance(line, bytes):
                    return line
                event = self._on_line(line)
                if event is not None:
                    return event
        raise AssertionError("a literal waits for its decision")

    # --- lines ---

    def _line(self) -> bytes | Mistake | None:
        data, limit = self._data, RAW_LIMIT if self.raw else self.line_limit
        at = data.find(b"\n", self._looked)
        if at < 0:
            self._looked = len(data)
            if self._state == "long" or self._lines + len(data) > limit + 2:
                self._state = "long"
                self._spoil(f"line longer than {limit} octets")
                self._text += data[:TAG_ROOM] if not self._text else b""
                del data[: max(0, len(data) - TAIL)]
                self._looked = len(data)
            return None
        line = bytes(data[:at])
        del data[: at + 1]
        self._looked = 0
        if not line.endswith(b"\r"):
            self._spoil("bare LF; lines end in CRLF")
            return self._over(line)
        line = line[:-1]
        if len(line) + self._lines > limit:
            self._spoil(f"line longer than {limit} octets")
        if b"\r" in line or b"\0" in line:
            self._spoil("NUL or bare CR")
        if self._wrong and (self.raw or _LITERAL.search(line) is None):
            return self._over(line)
        self._state = "line"
        return line

    def _spoil(self, why: str) -> None:
        self._wrong = self._wrong or f"BAD {why}"

    def _over(self, line: bytes) -> Mistake:
        """The command under way ends here, and is none."""
        found = Mistake(tag_of(bytes(self._text[:TAG_ROOM]) or line[:TAG_ROOM]), self._wrong)
        self._reset()
        return found

    def _on_line(self, line: bytes) -> Event | None:
        if self.raw:
            return Line(line)
        found = _LITERAL.search(line)
        if found is None:
            text = bytes(self._text) + line
            self._reset()
            return Whole(text)
        self._lines += len(line)
        self._literals += 1
        head, size, sync = line[: found.start()], int(found[2]), not found[3]
        if self._literals > MOST_LITERALS:
            self._spoil(f"more than {MOST_LITERALS} literals")
        self._text += head if not self._wrong else line[:TAG_ROOM] if not self._text else b""
        if not self._wrong:
            self._asked = Announced(bytes(self._text), size, sync, bool(found[1]))
            return self._asked
        if sync:  # of a command that is none already: only its end is looked for
            return self._over(b"")
        self._left, self._state = size, "skip"
        return None

    # --- literals ---

    def keep(self) -> None:
        """The literal becomes part of the command."""
        asked = self._decided()
        self._text += b"{%d}\r\n" % asked.size
        self._left, self._state = asked.size, "keep"

    def stream(self) -> None:
        """Its octets come as `Data`."""
        asked = self._decided()
        self._text += b"\0%d\0" % self._streams
        self._streams += 1
        self._left, self._state = asked.size, "stream"

    def refuse(self, why: str) -> Mistake | None:
        """The command is none, because of `why`. What to answer at once, where the client waits; else the literal
        and what follows of the command are dropped, and `next` says it at the end."""
        asked = self._decided()
        self._wrong = why
        if asked.sync:
            return self._over(b"")
        self._left, self._state = asked.size, "skip"
        return None

    def _decided(self) -> Announced:
        asked, self._asked = self._asked, None
        assert asked is not None
        return asked

    def _literal(self) -> Event | None:
        count = min(self._left, len(self._data))
        piece = bytes(self._data[:count])
        del self._data[:count]
        self._looked = 0
        self._left -= count
        state = self._state
        if state == "keep":
            self._text += piece
        if self._left == 0 and not (state == "stream" and piece):
            self._state = "line"
            return Ended() if state == "stream" else None
        return Data(piece) if state == "stream" and piece else None


def tag_of(head: bytes) -> str:
    """The tag of what may be a command, "*" where there is none."""
    found = _TAG.match(head)
    return found[0].decode("ascii") if found is not None else "*"
