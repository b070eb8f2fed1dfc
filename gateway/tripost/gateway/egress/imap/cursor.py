"""reading a command's text from left to right: atoms, strings, numbers, lists

What does not fit raises `Bad`, to be answered with BAD. Nothing recurses, and
nothing is read twice.

Source   RFC 9051 §9.
"""

from __future__ import annotations

import re

ATOM = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\\]]+")
ASTRING = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\]+")
LIST_MAILBOX = re.compile(rb"[^\x00-\x20\x7f-\xff(){\"\\]+")
QUOTED = re.compile(rb'"((?:[^"\\\r\n\x00]|\\["\\])*)"')
LITERAL = re.compile(rb"~?\{([0-9]+)\}\r\n")
STREAMED = re.compile(rb"\x00([0-9]+)\x00")
NUMBER = re.compile(rb"[0-9]{1,20}(?![0-9])")
_ESCAPED = re.compile(rb'\\(["\\])')


class Bad(Exception):
    """The command is malformed; the text says how."""


class Cursor:
    """`at` is where reading goes on."""

    def __init__(self, text: bytes, at: int = 0) -> None:
        self.text = text
        self.at = at

    def take(self, octets: bytes) -> bool:
        """Skip these octets, in whatever case, if they are next."""
        end = self.at + len(octets)
        if self.text[self.at : end].upper() != octets:
            return False
        self.at = end
        return True

    def need(self, octets: bytes) -> None:
        if not self.take(octets):
            raise Bad(f"expected {octets.decode()!r} after {self._before()}")

    def space(self) -> None:
        if not self.take(b" "):
            raise Bad(f"expected a space after {self._before()}")

    @property
    def ended(self) -> bool:
        return self.at >= len(self.text)

    def end(self) -> None:
        if not self.ended:
            raise Bad(f"nothing may follow {self._before()}")

    def peek(self) -> bytes:
        return self.text[self.at : self.at + 1]

    def _before(self) -> str:
        return repr(self.text[max(0, self.at - 20) : self.at].decode("ascii", "replace").rpartition("\n")[2])

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def atom(self) -> str:
        found = self.match(ATOM)
        if found is None:
            raise Bad(f"expected a word after {self._before()}")
        return found[0].decode("ascii")

    def keyword(self) -> str:
        return self.atom().upper()

    def number(self, most: int = 0xFFFFFFFF) -> int:
        found = self.match(NUMBER)
        if found is None or int(found[0]) > most:
            raise Bad(f"expected a number after {self._before()}")
        return int(found[0])

    def string(self) -> bytes:
        """Quoted or literal."""
        if self.peek() == b'"':
            found = self.match(QUOTED)
            if found is None:
                raise Bad("a quoted string has no end")
            return _ESCAPED.sub(rb"\1", found[1]) if b"\\" in found[1] else found[1]
        found = self.match(LITERAL)
        if found is None:
            raise Bad(f"expected a string after {self._before()}")
        start = self.at
        self.at = start + int(found[1])
        return self.text[start : self.at]

    def astring(self) -> bytes:
        found = self.match(ASTRING)
        return found[0] if found is not None else self.string()

    def list_mailbox(self) -> bytes:
        found = self.match(LIST_MAILBOX)
        return found[0] if found is not None else self.string()

    def text_string(self) -> str:
        """An astring in UTF-8."""
        return as_text(self.astring())

    def streamed(self) -> int | None:
        """The number of the streamed literal that is next; None when there is none."""
        found = self.match(STREAMED)
        return int(found[1]) if found is not None else None

    def words(self, most: int = 100) -> list[str]:
        """A parenthesised list of words, in upper case; maybe empty."""
        self.need(b"(")
        found: list[str] = []
        while not self.take(b")"):
            if found:
                self.space()
            if len(found) >= most:
                raise Bad(f"more than {most} words in a list")
            found.append(self.keyword())
        return found


def as_text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise Bad("a string is not UTF-8") from None
