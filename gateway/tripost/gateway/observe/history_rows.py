"""from events to the rows of the history

Pure. Rows are flat lists of values, for statements with many rows each: what is
bound in one call costs Python's lock once. A message that is accepted and ends
among the same events needs no second look at its row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

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
from tripost.queue.message import Transfer

_encode = msgspec.json.Encoder().encode


class Rows:
    """`messages`, `attempts`, `ends` and `logins`, as `history_sql` has their columns."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.attempts: list[Any] = []
        self.logins: list[Any] = []
        self._accepted: list[Accepted] = []
        self._ended: dict[str, list[float]] = {}  # id → how many recipients, when
        for event in events:
            taker = _TAKERS.get(type(event))
            if taker is not None:
                taker(self, event)

    @property
    def messages(self) -> list[Any]:
        """Asked once, before `ends`."""
        rows: list[Any] = []
        for one in self._accepted:
            left, ended = len(one.recipients), 0.0
            gone = self._ended.pop(one.id, None)
            if gone is not None:
                left -= int(gone[0])
                ended = gone[1] if left <= 0 else 0.0
            rows += (one.seq, one.id, one.time, one.sender, one.client, one.account, one.size, left, ended)
        return rows

    @property
    def ends(self) -> list[Any]:
        """Of messages that were accepted before."""
        return [value for id, (count, time) in self._ended.items() for value in (id, int(count), time)]

    def end(self, id: str, time: float) -> None:
        """Of one recipient."""
        known = self._ended.get(id)
        if known is None:
            self._ended[id] = [1, time]
        else:
            known[0] += 1
            known[1] = time

    def accepted(self, one: Accepted) -> None:
        self._accepted.append(one)

    def relayed(self, one: Relayed) -> None:
        self.attempts += (one.seq, one.time, one.id, "relayed", one.recipient_id, one.recipient, one.next_hop, one.host)
        self.attempts += (one.attempt, one.reply, None, None, _stored(one.transfer))
        self.end(one.id, one.time)

    def delivered(self, one: DeliveredLocally) -> None:
        self.attempts += (one.seq, one.time, one.id, "delivered", one.recipient_id, one.recipient, "local", None)
        self.attempts += (one.attempt, None, None, None, None)
        self.end(one.id, one.time)

    def discarded(self, one: Discarded) -> None:
        self.attempts += (one.seq, one.time, one.id, "discarded", one.recipient_id, one.recipient, one.next_hop, None)
        self.attempts += (None, None, None, None, None)
        self.end(one.id, one.time)

    def deleted(self, one: Deleted) -> None:
        self.attempts += (one.seq, one.time, one.id, "deleted", one.recipient_id, one.recipient, one.next_hop, None)
        self.attempts += (None, one.reason, None, None, None)
        self.end(one.id, one.time)

    def bounced(self, one: Bounced) -> None:
        self.attempts += (one.seq, one.time, one.id, "failed", one.recipient_id, one.recipient, one.next_hop, one.host)
        self.attempts += (one.attempt, one.reply, None, one.report or None, _stored(one.transfer))
        self.end(one.id, one.time)

    def deferred(self, one: DeferredUntil) -> None:
        self.attempts += (one.seq, one.time, one.id, "deferred", one.recipient_id, one.recipient, one.next_hop)
        self.attempts += (one.host, one.attempt, one.reply, one.due, None, _stored(one.transfer))

    def unreachable(self, one: Unreachable) -> None:
        self.attempts += (one.seq, one.time, one.id, "unreachable", None, None, None, one.host)
        self.attempts += (None, one.reply, None, None, None)

    def logged_in(self, one: LoggedIn) -> None:
        self.logins += (one.account, one.time, one.service, one.client)


_TAKERS: dict[type[Event], Callable[[Rows, Any], None]] = {
    Accepted: Rows.accepted,
    Relayed: Rows.relayed,
    DeliveredLocally: Rows.delivered,
    Discarded: Rows.discarded,
    Deleted: Rows.deleted,
    Bounced: Rows.bounced,
    DeferredUntil: Rows.deferred,
    Unreachable: Rows.unreachable,
    LoggedIn: Rows.logged_in,
}


def _stored(transfer: Transfer | None) -> bytes | None:
    return _encode(transfer) if transfer is not None else None
