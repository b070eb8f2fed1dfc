"""when each account was last used, and from where

Kept in `history/logins` in state, one line of JSON per account, for `tripost user
list`. Written every minute while there is something new, and at the stop: a crash
loses a minute of it, and nobody waits for a disk at a login.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from functools import partial

import msgspec
import trio

from tripost.delivery.mailbox.places import replace_file
from tripost.gateway.peer import Peer
from tripost.queue.clock import Clock
from tripost.queue.events import Bus, Trouble

EVERY = 60.0  # seconds
MOST = 100_000  # accounts; the one not used for longest goes


class Login(msgspec.Struct, frozen=True):
    account: str
    time: float
    service: str
    client: str  # "" for a Unix socket


class LastLogins:
    """`state` is the gateway's folder."""

    def __init__(self, state: str) -> None:
        self._path = os.path.join(state, "history", "logins")
        self._table: OrderedDict[str, Login] = OrderedDict()
        self._new = False

    def load(self) -> None:
        """What cannot be read is as if it had never been: it is no more than a convenience."""
        self._table = OrderedDict((one.account, one) for one in read(self._path))

    def note(self, account: str, peer: Peer, now: float) -> None:
        self._table[account] = Login(account, now, peer.service, peer.client)
        self._table.move_to_end(account)
        if len(self._table) > MOST:
            self._table.popitem(last=False)
        self._new = True

    def save(self) -> None:
        """Raises OSError."""
        if not self._new:
            return
        self._new = False
        data = b"".join(msgspec.json.encode(one) + b"\n" for one in list(self._table.values()))
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            replace_file(self._path, data)
        except OSError:
            self._new = True
            raise

    async def keep(self, bus: Bus, clock: Clock) -> None:
        """Until cancelled, and then once more."""
        self.load()
        try:
            while True:
                await trio.sleep(EVERY)
                await self._save(bus, clock)
        finally:
            with trio.CancelScope(shield=True):  # one small file
                await self._save(bus, clock)

    async def _save(self, bus: Bus, clock: Clock) -> None:
        try:
            await trio.to_thread.run_sync(partial(self.save))
        except OSError as wrong:
            bus.emit(Trouble(time=clock.now(), where="last logins", reason=f"{self._path}: {wrong.strerror}"))


def read(path: str) -> list[Login]:
    """Oldest first; lines that are damaged are left out."""
    found: list[Login] = []
    try:
        with open(path, "rb") as lines:
            for line in lines:
                try:
                    found.append(msgspec.json.decode(line, type=Login))
                except msgspec.MsgspecError:
                    continue
    except OSError:
        pass
    return found


def last_logins(state: str) -> dict[str, Login]:
    return {one.account: one for one in read(os.path.join(state, "history", "logins"))}
