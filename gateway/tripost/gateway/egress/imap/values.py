"""what IMAP's commands say, once they are read

One frozen value per kind of command. `Impossible` is for what is well formed and
cannot be.
"""

from __future__ import annotations

import msgspec

from tripost.gateway.egress.imap.fetch_items import Item
from tripost.gateway.egress.imap.search_keys import Key
from tripost.gateway.egress.imap.sets import NumberSet
from tripost.gateway.egress.imap.utf7 import BadName, check_name, read_name

SYSTEM_FLAGS = ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")


class Impossible(Exception):
    """To be answered with NO and this, which may begin with a response code."""


class Nothing(msgspec.Struct, frozen=True):
    """No arguments."""


class Words(msgspec.Struct, frozen=True):
    words: tuple[str, ...]


class Login(msgspec.Struct, frozen=True):
    user: str
    password: str


class Authenticate(msgspec.Struct, frozen=True):
    mechanism: str
    initial: str | None


class Mailbox(msgspec.Struct, frozen=True):
    """`octets`: as it was written; what it means depends on the session (`utf7.read_name`)."""

    octets: bytes


class Rename(msgspec.Struct, frozen=True):
    old: bytes
    new: bytes


class Select(msgspec.Struct, frozen=True):
    """`known`: QRESYNC's UIDVALIDITY, mod-sequence, UIDs and (sequence numbers, UIDs) that match."""

    octets: bytes
    condstore: bool = False
    known: tuple[int, int, NumberSet | None, tuple[NumberSet, NumberSet] | None] | None = None


class Listing(msgspec.Struct, frozen=True):
    reference: bytes
    patterns: tuple[bytes, ...]
    select: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    status: tuple[str, ...] = ()
    extended: bool = False


class Status(msgspec.Struct, frozen=True):
    octets: bytes
    items: tuple[str, ...]


class NewMessage(msgspec.Struct, frozen=True):
    """`literal`: the number of the streamed literal; `date` in seconds since 1970, None for now."""

    literal: int
    flags: tuple[str, ...] = ()
    date: int | None = None
    utf8: bool = False


class Append(msgspec.Struct, frozen=True):
    octets: bytes
    messages: tuple[NewMessage, ...]
    replaced: int = 0  # REPLACE: the message's number or UID


class Search(msgspec.Struct, frozen=True):
    """`returns` None: the old answer; else MIN, MAX, COUNT, ALL, SAVE."""

    key: Key
    returns: frozenset[str] | None = None


class Sort(msgspec.Struct, frozen=True):
    """`order`: (key, reversed)."""

    order: tuple[tuple[str, bool], ...]
    key: Key


class Thread(msgspec.Struct, frozen=True):
    algorithm: str
    key: Key


class Fetch(msgspec.Struct, frozen=True):
    set: NumberSet
    items: tuple[Item, ...]
    since: int | None = None
    vanished: bool = False


class Store(msgspec.Struct, frozen=True):
    """`how` is "", "+" or "-"."""

    set: NumberSet
    how: str
    silent: bool
    flags: tuple[str, ...]
    unchanged_since: int | None = None


class Copy(msgspec.Struct, frozen=True):
    set: NumberSet
    octets: bytes


class Set(msgspec.Struct, frozen=True):
    set: NumberSet


Arguments = (
    Nothing | Words | Login | Authenticate | Mailbox | Rename | Select | Listing | Status | Append | Search | Sort
    | Thread | Fetch | Store | Copy | Set
)  # fmt: skip


def name_of(octets: bytes, *, utf8: bool = False) -> str:
    """The mailbox that a client means. Raises Impossible."""
    try:
        return check_name(read_name(octets, utf8=utf8))
    except BadName as wrong:
        raise Impossible(f"[CANNOT] {wrong}") from None
