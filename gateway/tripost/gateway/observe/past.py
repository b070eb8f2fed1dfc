"""asking the history: what became of messages

Synchronous, over a connection that only reads (`history_store.read_only`): a
running gateway's answers and those of `tripost history` without one are the same.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from tripost.gateway.observe.history_store import read_only
from tripost.queue.message import Transfer

MOST_ATTEMPTS = 200  # of one piece; a message with more comes in several
LIMIT = 100


class About(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`about`: a message's id, an address (of sender or recipient), @domain or a next hop; `since`: wall-clock seconds;
    `limit`: messages at most, 0 for all."""

    about: str
    since: float = 0.0
    limit: int = LIMIT


class Try(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attempt. `outcome`: relayed | delivered | discarded | deleted | failed | deferred, or unreachable for a host;
    `due`: when it was to be tried again; `report`: the id of the DSN."""

    time: float
    outcome: str
    recipient_id: int | None = None
    recipient: str = ""
    next_hop: str = ""
    host: str = ""
    attempt: int = 0
    reply: str = ""
    due: float = 0.0
    report: str = ""
    transfer: Transfer | None = None


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """One message. `ended` is 0 while recipients are `open`; `accepted` 0 where that is not known. `more`: of the same
    message comes next."""

    id: str
    accepted: float
    sender: str
    client: str
    account: str
    size: int
    open: int
    ended: float
    attempts: list[Try]
    more: bool = False


_TRY = """SELECT time, outcome, recipient_id, recipient, next_hop, host, attempt, reply, due, report, transfer, seq
FROM attempt WHERE id = ? AND seq > ? ORDER BY seq LIMIT ?"""
_BY_ADDRESS = """
SELECT id, max(at) AS at FROM (
  SELECT id, num AS at FROM message WHERE sender = ?1 AND num > ?2
  UNION ALL SELECT id, seq AS at FROM attempt WHERE recipient = ?1 AND seq > ?2)
GROUP BY id ORDER BY at DESC LIMIT ?3"""
_BY_HOP = """
SELECT id, max(seq) AS at FROM attempt WHERE next_hop = ?1 AND seq > ?2 GROUP BY id ORDER BY at DESC LIMIT ?3"""
_BY_ID = """
SELECT id FROM message WHERE id = ?1 AND num > ?2 UNION SELECT id FROM attempt WHERE id = ?1 AND seq > ?2 LIMIT ?3"""


def past_of(db: sqlite3.Connection, about: About) -> Iterator[Past]:
    """The newest first. Raises sqlite3.Error."""
    text = about.about
    if text.startswith("@"):
        query, text = _BY_HOP, f"mx:{text[1:].lower()}"
    elif ":" in text and "@" not in text:
        query = _BY_HOP
    else:
        query = _BY_ADDRESS if "@" in text or text == "<>" else _BY_ID
    text = "" if text == "<>" else text
    for row in db.execute(query, (text, int(about.since * 1e6), about.limit or -1)).fetchall():
        yield from _message(db, str(row["id"]))


def _message(db: sqlite3.Connection, id: str) -> Iterator[Past]:
    row = db.execute("SELECT * FROM message WHERE id = ?", (id,)).fetchone()
    after = 0
    while True:
        tries = db.execute(_TRY, (id, after, MOST_ATTEMPTS + 1)).fetchall()
        more = len(tries) > MOST_ATTEMPTS
        attempts = [_try(one) for one in tries[:MOST_ATTEMPTS]]
        yield _past(id, row, attempts, more)
        if not more:
            return
        after = int(tries[MOST_ATTEMPTS - 1]["seq"])


def _past(id: str, row: sqlite3.Row | None, attempts: list[Try], more: bool) -> Past:
    known: dict[str, Any] = dict(row) if row is not None else {}
    return Past(
        id=id,
        accepted=known.get("accepted", 0.0),
        sender=known.get("sender") or "",
        client=known.get("client") or "",
        account=known.get("account") or "",
        size=known.get("size") or 0,
        open=max(0, known.get("open", 0)),
        ended=known.get("ended", 0.0),
        attempts=attempts,
        more=more,
    )


def _try(row: sqlite3.Row) -> Try:
    fields = {name: row[name] for name in Try.__struct_fields__ if name != "transfer" and row[name] is not None}
    if row["transfer"]:
        fields["transfer"] = msgspec.json.decode(row["transfer"], type=Transfer)
    return Try(**fields)


def words(one: Try) -> str:
    """`relayed to mx.example.com [192.0.2.7] with TLSv1.3 in 0.25 s: 250 2.0.0 ok`"""
    transfer = one.transfer
    where = f" {one.host}" if one.host else ""
    if transfer is not None:
        where += f" [{transfer.address}]" if transfer.address else ""
        where += f" with {transfer.tls}" if transfer.tls else " in plain text"
        where += f" in {transfer.seconds:.3g} s"
    said = f": {one.reply}" if one.reply else ""
    if one.outcome == "relayed":
        return f"relayed to{where}{said}"
    if one.outcome == "delivered":
        return "put into the mailbox"
    if one.outcome == "deferred":
        due = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.due))
        return f"deferred by{where or ' the queue'}{said}; again at {due}"
    if one.outcome == "failed":
        told = f"; told the sender in {one.report}" if one.report else ""
        return f"given up, by{where or ' the queue'}{said}{told}"
    if one.outcome == "deleted":
        return f"deleted by an operator{said}"
    return "discarded, as its route says" if one.outcome == "discarded" else f"could not speak to{where}{said}"


class Login(msgspec.Struct, frozen=True):
    """`client` is "" for a Unix socket."""

    account: str
    time: float
    service: str
    client: str


def last_logins(path: str) -> dict[str, Login]:
    """account → its last login; none where there is no history, or it cannot be read: it is a convenience."""
    try:
        with read_only(path) as db:
            rows = db.execute("SELECT account, time, service, client FROM login").fetchall()
    except sqlite3.Error:
        return {}
    return {row["account"]: Login(**dict(row)) for row in rows}
