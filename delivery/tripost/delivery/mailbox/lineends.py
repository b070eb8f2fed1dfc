"""line ends on their way out of a mailbox

Files that other programs put there end lines in LF, now and then in CR; on the
wire each is CRLF (RFC 5322 §2.3). The size that LIST tells counts that.
"""

from __future__ import annotations

import re

_ANY = re.compile(rb"\r\n|\r|\n")


def wire_ends(content: bytes) -> bytes:
    """A whole content at once; the same as `WireEnds` makes."""
    pairs = content.count(b"\r\n")
    if content.count(b"\n") == pairs and content.count(b"\r") == pairs:
        return content
    return _ANY.sub(b"\r\n", content)


class WireEnds:
    """Octets as they are in the file in, octets for the wire out."""

    def __init__(self) -> None:
        self._held = b""  # a CR whose LF may come

    def feed(self, data: bytes) -> bytes:
        if self._held:
            data, self._held = self._held + data, b""
        if data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        return wire_ends(data)

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return b"\r\n" if held else b""
