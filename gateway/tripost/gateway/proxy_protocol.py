"""the PROXY header, without I/O

A proxy in front of us says first who its client is: version 1 is one text line,
version 2 is binary.

API      `HeaderReader().feed(octets)` gives None for more, else a `Header`; what came
         behind the header is in `.rest`. Feed `wanted` octets at most to leave it empty.
Promise  At most `LIMIT` octets are looked at. "UNKNOWN", LOCAL and families that
         are not TCP give a header without addresses: the connection counts as the
         proxy's own (its health check).
Fails    `HeaderError` at the first octet that cannot belong to a header.
Source   The PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt).
"""

from __future__ import annotations

import ipaddress

import msgspec

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1_LIMIT = 107
LIMIT = 16 + 4096  # a version 2 header may bring TLVs; more than this no proxy sends


class HeaderError(Exception):
    """This is no PROXY header; the text says why."""


class Header(msgspec.Struct, frozen=True):
    """Whose connection this is; all empty when it is the proxy's own."""

    client: str = ""
    client_port: int = 0
    local: str = ""
    local_port: int = 0


class HeaderReader:
    """One connection's beginning."""

    def __init__(self) -> None:
        self._data = b""
        self.rest = b""

    @property
    def wanted(self) -> int:
        """So many octets may be read without reading beyond the header."""
        have = len(self._data)
        if self._data[:1] != b"\r":
            # version 1 ends in CRLF that nobody can foresee: its shortest line first, then octet by octet
            return max(1, 8 - have)
        if have < 16:
            return 16 - have
        return 16 + int.from_bytes(self._data[14:16], "big") - have

    def feed(self, data: bytes) -> Header | None:
        self._data += data
        if SIGNATURE.startswith(self._data[: len(SIGNATURE)]):
            return self._version_2() if len(self._data) >= 16 else None
        if not b"PROXY ".startswith(self._data[:6]):
            raise HeaderError("no PROXY header")
        line, end, rest = self._data.partition(b"\r\n")
        if len(line) + 2 > V1_LIMIT:
            raise HeaderError("the PROXY line is too long")
        if not end:
            return None
        self.rest = rest
        return _version_1(line)

    def _version_2(self) -> Header | None:
        length = int.from_bytes(self._data[14:16], "big")
        if 16 + length > LIMIT:
            raise HeaderError("the PROXY header is too long")
        kind, family = self._data[12], self._data[13]
        if kind >> 4 != 2 or kind & 15 > 1:
            raise HeaderError("neither PROXY nor LOCAL of version 2")
        if len(self._data) < 16 + length:
            return None
        body, self.rest = self._data[16 : 16 + length], self._data[16 + length :]
        size = {0x11: 4, 0x21: 16}.get(family, 0)
        if not kind & 15 or not size:
            return Header()
        if length < 2 * size + 4:
            raise HeaderError("the PROXY header is too short for its addresses")
        ports = body[2 * size :]
        return Header(
            str(ipaddress.ip_address(body[:size])),
            int.from_bytes(ports[:2], "big"),
            str(ipaddress.ip_address(body[size : 2 * size])),
            int.from_bytes(ports[2:4], "big"),
        )


def _version_1(line: bytes) -> Header:
    words = line.split(b" ")
    if words[1:2] == [b"UNKNOWN"]:
        return Header()
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise HeaderError("expected PROXY TCP4|TCP6 client proxy port port")
    kind = ipaddress.IPv4Address if words[1] == b"TCP4" else ipaddress.IPv6Address
    try:
        client, local = (str(kind(word.decode("ascii"))) for word in words[2:4])
        ports = [int(word) for word in words[4:] if word.isdigit() and (word == b"0" or word[:1] != b"0")]
    except ValueError as wrong:
        raise HeaderError("an address in the PROXY line is malformed") from wrong
    if len(ports) != 2 or max(ports) > 65_535:
        raise HeaderError("a port in the PROXY line is malformed")
    return Header(client, ports[0], local, ports[1])
