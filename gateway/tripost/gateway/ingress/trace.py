"""the lines of trace that a message gets, and what its header holds already

RFC 5321 §4.4 (Received), §6.3 (loops are found by counting it); with-protocol
types of RFC 3848 and RFC 6531 §4.3; Date and Message-ID for submitted mail,
RFC 6409 §8.
"""

from __future__ import annotations

import re
from email.utils import formatdate
from functools import lru_cache

import msgspec

_FIELD = re.compile(rb"\r\n(received|date|message-id):", re.IGNORECASE)
_TAIL = len(b"\r\nmessage-id:") - 1  # octets kept between two pieces: one less than what is looked for
_UNSAFE = re.compile(r"[^A-Za-z0-9.:\[\]_-]")


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the client when a message comes."""

    helo: str
    client: str  # its address, "" on a Unix socket
    name: str = ""  # as a proxy told (XCLIENT)
    hostname: str
    protocol: str
    tls: str = ""  # version and cipher
    id: str
    recipient: str = ""  # only where there is one (RFC 5321 §7.2: nobody is to learn of others)
    now: float  # wall-clock seconds


def with_protocol(*, lmtp: bool, extended: bool, utf8: bool, secured: bool, authenticated: bool) -> str:
    """The registered name of how it came."""
    name = "LMTP" if lmtp else "SMTP"
    if utf8:
        name = f"UTF8{name}"
    elif not lmtp:
        if not extended:
            return name  # there is none for HELO under TLS
        name = "ESMTP"
    return f"{name}{'S' if secured else ''}{'A' if authenticated else ''}"


def received_line(hop: Hop) -> bytes:
    """Folded, with its CRLF."""
    helo = _UNSAFE.sub("?", hop.helo)
    client = f"IPv6:{hop.client}" if ":" in hop.client else hop.client
    told = f"{_UNSAFE.sub('?', hop.name)} [{client}]" if hop.name else f"[{client}]"
    where = f"from {helo} ({told})" if client else f"from {helo} (Unix socket)"
    tls = f"\r\n\t({hop.tls})" if hop.tls else ""
    given = f"\r\n\tfor <{hop.recipient}>" if hop.recipient else ""
    by = f"by {hop.hostname} with {hop.protocol} id {hop.id}"
    return f"Received: {where}{tls}\r\n\t{by}{given};\r\n\t{date(int(hop.now))}\r\n".encode()


@lru_cache(maxsize=4)
def date(now: int) -> str:
    """RFC 5322 §3.3, in universal time."""
    return formatdate(now).replace("-0000", "+0000")


class HeaderReader:
    """Feed content in pieces that never end between CR and LF; `hops` counts the Received lines of its header."""

    def __init__(self) -> None:
        self._tail = b"\r\n"
        self._date = self._message_id = False
        self.over = False
        self.hops = 0

    def feed(self, content: bytes) -> int:
        """Where in `content` the header's last line ends; -1 where that is not in it."""
        if self.over:
            return -1
        skip = len(self._tail)
        data = self._tail + content
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            self.over = True
            data = data[: end + 2]
        for found in _FIELD.finditer(data):
            if found.end() <= skip:
                continue  # counted with the piece before
            name = found[1].lower()
            self.hops += name == b"received"
            self._date = self._date or name == b"date"
            self._message_id = self._message_id or name == b"message-id"
        self._tail = data[-_TAIL:]
        return max(0, end + 2 - skip) if end >= 0 else -1

    def missing(self, *, id: str, hostname: str, now: float) -> bytes:
        """The fields that are not there (RFC 6409 §8.2, §8.3)."""
        found = b"" if self._date else f"Date: {date(int(now))}\r\n".encode()
        return found if self._message_id else found + f"Message-ID: <{id}@{hostname}>\r\n".encode()
