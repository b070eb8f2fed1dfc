"""header fields of a message, and what their values mean

Octets as they stand on the wire (CRLF) in. The values that IMAP shows in ENVELOPE
and BODYSTRUCTURE are octets too; `decoded` is text for people and for SEARCH.

Promise  any octets have a result; what it costs is linear in them. Encoded words
         of unknown charsets stay as they are.
Source   RFC 5322 §2.2, RFC 2045 §5.1, RFC 2047, RFC 2231.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import quopri
import re

MOST_PARAMETERS = 100
_FIELD = re.compile(rb"([^\x00-\x20\x7f:]+)[ \t]*:((?:[^\r]|\r(?!\n)|\r\n[ \t])*)(?:\r\n|\Z)")
_LINE = re.compile(rb"[^\r]*(?:\r(?!\n)[^\r]*)*(?:\r\n|\Z)")
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_WORD = re.compile(r"=\?([^?*\s]{1,40})(?:\*[^?\s]*)?\?([bBqQ])\?([^?\s]*)\?=")
_BETWEEN = re.compile(r"(\?=)[ \t\r\n]+(?==\?[^?\s]{1,60}\?[bBqQ]\?)")
_PARAMETER = re.compile(
    rb";[ \t\r\n]*([^\x00-\x20\x7f;=\"()<>@,:\\/\[\]?]+)[ \t]*=[ \t]*"
    rb"(?:\"((?:[^\"\\]|\\.)*)\"?|([^\x00-\x20\x7f;\"]*))[ \t\r\n]*",
    re.S,
)
_COMMENT = re.compile(rb"\([^()]*\)")
_TOKEN = re.compile(rb"[^\x00-\x20\x7f()<>@,;:\\\"/\[\]?=]+")
_ESCAPED = re.compile(rb"\\(.)", re.S)

Fields = list[tuple[bytes, bytes]]  # name in lower case, value as it stands, without its CRLF


def header_end(message: bytes, start: int = 0, end: int | None = None) -> int:
    """Where the body begins: behind the empty line, or at the end."""
    end = len(message) if end is None else end
    if message.startswith(b"\r\n", start, end):
        return start + 2
    at = message.find(b"\r\n\r\n", start, end)
    return end if at < 0 else at + 4


def fields_of(header: bytes) -> Fields:
    """In their order. Lines that are no fields are left out."""
    found: Fields = []
    at = 0
    while at < len(header):
        field = _FIELD.match(header, at)
        if field is not None:
            found.append((field[1].lower(), field[2]))
            at = field.end()
        else:
            line = _LINE.match(header, at)
            at = line.end() if line is not None and line.end() > at else len(header)
    return found


def chosen(header: bytes, names: frozenset[bytes], *, others: bool = False) -> bytes:
    """The fields of these names (in lower case) as they stand, or all `others`, and the empty line."""
    kept: list[bytes] = []
    at = 0
    while at < len(header):
        field = _FIELD.match(header, at)
        if field is None:
            line = _LINE.match(header, at)
            end = line.end() if line is not None and line.end() > at else len(header)
            if others and header[at:end] != b"\r\n":
                kept.append(header[at:end])
        else:
            end = field.end()
            if (field[1].lower() in names) is not others:
                kept.append(header[at:end])
        at = end
    if kept and not kept[-1].endswith(b"\r\n"):
        kept.append(b"\r\n")
    kept.append(b"\r\n")
    return b"".join(kept)


def unfolded(value: bytes) -> bytes:
    """On one line, without the spaces around it, as ENVELOPE shows it."""
    if b"\r\n" in value:
        value = _FOLD.sub(b"", value)
    value = value.strip(b" \t")
    return value.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"") if _dirty(value) else value


def _dirty(value: bytes) -> bool:
    return b"\r" in value or b"\n" in value or b"\0" in value


def as_text(octets: bytes) -> str:
    """UTF-8, or what mostly is meant where it is not."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def decoded(value: bytes) -> str:
    """With its encoded words as text."""
    text = as_text(value)
    if "=?" not in text:
        return text
    return _WORD.sub(_word, _BETWEEN.sub(r"\1", text))


def _word(found: re.Match[str]) -> str:
    charset, kind, content = found[1], found[2].upper(), found[3].encode("utf-8", "surrogateescape")
    try:
        if kind == "B":
            octets = base64.b64decode(content + b"=" * (-len(content) % 4))
        else:
            octets = quopri.decodestring(content, header=True)
        return with_charset(octets, charset)
    except (LookupError, binascii.Error, ValueError):
        return found[0]


def with_charset(octets: bytes, charset: str) -> str:
    """Raises LookupError where it is not known as a charset of text."""
    found = codecs.lookup(charset)
    if not getattr(found, "_is_text_encoding", True):
        raise LookupError(charset)
    return octets.decode(found.name, "replace")


def content_type(value: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """Type and subtype in lower case ("", "" where there is none), and the parameters."""
    value = unfolded(value)
    main = _TOKEN.match(value)
    if main is None:
        return b"", b"", []
    at = main.end()
    while at < len(value) and value[at] in b" \t":
        at += 1
    if value[at : at + 1] != b"/":
        return b"", b"", []
    sub = _TOKEN.match(value, at + 1 + (len(value) - at - 1 - len(value[at + 1 :].lstrip(b" \t"))))
    if sub is None:
        return b"", b"", []
    return main[0].lower(), sub[0].lower(), parameters(value[sub.end() :])


def disposition(value: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Its kind ("" where there is none), and the parameters."""
    value = unfolded(value)
    kind = _TOKEN.match(value)
    return (kind[0], parameters(value[kind.end() :])) if kind is not None else (b"", [])


def parameters(text: bytes) -> list[tuple[bytes, bytes]]:
    """`; name=value` …, names in lower case, as they stand (RFC 2231 is for those who show them)."""
    found: list[tuple[bytes, bytes]] = []
    at = text.find(b";")
    if at < 0:
        return found
    if b"(" in text[:at]:
        text = _COMMENT.sub(b"", text)
        at = text.find(b";")
    while 0 <= at < len(text) and len(found) < MOST_PARAMETERS:
        one = _PARAMETER.match(text, at)
        if one is None:
            at = text.find(b";", at + 1)
            continue
        value = _ESCAPED.sub(rb"\1", one[2]) if one[2] is not None else one[3]
        found.append((one[1].lower(), value))
        at = text.find(b";", one.end())
    return found


def first(fields: Fields, name: bytes) -> bytes | None:
    """The first field of that name, unfolded."""
    for one, value in fields:
        if one == name:
            return unfolded(value)
    return None


def languages(value: bytes) -> list[bytes]:
    return [one.strip() for one in value.split(b",") if one.strip()][:50]
