"""how the arguments of IMAP's commands are read: those of no selected mailbox

`Bad` for what is malformed, `Impossible` for what is well formed and cannot be.
"""

from __future__ import annotations

import datetime
import re

from tripost.gateway.egress.imap.arguments_selected import MOST_MODSEQ, flag_list, read_set
from tripost.gateway.egress.imap.cursor import Bad, Cursor
from tripost.gateway.egress.imap.search_keys import MONTHS
from tripost.gateway.egress.imap.sets import NumberSet
from tripost.gateway.egress.imap.values import (
    Append,
    Authenticate,
    Impossible,
    Listing,
    Login,
    Mailbox,
    NewMessage,
    Rename,
    Select,
    Status,
    Words,
)

MOST_PATTERNS = 50
MOST_MESSAGES = 1000  # of one APPEND
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]+")
_DATE_TIME = re.compile(
    rb'"([ 0-9][0-9])-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"'
)


# --- any state, not authenticated ---


def identity(cursor: Cursor) -> Words:
    """RFC 2971; what a client says of itself is read and forgotten."""
    cursor.space()
    if cursor.take(b"NIL"):
        return Words(())
    cursor.need(b"(")
    found: list[str] = []
    while not cursor.take(b")"):
        if found:
            cursor.space()
        if len(found) >= 60:
            raise Bad("more than 30 fields")
        found.append("" if cursor.take(b"NIL") else cursor.text_string()[:1024])
    if len(found) % 2:
        raise Bad("a field without a value")
    return Words(tuple(found))


def login(cursor: Cursor) -> Login:
    cursor.space()
    user = cursor.text_string()
    cursor.space()
    return Login(user, cursor.text_string())


def authenticate(cursor: Cursor) -> Authenticate:
    cursor.space()
    mechanism = cursor.keyword()
    if not cursor.take(b" "):
        return Authenticate(mechanism, None)
    initial = cursor.match(_BASE64)
    if initial is None:
        raise Bad("the initial response is not base64")
    return Authenticate(mechanism, initial[0].decode("ascii"))


# --- authenticated ---


def words(cursor: Cursor) -> Words:
    found: list[str] = []
    while not cursor.ended:
        cursor.space()
        found.append(cursor.keyword())
    if not found:
        raise Bad("a word is needed")
    return Words(tuple(found))


def compress(cursor: Cursor) -> Words:
    cursor.space()
    return Words((cursor.keyword(),))


def mailbox(cursor: Cursor) -> Mailbox:
    cursor.space()
    return Mailbox(cursor.astring())


def quota_root(cursor: Cursor) -> Mailbox:
    cursor.space()
    return Mailbox(cursor.astring())


def create(cursor: Cursor) -> Mailbox:
    found = mailbox(cursor)
    if cursor.take(b" ("):
        raise Impossible("[USEATTR] what a mailbox is for follows from its name here")
    return found


def rename(cursor: Cursor) -> Rename:
    cursor.space()
    old = cursor.astring()
    cursor.space()
    return Rename(old, cursor.astring())


def select(cursor: Cursor) -> Select:
    cursor.space()
    octets = cursor.astring()
    if not cursor.take(b" ("):
        return Select(octets)
    condstore, known = False, None
    while True:
        word = cursor.keyword()
        if word == "CONDSTORE":
            condstore = True
        elif word == "QRESYNC":
            cursor.space()
            known = _known(cursor)
        else:
            raise Bad(f"unknown parameter {word[:40]}")
        if cursor.take(b")"):
            return Select(octets, condstore, known)
        cursor.space()


def _known(cursor: Cursor) -> tuple[int, int, NumberSet | None, tuple[NumberSet, NumberSet] | None]:
    """RFC 7162 §3.2.5."""
    cursor.need(b"(")
    validity = cursor.number()
    cursor.space()
    modseq = cursor.number(MOST_MODSEQ)
    uids: NumberSet | None = None
    pairs: tuple[NumberSet, NumberSet] | None = None
    while cursor.take(b" "):
        if cursor.take(b"("):
            numbers = read_set(cursor)
            cursor.space()
            pairs = numbers, read_set(cursor)
            cursor.need(b")")
        else:
            uids = read_set(cursor)
    cursor.need(b")")
    return validity, modseq, uids, pairs


_SELECT_OPTIONS = frozenset({"SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"})
_RETURN_OPTIONS = frozenset({"SUBSCRIBED", "CHILDREN", "SPECIAL-USE"})
STATUS_ITEMS = frozenset(
    {"MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN", "DELETED"}
    | {"SIZE", "HIGHESTMODSEQ", "APPENDLIMIT", "MAILBOXID"}
)


