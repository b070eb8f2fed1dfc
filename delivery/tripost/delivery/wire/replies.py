"""SMTP replies, written and read

RFC 5321 §4.2: three digits, lines, the last one with a space; RFC 2034 and
3463: the enhanced code behind them.

Fails    `ReplyError` for what is no reply, or one without end.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

LINE_LIMIT = 4096  # RFC 5321 says 512; real servers say more
LINES_LIMIT = 128
SHORT = 200  # octets of a line that may be remembered
TEXT_LIMIT = 480  # characters of text that we put on one line
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")


class ReplyError(Exception):
    """The peer speaks something else."""


class Reply(msgspec.Struct, frozen=True):
    """`lines` are without code; `enhanced` is "" where there is none."""

    code: int
    enhanced: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.lines)

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)

    def encode(self) -> bytes:
        """The octets on the wire; the enhanced code is on each line (RFC 2034 §4).

        Whatever the text holds, they are a reply: ASCII, without control characters, no line over 512 octets
        (RFC 5321 §4.5.3.1.5)."""
        mark = f"{self.enhanced} " if self.enhanced else ""
        lines = self.lines
        if len(lines) == 1 and len(lines[0]) <= TEXT_LIMIT and lines[0].isascii() and lines[0].isprintable():
            return f"{self.code} {mark}{lines[0]}\r\n".encode("ascii")
        parts = [part for line in lines for part in _fold(line)]
        last = len(parts) - 1
        rows = [f"{self.code}{' ' if n == last else '-'}{mark}{part}\r\n" for n, part in enumerate(parts)]
        return "".join(rows).encode("ascii")


def reply(code: int, enhanced: str, *lines: str) -> Reply:
    return Reply(code, enhanced, lines)


def _fold(line: str) -> list[str]:
    safe = "".join([one if " " <= one <= "~" else "?" for one in line])
    return [safe[at : at + TEXT_LIMIT] for at in range(0, len(safe), TEXT_LIMIT)] or [""]


class ReplyReader:
    """Feed octets, take whole replies."""

    def __init__(self) -> None:
        self._data = b""
        self._lines: list[str] = []
        self._code = b""

    def feed(self, data: bytes) -> None:
        self._data += data

    @property
    def pending(self) -> bool:
        """Octets came that are not taken as a reply yet."""
        return bool(self._data or self._lines)

    def next(self) -> Reply | None:
        """A reply, or None for more octets. Raises ReplyError."""
        while True:
            line, found, rest = self._data.partition(b"\n")
            if not found:
                if len(self._data) > LINE_LIMIT:
                    raise ReplyError("a reply line is too long")
                return None
            self._data = rest
            line = line.removesuffix(b"\r")
            if not self._lines and len(line) <= SHORT and (whole := _alone(line)) is not None:
                return whole
            if self._take(line):
                made = _make(int(self._code), self._lines)
                self._lines, self._code = [], b""
                return made

    def _take(self, line: bytes) -> bool:
        """Note one line; True when it is its reply's last."""
        match = _LINE.fullmatch(line)
        if match is None or len(line) > LINE_LIMIT:
            raise ReplyError(f"no SMTP reply: {_printable(line[:60])}")
        if self._code and match[1] != self._code:
            raise ReplyError("the lines of a reply differ in their codes")
        if len(self._lines) >= LINES_LIMIT:
            raise ReplyError("a reply has too many lines")
        self._code = match[1]
        self._lines.append(_printable(match[3] or b""))
        return match[2] != b"-"


@lru_cache(256)
def _alone(line: bytes) -> Reply | None:
    """The reply of one line, which hosts say over and over; None for anything else."""
    match = _LINE.fullmatch(line)
    if match is None or match[2] == b"-":
        return None
    return _make(int(match[1]), [_printable(match[3] or b"")])


def _make(code: int, lines: list[str]) -> Reply:
    first = _ENHANCED.match(lines[0])
    if first is None or first[1][0] != str(code)[0]:
        return Reply(code, "", tuple(lines))
    mark = first[1]
    if len(lines) == 1:
        return Reply(code, mark, (lines[0][len(mark) :].lstrip(" "),))
    return Reply(code, mark, tuple(line.removeprefix(mark).lstrip(" ") for line in lines))


def _printable(data: bytes) -> str:
    """Peers' text goes into logs and reports: nothing in it may act."""
    text = data.decode("utf-8", "replace")
    return text if text.isprintable() else "".join([one if one.isprintable() else "?" for one in text])
