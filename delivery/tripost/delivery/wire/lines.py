"""lines that end in CRLF and in nothing else

Cuts a stream of octets into lines. A bare LF or a bare CR is never a line end
(RFC 5321 §2.3.8): it is told as such, and what the caller does then is its
policy.

Promise  memory is bounded by `limit`; each octet is looked at once.
"""

from __future__ import annotations

import enum
import re

CR, LF = 13, 10
_NEWLINE = re.compile(rb"[\r\n]")


class Trouble(enum.Enum):
    """Why there is no line."""

    TOO_LONG = "line too long"
    BARE_NEWLINE = "bare CR or LF"


class LineReader:
    """Feed octets, take lines without their CRLF. `limit` counts a line with its CRLF."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._data = bytearray()
        self._looked = 0  # octets at the front in which no line ends
        self._skipping = False  # in a line that is too long

    def feed(self, data: bytes) -> None:
        self._data += data

    def next(self) -> bytes | Trouble | None:
        """A line; a trouble, with its octets gone; None for more octets. A line too long is told at its end."""
        data = self._data
        found = _NEWLINE.search(data, self._looked)
        if found is None:
            self._looked = len(data)
            if len(data) > self.limit:
                self._skipping = True
                self._drop(len(data))
            return None
        at = found.start()
        if data[at] == CR and at + 1 == len(data):
            self._looked = at
            return None
        if data[at] != CR or data[at + 1] != LF:
            self._drop(at + 1)
            return Trouble.BARE_NEWLINE
        line = bytes(data[:at])
        self._drop(at + 2)
        if self._skipping or at + 2 > self.limit:
            self._skipping = False
            return Trouble.TOO_LONG
        return line

    def _drop(self, count: int) -> None:
        del self._data[:count]
        self._looked = 0

    def take(self) -> bytes:
        """All octets that are not yet part of a line; the reader is empty then."""
        rest = bytes(self._data)
        self._drop(len(rest))
        return rest

    def __len__(self) -> int:
        return len(self._data)
