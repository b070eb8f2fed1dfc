"""from events to the rows of the history

Pure. Events come as they are encoded for the log; of those that the history keeps,
only the fields that it keeps are read. Rows are flat lists of values, for statements
with many rows each: what is bound in one call costs Python's lock once. A message
that is accepted and ends among the same events needs no second look at its row.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tripost.gateway.observe.schema import name_of
from tripost.queue.events import (
    Accepted,
    Bounced,
    DeferredUntil,
    Deleted,
    DeliveredLocally,
    Discarded,
    Event,
    LoggedIn,
    Relayed,
    Unreachable,
)

ENDS: tuple[type[Event], ...] = (Relayed, DeliveredLocally, Discarded, Deleted, Bounced)  # of a recipient
KEPT: tuple[type[Event], ...] = (Accepted, *ENDS, DeferredUntil, Unreachable, LoggedIn)
ACCEPTED, LOGGED_IN, LOCAL, DELETED = name_of(Accepted), name_of(LoggedIn), name_of(DeliveredLocally), name_of(Deleted)
_ENDS = frozenset(name_of(kind) for kind in ENDS)
_HEADS = tuple(f'{{"event":"{name_of(kind)}",'.encode() for kind in KEPT)


class Line(msgspec.Struct, frozen=True, gc=False):
    """What the history keeps of any event, by the names that events have for it; `event` is the outcome of an
    attempt."""

    event: str
    time: float
    seq: int
    id: str = ""
    sender: str = ""
    recipients: list[msgspec.Raw] = []
    size: int = 0
    client: str = ""
    account: str = ""
    service: str = ""
    recipient_id: int | None = None
    recipient: str | None = None
    next_hop: str | None = None
    host: str | None = None
    attempt: int | None = None
    reply: str | None = None
    reason: str = ""
    due: float | None = None
    report: str = ""
    transfer: msgspec.Raw = msgspec.Raw()


_decode_lines = msgspec.json.Decoder(Line).decode_lines


class Rows:
    """`messages`, `attempts`, `ends` and `logins`, as `history_sql` has their columns."""

    def __init__(self, lines: bytes) -> None:
        self.attempts: list[Any] = []
        self.logins: list[Any] = []
        self._accepted: list[Line] = []
        self._ended: dict[str, tuple[int, float]] = {}  # id → how many recipients, when
        attempts, ended = self.attempts, self._ended
        for one in _decode_lines(b"\n".join([line for line in lines.split(b"\n") if line.startswith(_HEADS)])):
            event, id = one.event, one.id
            if event == ACCEPTED:
                self._accepted.append(one)
                continue
            if event == LOGGED_IN:
                self.logins += (one.account, one.time, one.service, one.client)
                continue
            hop = "local" if event == LOCAL else one.next_hop
            reply = one.reason if event == DELETED else one.reply
            attempts += (one.seq, one.time, id, event, one.recipient_id, one.recipient, hop, one.host, one.attempt)
            attempts += (reply, one.due, one.report or None, bytes(one.transfer) or None)
            if event in _ENDS:
                known = ended.get(id)
                ended[id] = (1, one.time) if known is None else (known[0] + 1, one.time)

    @property
    def messages(self) -> list[Any]:
        """Asked once, before `ends`."""
        rows: list[Any] = []
        for one in self._accepted:
            left, ended = len(one.recipients), 0.0
            gone = self._ended.pop(one.id, None)
            if gone is not None:
                left -= gone[0]
                ended = gone[1] if left <= 0 else 0.0
            rows += (one.seq, one.id, one.time, one.sender, one.client, one.account, one.size, left, ended)
        return rows

    @property
    def ends(self) -> list[Any]:
        """Of messages that were accepted before."""
        return [value for id, (count, time) in self._ended.items() for value in (id, count, time)]
