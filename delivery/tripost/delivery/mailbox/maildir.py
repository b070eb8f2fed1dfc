"""the local destination: Maildir, never twice and never not

One folder per mailbox (`places`); content keeps its CRLF line ends, so that
POP3 sends exactly the octets that came, and sizes are the files'.

Promise  `deliver` says Delivered only when file and folder entry are on stable
         storage. The same (message, recipient) is visible at most once, even
         when a reader removed it before it was delivered again (`batch`).
Why      Deliveries that wait at the same time share their syncs: whoever finds
         the disk free takes all that wait along, the others find theirs done.
Fails    any trouble with the disk is a deferral of the message; a full mailbox
         4.2.2, or 5.2.2 where the policy rejects; a message that was in the
         mailbox before goes in circles, 5.4.6.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import trio

from tripost.delivery.forwarding import circle, delivered_to, was_delivered_to
from tripost.delivery.mailbox.batch import Item, Store
from tripost.delivery.mailbox.delivered import key_of
from tripost.delivery.mailbox.places import write_all
from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.uids import folder_name
from tripost.queue.body import BodyReader
from tripost.queue.log import RunSync
from tripost.queue.message import Deferred, Delivered, Envelope, Failed, Outcome, Recipient

READ = 65_536
SMALL = 65_536  # octets that may wait in memory for their batch


class Place(msgspec.Struct, frozen=True):
    """Whose mail it is, in which Maildir++ folder ("" or ".Name"), by which rules."""

    account: str
    folder: str = ""
    policy: Policy = Policy()


# recipient's address → place, None for nobody's
Locate = Callable[[str], Place | None]


class MaildirDelivery:
    """`folder` holds the mailboxes. `locate` raises nothing. `told(mailbox's folder, count)`: messages were pushed out
    by newer ones."""

    def __init__(
        self,
        folder: str,
        hostname: str,
        locate: Locate = Place,
        run_sync: RunSync | None = None,
        now: Callable[[], float] = time.time,
        told: Callable[[str, int], None] = lambda box, count: None,
    ) -> None:
        self.arrived: Callable[[str], None] = lambda folder: None  # called with each folder that has new mail
        self.store = Store(folder, hostname)
        self._locate = locate
        self._now = now
        self._told = told
        self._run_sync: RunSync = run_sync if run_sync is not None else trio.to_thread.run_sync
        self._disk = trio.Lock()
        self._waiting: list[Item] = []

    async def deliver(
        self,
        envelope: Envelope,
        recipients: tuple[Recipient, ...],
        open_reader: Callable[[], Awaitable[BodyReader]],
    ) -> dict[int, Outcome]:
        """One outcome per recipient. Raises SpoolError when the content cannot be read."""
        outcomes: dict[int, Outcome] = {}
        for one in recipients:
            place = self._locate(one.address)
            if place is None:
                outcomes[one.id] = Failed(550, "5.1.1", "no such user here")
                continue
            reader = await open_reader()
            try:
                outcomes[one.id] = await self._one(envelope, one, place, reader)
            except OSError as wrong:
                outcomes[one.id] = _trouble(wrong)
            finally:
                reader.close()
        return outcomes

    async def _one(self, envelope: Envelope, recipient: Recipient, place: Place, reader: BodyReader) -> Outcome:
        box = os.path.join(self.store.folder, folder_name(place.account))
        key = key_of(envelope.id, recipient.id)
        item = Item(key, box, place.folder, place.policy, envelope.accepted, binary=envelope.binary)
        head = f"Return-Path: <{envelope.sender}>\r\n".encode() + delivered_to(place.account)
        first = await reader.read(READ)
        if was_delivered_to(place.account, first):
            return circle(place.account)
        item.size = len(head) + reader.size
        if reader.size <= SMALL:
            item.content = head + first
        else:
            await self._spill(item, head + first, reader)
        await self.join(item)
        if item.delivered:
            return Delivered("delivered")
        if not item.full:
            return _trouble(item.error)
        if item.policy.reject:
            return Failed(552, "5.2.2", "the mailbox is full")
        return Deferred(452, "4.2.2", "the mailbox is full")

    async def _spill(self, item: Item, data: bytes, reader: BodyReader) -> None:
        """Write a large message, before it waits for its batch."""
        fd: int = await self._run_sync(partial(self.store.begin, item))
        try:
            while data:
                await self._run_sync(partial(write_all, fd, data))
                data = await reader.read(READ)
            await self._run_sync(partial(os.fsync, fd))
        finally:
            os.close(fd)

    async def join(self, item: Item) -> None:
        """Until a batch took it."""
        self._waiting.append(item)
        try:
            async with self._disk:
                if not item.done:
                    await self._commit()
        finally:
            if item in self._waiting:  # cancelled: nobody would ask for the outcome
                self._waiting.remove(item)

    async def _commit(self) -> None:
        batch, self._waiting = self._waiting, []
        try:
            with trio.CancelScope(shield=True):  # a few disk operations
                await self._run_sync(partial(self.store.commit, batch, self._now()))
        finally:
            for item in batch:
                item.done = True
        for folder in {os.path.dirname(item.target) for item in batch if item.moved}:
            self.arrived(folder)
        while self.store.pushed_out:
            self._told(*self.store.pushed_out.popitem())

    async def with_disk(self, work: Callable[[], Any]) -> Any:
        """Run blocking work on the store while no batch is written."""
        async with self._disk:
            return await self._run_sync(work)


def _trouble(wrong: OSError | None) -> Deferred:
    return Deferred(452, "4.2.0", f"mailbox: {wrong.strerror if wrong is not None else 'internal trouble'}")