def listing(cursor: Cursor) -> Listing:
    """RFC 9051 §6.3.9, RFC 5258, RFC 5819."""
    cursor.space()
    select: frozenset[str] = frozenset()
    extended = False
    if cursor.peek() == b"(":
        select, extended = frozenset(cursor.words()), True
        if not select <= _SELECT_OPTIONS:
            raise Bad("unknown selection option")
        if select & {"RECURSIVEMATCH"} and not select & {"SUBSCRIBED", "SPECIAL-USE"}:
            raise Bad("RECURSIVEMATCH needs another selection option")
        cursor.space()
    reference = cursor.astring()
    cursor.space()
    patterns = [b""]
    if cursor.take(b"("):
        extended = True
        patterns = [cursor.list_mailbox()]
        while not cursor.take(b")"):
            cursor.space()
            patterns.append(cursor.list_mailbox())
            if len(patterns) > MOST_PATTERNS:
                raise Bad(f"more than {MOST_PATTERNS} patterns")
    else:
        patterns = [cursor.list_mailbox()]
    returns, status = _returns(cursor)
    extended = extended or bool(returns) or bool(status)
    return Listing(reference, tuple(patterns), select, returns, status, extended)


def _returns(cursor: Cursor) -> tuple[frozenset[str], tuple[str, ...]]:
    if not cursor.take(b" RETURN ("):
        return frozenset(), ()
    found: set[str] = set()
    items: tuple[str, ...] = ()
    while not cursor.take(b")"):
        if found or items:
            cursor.space()
        word = cursor.keyword()
        if word == "STATUS":
            cursor.space()
            items = _status_items(cursor)
        elif word in _RETURN_OPTIONS:
            found.add(word)
        else:
            raise Bad(f"unknown return option {word[:40]}")
    return frozenset(found), items


def old_listing(cursor: Cursor) -> Listing:
    cursor.space()
    reference = cursor.astring()
    cursor.space()
    return Listing(reference, (cursor.list_mailbox(),), frozenset({"SUBSCRIBED"}))


def _status_items(cursor: Cursor) -> tuple[str, ...]:
    items = tuple(dict.fromkeys(cursor.words()))
    if not items or not STATUS_ITEMS.issuperset(items):
        raise Bad("unknown status item")
    return items


def status(cursor: Cursor) -> Status:
    cursor.space()
    octets = cursor.astring()
    cursor.space()
    return Status(octets, _status_items(cursor))


def append(cursor: Cursor) -> Append:
    """RFC 9051 §6.3.12, RFC 3502 (MULTIAPPEND), RFC 6855 §4 (UTF8)."""
    cursor.space()
    octets = cursor.astring()
    messages: list[NewMessage] = []
    while not messages or not cursor.ended:
        cursor.space()
        messages.append(_new_message(cursor))
        if len(messages) > MOST_MESSAGES:
            raise Bad(f"more than {MOST_MESSAGES} messages")
    return Append(octets, tuple(messages))


def replace(cursor: Cursor) -> Append:
    """RFC 8508."""
    cursor.space()
    number = cursor.number()
    cursor.space()
    octets = cursor.astring()
    cursor.space()
    return Append(octets, (_new_message(cursor),), number)


def _new_message(cursor: Cursor) -> NewMessage:
    flags: tuple[str, ...] = ()
    if cursor.peek() == b"(":
        flags = flag_list(cursor)
        cursor.space()
    date = None
    if cursor.peek() == b'"':
        date = date_time(cursor)
        cursor.space()
    utf8 = cursor.take(b"UTF8 (")
    literal = cursor.streamed()
    if literal is None:
        raise Bad("a message comes as a literal")
    if utf8:
        cursor.need(b")")
    return NewMessage(literal, flags, date, utf8)


def date_time(cursor: Cursor) -> int:
    found = cursor.match(_DATE_TIME)
    if found is None or found[2].decode().title() not in MONTHS:
        raise Bad("not a date and time")
    day, year, hour, minute, second, zone_hour, zone_minute = (int(found[n]) for n in (1, 3, 4, 5, 6, 8, 9))
    zone = (zone_hour * 60 + zone_minute) * (1 if found[7] == b"+" else -1)
    try:
        month = MONTHS.index(found[2].decode().title()) + 1
        there = datetime.datetime(year, month, day, hour, minute, min(second, 59), tzinfo=datetime.UTC)
    except ValueError:
        raise Bad("there is no such date and time") from None
    return int(there.timestamp()) - zone * 60
