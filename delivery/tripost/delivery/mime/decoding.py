"""contents of parts without their transfer encoding, and as text

For BINARY, PREVIEW and for SEARCH BODY and TEXT.

Promise  broken encodings give what can be had of them, never an exception; what
         comes out is no larger than what went in.
Source   RFC 2045 §6.
"""

from __future__ import annotations

import base64
import binascii
import html
import re

from tripost.delivery.mime.fields import first, with_charset
from tripost.delivery.mime.structure import Part

_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")
_TAGS = re.compile(r"<(?:script|style)\b.*?(?:</(?:script|style)\s*>|\Z)|<!--.*?(?:-->|\Z)|<[^<>]*>", re.S | re.I)
_SPACES = re.compile(r"\s+")
PREVIEW = 200  # characters
PREVIEW_OCTETS = 16_384  # of a part that are looked at for it


def encoding_of(part: Part) -> bytes:
    """In lower case; 7bit where nothing is said."""
    return (first(part.fields, b"content-transfer-encoding") or b"7bit").lower().strip()


def without_encoding(content: bytes, encoding: bytes) -> bytes | None:
    """None for an encoding that is not known."""
    if encoding in (b"7bit", b"8bit", b"binary", b""):
        return content
    if encoding == b"base64":
        plain = _NOT_BASE64.sub(b"", content)
        plain = plain[: len(plain) - (len(plain) % 4 == 1)]
        try:
            return base64.b64decode(plain + b"=" * (-len(plain) % 4))
        except binascii.Error:
            return b""
    if encoding == b"quoted-printable":
        return _quoted_printable(content)
    return None


def _quoted_printable(content: bytes) -> bytes:
    """Spaces at the end of a line are not part of it (RFC 2045 §6.7)."""
    lines = content.split(b"\r\n")
    return binascii.a2b_qp(b"\r\n".join([line.rstrip(b" \t") for line in lines]))


def text_of(part: Part, content: bytes) -> str:
    """A text part's content as text; HTML with its marks."""
    plain = without_encoding(content, encoding_of(part))
    if plain is None:
        plain = content
    charset = (part.parameter(b"charset") or b"us-ascii").decode("latin-1").strip("\"' ")
    if charset.lower() in ("us-ascii", "ascii", ""):
        charset = "utf-8"
    try:
        return with_charset(plain, charset)
    except (LookupError, ValueError):
        return plain.decode("latin-1")


def texts(root: Part, message: bytes) -> str:
    """All text parts, one below the other."""
    found: list[str] = []
    todo = [root]
    while todo:
        one = todo.pop()
        if one.parts:
            todo.extend(reversed(one.parts))
        elif one.kind == b"text":
            found.append(text_of(one, message[one.body : one.end]))
    return "\n".join(found)


def preview(root: Part, message: bytes) -> str:
    """The beginning of the first text, for a list of messages (RFC 8970)."""
    todo, fallback = [root], ""
    while todo:
        one = todo.pop()
        if one.parts:
            todo.extend(reversed(one.parts))
            continue
        if one.kind != b"text" or one.subtype not in (b"plain", b"html"):
            continue
        text = text_of(one, message[one.body : min(one.end, one.body + PREVIEW_OCTETS)])
        if one.subtype == b"html":
            fallback = fallback or _shortened(html.unescape(_TAGS.sub(" ", text)))
        elif shown := _shortened(text):
            return shown
    return fallback


def _shortened(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith(">")]
    return _SPACES.sub(" ", " ".join(lines)).strip()[:PREVIEW]
