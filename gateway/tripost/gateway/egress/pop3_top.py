"""what TOP sends of a message: its header, the empty line, and so many lines of the body (RFC 1939 §7)"""

from __future__ import annotations


class Top:
    """Content in, in whatever pieces; the part that is sent out. `over` when that was all."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._tail = b"\r\n"  # a message may begin with the empty line
        self._in_body = False
        self.over = False

    def feed(self, content: bytes) -> bytes:
        at = 0
        if not self._in_body:
            at = self._header(content)
            if at < 0:
                return content
        while self._lines > 0:
            end = content.find(b"\n", at)
            if end < 0:
                return content
            at = end + 1
            self._lines -= 1
        self.over = True
        return content[:at]

    def _header(self, content: bytes) -> int:
        """Where the body begins in this piece, -1 when not in it."""
        whole = self._tail + content
        found = whole.find(b"\r\n\r\n")
        if found < 0:
            self._tail = whole[-3:]
            return -1
        self._in_body = True
        return found + 4 - len(self._tail)
