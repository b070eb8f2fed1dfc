"""how IMAP writes what there is: strings, ENVELOPE, BODYSTRUCTURE, dates, ids

Octets in, octets out. What cannot be in a quoted string becomes a literal, so
that the octets of a header reach the client as they are.

Source   RFC 9051 §7.5.2, §9.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

from tripost.delivery.mime.addresses import Address, addresses
from tripost.delivery.mime.fields import Fields, disposition, first, languages
from tripost.delivery.mime.structure import Part
from tripost.gateway.egress.imap.search_keys import MONTHS

MOST_QUOTED = 1000
NIL = b"NIL"
_UNQUOTED = bytes([0, 10, 13, *range(128, 256)])


def string(octets: bytes) -> bytes:
    """Quoted where it can be."""
    if len(octets) <= MOST_QUOTED and not octets.translate(None, _KEPT):
        if b'"' in octets or b"\\" in octets:
            octets = octets.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        return b'"%b"' % octets
    if b"\0" in octets:
        octets = octets.replace(b"\0", b"")
    return b"{%d}\r\n%b" % (len(octets), octets)


_KEPT = bytes(one for one in range(256) if one not in _UNQUOTED)


def nstring(octets: bytes | None) -> bytes:
    return NIL if octets is None else string(octets)


def quoted_utf8(text: str) -> bytes:
    """A quoted string that may hold UTF-8 (RFC 9051, and RFC 6855 once it is enabled)."""
    return b'"%b"' % text.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8", "replace")


def astring(text: str) -> bytes:
    """A mailbox name or the like; ASCII."""
    return string(text.encode("ascii", "replace"))


def internal_date(seconds: float) -> bytes:
    """In UTC."""
    there = time.gmtime(max(0.0, min(seconds, 253_402_300_799.0)))
    day, month = there.tm_mday, MONTHS[there.tm_mon - 1]
    return b'"%2d-%b-%04d %02d:%02d:%02d +0000"' % (
        day,
        month.encode(),
        there.tm_year,
        there.tm_hour,
        there.tm_min,
        there.tm_sec,
    )


def email_id(origin: str) -> bytes:
    """RFC 8474: the same for all copies of a message."""
    return b"M" + hashlib.sha256(origin.encode("utf-8", "surrogateescape")).hexdigest()[:24].encode()


# --- ENVELOPE ---


def _address(one: Address) -> bytes:
    return b"(%b %b %b %b)" % (nstring(one.name), nstring(one.route), nstring(one.mailbox), nstring(one.host))


def _addresses(fields: Fields, name: bytes) -> bytes:
    values = [value for one, value in fields if one == name]
    found = [one for value in values for one in addresses(value.replace(b"\r\n", b""))]
    return b"(%b)" % b"".join(map(_address, found)) if found else NIL


def envelope(fields: Fields) -> bytes:
    sender = _addresses(fields, b"from")
    parts = [nstring(first(fields, b"date")), nstring(first(fields, b"subject")), sender]
    for name in (b"sender", b"reply-to"):
        found = _addresses(fields, name)
        parts.append(sender if found == NIL else found)
    parts += [_addresses(fields, name) for name in (b"to", b"cc", b"bcc")]
    parts += [nstring(first(fields, name)) for name in (b"in-reply-to", b"message-id")]
    return b"(%b)" % b" ".join(parts)


# --- BODY, BODYSTRUCTURE ---


def _parameters(found: Sequence[tuple[bytes, bytes]]) -> bytes:
    if not found:
        return NIL
    return b"(%b)" % b" ".join(b"%b %b" % (string(name.upper()), string(value)) for name, value in found)


def _extension(part: Part) -> bytes:
    """Disposition, language, location."""
    value = first(part.fields, b"content-disposition")
    kind, parameters = disposition(value) if value is not None else (b"", [])
    shown = b"(%b %b)" % (string(kind), _parameters(parameters)) if kind else NIL
    spoken = languages(first(part.fields, b"content-language") or b"")
    tongue = NIL if not spoken else string(spoken[0]) if len(spoken) == 1 else b"(%b)" % b" ".join(map(string, spoken))
    return b" %b %b %b" % (shown, tongue, nstring(first(part.fields, b"content-location")))


def body_structure(message: bytes, part: Part, *, extended: bool) -> bytes:
    """BODYSTRUCTURE, or BODY where not `extended`."""
    if part.multipart:
        inside = b"".join(body_structure(message, one, extended=extended) for one in part.parts)
        more = b" %b%b" % (_parameters(part.parameters), _extension(part)) if extended else b""
        return b"(%b %b%b)" % (inside, string(part.subtype.upper()), more)
    fields = part.fields
    content = message[part.body : part.end]
    encoding = first(fields, b"content-transfer-encoding") or b"7BIT"
    found = [
        string(part.kind.upper()),
        string(part.subtype.upper()),
        _parameters(part.parameters),
        nstring(first(fields, b"content-id")),
        nstring(first(fields, b"content-description")),
        string(encoding.upper()),
        b"%d" % len(content),
    ]
    if part.message:
        inner = part.parts[0]
        found += [envelope(inner.fields), body_structure(message, inner, extended=extended)]
    if part.message or part.kind == b"text":
        found.append(b"%d" % content.count(b"\n"))
    more = b" %b%b" % (nstring(first(fields, b"content-md5")), _extension(part)) if extended else b""
    return b"(%b%b)" % (b" ".join(found), more)
