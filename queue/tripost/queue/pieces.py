"""a message recipient by recipient

How a message whose recipients have come apart is kept while a queue is read
back. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from tripost.queue import actions
from tripost.queue.ledger import first_due
from tripost.queue.message import Envelope, Recipient
from tripost.queue.rows import DOOMED, HELD


class Piece:
    """One queued recipient."""

    __slots__ = ("attempts", "due", "flags", "hop", "priority", "told")

    def __init__(self, hop: str, due: float, priority: int) -> None:
        self.hop = hop
        self.due = due
        self.priority = priority
        self.flags = 0
        self.attempts = 0
        self.told = 0

    def state(self) -> tuple[str, float, int, int, int, int]:
        """What recipients have in common that share a row."""
        return self.hop, self.due, self.attempts, self.told, self.flags, self.priority

    def change(self, does: str, after: str, at: float) -> None:
        """As Ledger.change does to a row."""
        if does == actions.HOLD:
            self.flags |= HELD
        elif does == actions.RELEASE:
            self.flags &= ~HELD
        elif does == actions.RETRY:
            self.due = min(self.due, at)
        elif does == actions.PRIORITY:
            self.priority = int(after)
        elif does == actions.REROUTE:
            self.hop = after
        elif does == actions.SPARE:
            self.flags &= ~DOOMED
        else:
            self.flags |= DOOMED


class Pieces:
    """`left`: those that are queued yet, by recipient id."""

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        due = first_due(envelope)
        self.left = {one.id: Piece(one.next_hop, due, envelope.priority) for one in envelope.recipients}


def plainly(recipients: Sequence[Recipient], name: str, count: int) -> list[int]:
    """Whom a row of `count` recipients at a next hop stands for where it names nobody: see Ledger.chosen."""
    return [one.id for one in recipients if count == len(recipients) or one.next_hop == name]
