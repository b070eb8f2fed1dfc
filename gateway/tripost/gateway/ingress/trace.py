"""our Received line, and how many others there are

RFC 5321 §4.4 (trace information) and §6.3 (loops are found by counting it).
"""

from __future__ import annotations

import re
from email.utils import formatdate

_RECEIVED = re.compile(rb"\r\nreceived:", re.IGNORECASE)
_SAFE = re.compile(r"[^A-Za-z0-9.:\[\]_-]")


def received_line(*, helo: str, client: str, hostname: str, extended: bool, id: str, now: float) -> bytes:
    """Folded, with its CRLF; `now` in wall-clock seconds."""
    literal = f"IPv6:{client}" if ":" in client else client
    date = formatdate(now).replace("-0000", "+0000")
    protocol = "ESMTP" if extended else "SMTP"
    name = _SAFE.sub("?", helo)
    return f"Received: from {name} ([{literal}])\r\n\tby {hostname} with {protocol} id {id};\r\n\t{date}\r\n".encode()


class HopCounter:
    """Feed content; `hops` is the number of Received lines in its header."""

    def __init__(self) -> None:
        self._tail = b"\r\n"
        self._over = False
        self.hops = 0

    def feed(self, content: bytes) -> None:
        if self._over:
            return
        data = self._tail + content
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            self._over = True
            data = data[: end + 2]
        self.hops += len(_RECEIVED.findall(data))
        self._tail = data[-10:]  # one octet less than what is looked for: nothing is counted twice
