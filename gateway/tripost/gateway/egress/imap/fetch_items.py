"""what FETCH asks for

Limits   `MOST_ITEMS` items, `MOST_PATH` numbers in a section, `MOST_FIELDS` header fields.
Source   RFC 9051 §6.4.5, RFC 3516 (BINARY), RFC 8970 (PREVIEW), RFC 8474 (EMAILID, THREADID), RFC 7162 (MODSEQ).
"""

from __future__ import annotations

import re

import msgspec

from tripost.gateway.egress.imap.cursor import Bad, Cursor

MOST_ITEMS = 100
MOST_PATH = 30
MOST_FIELDS = 200
_SIMPLE = frozenset(
    {"FLAGS", "UID", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODYSTRUCTURE", "BODY"}
    | {"MODSEQ", "EMAILID", "THREADID", "PREVIEW"}
)
_OLD = {"RFC822": ("", False), "RFC822.HEADER": ("HEADER", True), "RFC822.TEXT": ("TEXT", False)}
_MACROS = {
    "FAST": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    "ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"),
    "FULL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"),
}
_NAME = re.compile(rb"[A-Za-z0-9.]+")
_PATH = re.compile(rb"([1-9][0-9]{0,8}(?:\.[1-9][0-9]{0,8})*)(\.)?")
_PARTIAL = re.compile(rb"<([0-9]{1,19})\.([0-9]{1,19})>")


class Item(msgspec.Struct, frozen=True):
    """One thing to be told. `name`: FLAGS, ENVELOPE …; or BODY[], BINARY[], BINARY.SIZE[] of the section `path` and
    `part` ("", HEADER, HEADER.FIELDS, HEADER.FIELDS.NOT, TEXT, MIME) with `fields`; `label` is what it is called in
    the answer; `first` and `count` are a partial's. `peek`: it does not set \\Seen."""

    name: str
    label: bytes
    path: tuple[int, ...] = ()
    part: str = ""
    fields: tuple[bytes, ...] = ()
    first: int = 0
    count: int = -1
    peek: bool = True

    @property
    def content(self) -> bool:
        """Is it of the message's text, not of what is known about it?"""
        return self.name.endswith("]")


def simple(name: str) -> Item:
    return Item(name, name.encode())


def read_items(cursor: Cursor) -> tuple[Item, ...]:
    """A macro, an item, or a list of items. Raises Bad."""
    if not cursor.take(b"("):
        start = cursor.at
        found = cursor.match(_NAME)
        if found is not None and found[0].decode().upper() in _MACROS:
            return tuple(simple(name) for name in _MACROS[found[0].decode().upper()])
        cursor.at = start
        return (_item(cursor),)
    items = [_item(cursor)]
    while not cursor.take(b")"):
        cursor.space()
        items.append(_item(cursor))
        if len(items) > MOST_ITEMS:
            raise Bad(f"more than {MOST_ITEMS} items")
    return tuple(items)


def _item(cursor: Cursor) -> Item:
    found = cursor.match(_NAME)
    if found is None:
        raise Bad("expected an item to fetch")
    name = found[0].decode().upper()
    if cursor.peek() == b"[" and name in ("BODY", "BODY.PEEK", "BINARY", "BINARY.PEEK", "BINARY.SIZE"):
        return _section(cursor, name)
    if name == "PREVIEW" and cursor.take(b" ("):
        cursor.need(b"LAZY)")
        return Item("PREVIEW", b"PREVIEW", part="LAZY")
    if name in _OLD:
        part, peek = _OLD[name]
        return Item("BODY[]", name.encode(), part=part, peek=peek)
    if name not in _SIMPLE:
        raise Bad(f"unknown item {name[:40]}")
    return simple(name)


def _section(cursor: Cursor, name: str) -> Item:
    peek = name.endswith(".PEEK") or name == "BINARY.SIZE"
    name = name.removesuffix(".PEEK")
    cursor.need(b"[")
    start = cursor.at
    path: tuple[int, ...] = ()
    found = cursor.match(_PATH)
    if found is not None:
        path = tuple(int(one) for one in found[1].split(b"."))
        if len(path) > MOST_PATH:
            raise Bad(f"a section of more than {MOST_PATH} levels")
    part = ""
    fields: tuple[bytes, ...] = ()
    if cursor.peek() != b"]":
        if name != "BODY" or (found is not None and not found[2]):
            raise Bad("that section cannot be")
        part, fields = _part(cursor, bool(path))
    elif found is not None and found[2]:
        raise Bad("a section ends in a dot")
    section = cursor.text[start : cursor.at].decode("ascii", "replace").upper() if not fields else ""
    if fields:
        prefix = ".".join(map(str, path)) + ("." if path else "")
        section = f"{prefix}{part} ({' '.join(_shown(one) for one in fields)})"
    cursor.need(b"]")
    first, count, origin = 0, -1, ""
    partial = cursor.match(_PARTIAL) if name != "BINARY.SIZE" else None
    if partial is not None:
        first, count = int(partial[1]), int(partial[2])
        origin = f"<{first}>"
        if not count:
            raise Bad("a partial of no octets")
    label = f"{name}[{section}]{origin}".encode("latin-1", "replace")
    return Item(f"{name}[]", label, path, part, fields, first, count, peek)


def _part(cursor: Cursor, inside: bool) -> tuple[str, tuple[bytes, ...]]:
    found = cursor.match(_NAME)
    part = found[0].decode().upper() if found is not None else ""
    if part in ("HEADER", "TEXT") or (part == "MIME" and inside):
        return part, ()
    if part not in ("HEADER.FIELDS", "HEADER.FIELDS.NOT"):
        raise Bad("that section cannot be")
    cursor.space()
    cursor.need(b"(")
    fields = [cursor.astring()]
    while not cursor.take(b")"):
        cursor.space()
        fields.append(cursor.astring())
        if len(fields) > MOST_FIELDS:
            raise Bad(f"more than {MOST_FIELDS} header fields")
    return part, tuple(fields)


def _shown(field: bytes) -> str:
    """A field's name as it was asked for; what is no atom is quoted."""
    text = field.decode("latin-1")
    if re.fullmatch(r"[A-Za-z0-9!#$&'+,./:;<=>?@^_`|~-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "").replace("\n", "") + '"'
