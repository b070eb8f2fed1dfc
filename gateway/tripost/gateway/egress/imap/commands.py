"""IMAP's commands: where each may stand, and what it takes

API      `parse(text, state)` gives a `Command` or a `Mistake`; `streams(announced)` says
         whether a literal is a message.
States   n not authenticated, a authenticated, s selected (RFC 9051 §3); logout is the
         session's end. docs/imap.md has a row for each command and state.
Promise  whatever a client writes, the result is one of the two; its size is bounded
         by that of the command.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tripost.gateway.egress.imap import arguments as args
from tripost.gateway.egress.imap import arguments_selected as selected
from tripost.gateway.egress.imap.cursor import Bad, Cursor
from tripost.gateway.egress.imap.reader import Announced, Mistake, tag_of
from tripost.gateway.egress.imap.values import Arguments, Impossible, Nothing


class Command(msgspec.Struct, frozen=True):
    """`name` in capitals ("UID FETCH"); `args` as its rule reads them."""

    tag: str
    name: str
    args: Arguments


class Rule(msgspec.Struct, frozen=True):
    """In which states a command is allowed, and what reads its arguments (None: it has none)."""

    states: str
    read: Callable[[Cursor], Arguments] | None = None


COMMANDS: dict[str, Rule] = {
    "CAPABILITY": Rule("nas"),
    "NOOP": Rule("nas"),
    "LOGOUT": Rule("nas"),
    "ID": Rule("nas", args.identity),
    "STARTTLS": Rule("n"),
    "AUTHENTICATE": Rule("n", args.authenticate),
    "LOGIN": Rule("n", args.login),
    "ENABLE": Rule("as", args.words),
    "NAMESPACE": Rule("as"),
    "SELECT": Rule("as", args.select),
    "EXAMINE": Rule("as", args.select),
    "CREATE": Rule("as", args.create),
    "DELETE": Rule("as", args.mailbox),
    "RENAME": Rule("as", args.rename),
    "SUBSCRIBE": Rule("as", args.mailbox),
    "UNSUBSCRIBE": Rule("as", args.mailbox),
    "LIST": Rule("as", args.listing),
    "LSUB": Rule("as", args.old_listing),
    "STATUS": Rule("as", args.status),
    "APPEND": Rule("as", args.append),
    "IDLE": Rule("as"),
    "GETQUOTA": Rule("as", args.quota_root),
    "GETQUOTAROOT": Rule("as", args.mailbox),
    "COMPRESS": Rule("as", args.compress),
    "CHECK": Rule("s"),
    "CLOSE": Rule("s"),
    "UNSELECT": Rule("s"),
    "EXPUNGE": Rule("s"),
    "SEARCH": Rule("s", selected.search),
    "SORT": Rule("s", selected.sort),
    "THREAD": Rule("s", selected.thread),
    "FETCH": Rule("s", selected.fetch),
    "STORE": Rule("s", selected.store),
    "COPY": Rule("s", selected.copy),
    "MOVE": Rule("s", selected.copy),
    "REPLACE": Rule("s", args.replace),
    "UID EXPUNGE": Rule("s", selected.number_set),
    "UID SEARCH": Rule("s", selected.search),
    "UID SORT": Rule("s", selected.sort),
    "UID THREAD": Rule("s", selected.thread),
    "UID FETCH": Rule("s", selected.uid_fetch),
    "UID STORE": Rule("s", selected.store),
    "UID COPY": Rule("s", selected.copy),
    "UID MOVE": Rule("s", selected.copy),
    "UID REPLACE": Rule("s", args.replace),
}
_WHERE = {"n": "before the login", "as": "after the login", "s": "in a selected mailbox"}
IN_PLAIN_TEXT = ("CAPABILITY", "NOOP", "LOGOUT", "ID", "STARTTLS")


def parse(text: bytes, state: str) -> Command | Mistake:
    """A whole command in `state` (n, a, s)."""
    tag = tag_of(text)
    if tag == "*" or len(text) <= len(tag) + 1:
        return Mistake(tag, "BAD a command is a tag, a space, and a word")
    cursor = Cursor(text, len(tag) + 1)
    try:
        name = cursor.keyword()
        if name == "UID":
            cursor.space()
            name = f"UID {cursor.keyword()}"
        rule = COMMANDS.get(name)
        if rule is None:
            return Mistake(tag, f"BAD unknown command {name[:40]}")
        if state not in rule.states:
            return Mistake(tag, f"BAD {name} only {_WHERE[rule.states]}")
        if rule.read is None:
            cursor.end()
            return Command(tag, name, Nothing())
        found = rule.read(cursor)
        cursor.end()
        return Command(tag, name, found)
    except Bad as wrong:
        return Mistake(tag, f"BAD {wrong}")
    except Impossible as wrong:
        return Mistake(tag, f"NO {wrong}")


def streams(announced: Announced) -> bool:
    """Is the literal a message, of APPEND or REPLACE, which is not held in memory?"""
    return appending(announced.head) is not None


def appending(head: bytes) -> bytes | None:
    """The mailbox that APPEND or REPLACE names in the beginning of a command; None for what is none, or not yet."""
    cursor = Cursor(head, len(tag_of(head)) + 1)
    try:
        name = cursor.keyword()
        if name == "UID":
            cursor.space()
            name = cursor.keyword()
        if name == "REPLACE":
            cursor.space()
            cursor.number()
        elif name != "APPEND":
            return None
        cursor.space()
        mailbox = cursor.astring()
        cursor.space()
    except Bad:
        return None
    return mailbox
