"""a connection whose socket another process holds

One order and one answer for each message. What becomes of it when the process
dies: the answer will never come, and the host may or may not have the message
(RFC 1047); once the death is certain, `Interrupted` has it tried again at once.
A message under way at a second death may be what kills: it gets `lost` instead,
and so a retry of its own.
"""

from __future__ import annotations

from typing import Protocol

import trio

from tripost.delivery.links import Cargo, Interrupted, Spare, Turn
from tripost.delivery.processes.messages import (
    Abort,
    Close,
    Deliver,
    Done,
    FromCourier,
    FromManager,
    Opened,
    Said,
    Unread,
    Wrong,
)
from tripost.delivery.verdicts import lost
from tripost.queue.channel import Channel, ChannelGone
from tripost.queue.dialogue import Dialogue
from tripost.queue.errors import SpoolError
from tripost.queue.message import Outcome


class OwnFault(Exception):
    """Something went wrong in the other process that must not."""


class Holder(Protocol):
    """The process."""

    name: str
    messages: int  # transactions that were begun and answered
    channel: Channel[FromCourier, FromManager]
    dead: trio.Event  # once its death is certain, and with it the end of its sockets

    def forget(self, number: int) -> None:
        """The connection's sockets are closed."""
        ...

    def suspicious(self, id: str) -> bool:
        """Was this message under way at another death? It is, at this one."""
        ...


class Hold:
    """What the manager knows of a connection from its order on: whom to ask when the process asks back."""

    def __init__(self, holder: Holder, number: int, spare: Spare, dialogue: Dialogue) -> None:
        self.holder = holder
        self.number = number
        self.spare = spare
        self.dialogue = dialogue
        self.extras = 0  # sockets beside the first
        self.over = False
        self.turn: Turn | None = None

    def said(self, line: Said) -> None:
        self.dialogue.client = line.client
        if line.address:
            self.dialogue.also(line.address)
        self.dialogue.tell(line.direction, line.text)

    def closed(self) -> None:
        """All its sockets are; also those of a race that was cut short."""
        self.over = True
        for _ in range(self.extras):
            self.spare.give()
        self.extras = 0

    def abort(self) -> None:
        """Nobody waits for it any more."""
        self.holder.channel.post(Abort(self.number))
        self.holder.forget(self.number)


class FarLink:
    """See Link."""

    def __init__(self, hold: Hold, host: str, opened: Opened) -> None:
        self._hold = hold
        self._holder = hold.holder
        self._opened = opened
        self.host = host
        self.address = opened.address
        self.tls = opened.tls
        self.verified = opened.verified
        self.connect = opened.connect
        self.greeting = opened.greeting
        self.handshake = opened.handshake
        self.dialogue = hold.dialogue
        self.stale = False
        self.messages = 0
        self._good = True

    @property
    def usable(self) -> bool:
        """See Link; False too once the process is gone."""
        return self._good and not self._holder.channel.gone

    @property
    def recipients(self) -> int:
        """See Link."""
        return self._opened.rcpt_max

    @property
    def spent(self) -> bool:
        """See Link."""
        return 0 < self._opened.mail_max <= self.messages

    async def deliver(self, cargo: Cargo, turn: Turn | None = None) -> dict[int, Outcome]:
        """See Link."""
        hold, holder = self._hold, self._holder
        if turn is not None and not cargo.paced:
            await turn()
        hold.turn = turn
        some = len(cargo.recipients) != len(cargo.envelope.recipients)
        recipients = tuple([one.id for one in cargo.recipients]) if some else ()
        try:
            answer = await holder.channel.ask(
                Deliver(hold.number, cargo.place, cargo.now, recipients, cargo.alias, cargo.paced and turn is not None)
            )
        except ChannelGone:
            return await self._lost(cargo)
        except trio.Cancelled:
            self._good = False
            hold.abort()
            raise
        self._good = isinstance(answer, (Done, Unread)) and answer.usable
        if not self._good:  # its process has closed it
            holder.forget(hold.number)
        if isinstance(answer, (Done, Unread)):
            holder.messages += answer.messages - self.messages
            self.messages = answer.messages
        if isinstance(answer, Done):
            self.stale = answer.stale
            return answer.outcomes
        if isinstance(answer, Unread):
            raise SpoolError(answer.text)
        raise OwnFault(answer.text if isinstance(answer, Wrong) else type(answer).__name__)

    async def _lost(self, cargo: Cargo) -> dict[int, Outcome]:
        self._good = False
        await self._holder.dead.wait()
        if not self._holder.suspicious(cargo.envelope.id):
            raise Interrupted(f"{self._holder.name} ended")
        why = lost("dot", f"{self._holder.name} ended, for the second time with this message", self.host)
        return {one.id: why for one in cargo.recipients}

    async def close(self) -> None:
        """See Link."""
        good, self._good, hold = self._good, False, self._hold
        if not good:
            return
        try:
            await self._holder.channel.ask(Close(hold.number))
        except ChannelGone:
            await self._holder.dead.wait()
        except trio.Cancelled:
            hold.abort()
            raise
        self._holder.forget(hold.number)
