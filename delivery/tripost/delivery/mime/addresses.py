"""address lists of header fields, as ENVELOPE has them

    "Fred" <fred@truc.fr>, Team: a@x, b@y;

Promise  any octets have a result, in linear time; at most `MOST` addresses. What is
         no address is left out, or told with an empty part: mail that is broken is
         shown as far as it goes.
Source   RFC 5322 §3.4, with the obsolete routes; RFC 9051 §7.5.2 (groups).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

MOST = 1000
SHORT = 500  # octets of a field whose addresses are remembered
_TOKEN = re.compile(
    rb"([^\x00-\x20()<>@,;:\\\"\[\]]+)"  # 1 an atom, with its dots and whatever 8-bit
    rb"|\"((?:[^\"\\]|\\.)*)(?:\"|\Z)"  # 2 a quoted string
    rb"|(\[(?:[^\[\]\\]|\\.)*(?:\]|\Z))"  # 3 a domain literal
    rb"|([()<>@,;:])"  # 4 specials
    rb"|([\x00-\x20]+)"  # 5 space
    rb"|(.)",  # 6 what should not be
    re.S,
)
_ESCAPED = re.compile(rb"\\(.)", re.S)
_PAREN = re.compile(rb"\\.|[()]", re.S)


class Address(msgspec.Struct, frozen=True):
    """`host` None: a group begins (its name in `mailbox`), or ends (`mailbox` None too)."""

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


class _Reader:
    def __init__(self, text: bytes) -> None:
        self.found: list[Address] = []
        self._text = text
        self._words: list[tuple[bytes, bool]] = []  # (word, a space before it)
        self._space = False
        self._comment = b""
        self._angle: list[bytes] | None = None  # what stands in <>
        self._after_at: bool = False
        self._local: bytes | None = None  # before an @ outside of <>
        self._group = False

    def read(self) -> list[Address]:
        text, at = self._text, 0
        while at < len(text) and len(self.found) < MOST:
            token = _TOKEN.match(text, at)
            assert token is not None
            at = token.end()
            if token[4] == b"(":
                at = self._skip_comment(at)
            elif self._angle is not None:
                self._inside(token)
            else:
                self._outside(token)
        self._finish()
        if self._group:
            self.found.append(Address(None, None, None, None))
        return self.found

    def _skip_comment(self, at: int) -> int:
        depth, start = 1, at
        for found in _PAREN.finditer(self._text, at):
            depth += {b"(": 1, b")": -1}.get(found[0], 0)
            if depth == 0:
                self._comment = self._text[start : found.start()]
                return found.end()
        return len(self._text)

    def _inside(self, token: re.Match[bytes]) -> None:
        assert self._angle is not None
        if token[4] == b">":
            self._close_angle()
        elif token[2] is not None:
            self._angle.append(_ESCAPED.sub(rb"\1", token[2]))
        elif token[5] is None:
            self._angle.append(token[0])

    def _outside(self, token: re.Match[bytes]) -> None:
        if token[1] is not None or token[3] is not None:
            self._words.append((token[0], self._space))
        elif token[2] is not None:
            self._words.append((_ESCAPED.sub(rb"\1", token[2]), self._space))
        elif token[4] == b"<":
            self._angle = []
        elif token[4] == b"@" and self._local is None:
            self._local = b"".join(word for word, _ in self._words)
            self._words = []
        elif token[4] == b",":
            self._finish()
        elif token[4] == b":" and not self._group and self._local is None:
            self._group = True
            self.found.append(Address(None, None, self._phrase() or b"", None))
            self._words = []
        elif token[4] == b";":
            self._finish()
            if self._group:
                self.found.append(Address(None, None, None, None))
            self._group = False
        self._space = token[5] is not None

    def _phrase(self) -> bytes | None:
        words = b"".join(b" " + word if space else word for word, space in self._words).strip()
        return words or None

    def _close_angle(self) -> None:
        inside, self._angle = self._angle or [], None
        route = None
        if b":" in inside and inside[0] == b"@":
            at = inside.index(b":")
            route, inside = b"".join(inside[:at]), inside[at + 1 :]
        local, host = inside, [b""]
        if b"@" in inside:
            at = len(inside) - 1 - inside[::-1].index(b"@")
            local, host = inside[:at], inside[at + 1 :]
        name = self._phrase()
        if inside or name:
            self.found.append(Address(name, route, b"".join(local), b"".join(host)))
        self._forget()

    def _finish(self) -> None:
        """What stands before a comma, without <>."""
        if self._angle is not None:
            self._close_angle()
            return
        rest = b"".join(word for word, _ in self._words)
        if self._local is not None:
            self.found.append(Address(self._comment or None, None, self._local, rest))
        elif rest:
            self.found.append(Address(self._comment or None, None, rest, b""))
        self._forget()

    def _forget(self) -> None:
        self._words, self._local, self._comment, self._space = [], None, b"", False


def addresses(value: bytes) -> Sequence[Address]:
    """Of one field's unfolded value."""
    return _remembered(value) if len(value) <= SHORT else _Reader(value).read()


@lru_cache(maxsize=512)
def _remembered(value: bytes) -> Sequence[Address]:
    """The same few people write most of the mail, and a message is asked for its sender three times."""
    return _Reader(value).read()
