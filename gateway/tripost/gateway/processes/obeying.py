"""a process's side of a reload

The supervisor says what is to come, and then that it is in force, or not. Between the two nothing has changed here.

Promise  what has been prepared and is not wanted is given back; sockets, too. Who is started in the middle has the
         configuration that was in force then (the supervisor starts nobody between the two).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import msgspec

from tripost.gateway.inherited import Inherited
from tripost.gateway.listening import Listening as Listeners
from tripost.gateway.processes.hand import decode_config, listener_of
from tripost.gateway.processes.link import Link, LinkGone, close_all
from tripost.gateway.processes.orders import Commit, Discard, Done, FromChild, Listening, Prepare, Ready, ToChild
from tripost.gateway.reloading import Live, ReloadError

MOST_PROBLEMS = 50
MOST_TEXT = 1000  # characters of one

ToSupervisor = Link[ToChild, FromChild]


def link_of(descriptor: int) -> ToSupervisor:
    """From an inherited socket."""
    return Link(socket.socket(fileno=descriptor), ToChild)


class Obeying:
    """`told`: gets all orders that are not about this; `moved`: gets all sockets that there are once a reload is in
    force."""

    def __init__(
        self,
        link: ToSupervisor,
        live: Live,
        listeners: Listeners,
        told: Callable[[ToChild], None] = lambda order: None,
        moved: Callable[[list[Listening]], None] = lambda listening: None,
    ) -> None:
        self._link = link
        self._live = live
        self._listeners = listeners
        self._told = told
        self._moved = moved
        self._prepared: tuple[int, Callable[[int, float], None], list[Listening]] | None = None

    async def run(self) -> None:
        """Until cancelled, or the supervisor is gone: then we are, too."""
        try:
            while True:
                order, descriptors = await self._link.receive()
                if isinstance(order, Prepare):
                    self._forget()
                    await self._link.send(Ready(order.number, self._prepare(order, descriptors)))
                elif isinstance(order, Commit):
                    self._commit(order)
                    await self._link.send(Done(order.number))
                elif isinstance(order, Discard):
                    self._forget()
                else:
                    self._told(order)
        except LinkGone:
            return

    def _prepare(self, order: Prepare, descriptors: list[int]) -> list[str]:
        """Why not."""
        if len(descriptors) != 1 + len(order.added):
            close_all(descriptors)
            return ["it has no descriptors left"]
        config, *sockets = descriptors
        self._offer(order, sockets)
        try:
            try:
                wanted = decode_config(config)
            finally:
                os.close(config)
            commit = self._live.prepare(wanted)
        except (ReloadError, msgspec.DecodeError, OSError) as wrong:
            self._forget()
            return [line[:MOST_TEXT] for line in str(wrong).splitlines()[:MOST_PROBLEMS]]
        self._prepared = order.number, commit, order.listening
        return []

    def _offer(self, order: Prepare, sockets: list[int]) -> None:
        addresses = {one.descriptor: one.address for one in order.listening}
        self._listeners.offered = Inherited({})
        for there, here in zip(order.added, sockets, strict=True):
            self._listeners.offered.add(addresses[there], listener_of(here), given=True)

    def _commit(self, order: Commit) -> None:
        if self._prepared is None or self._prepared[0] != order.number:
            return  # it has been in force here since our start
        _, commit, listening = self._prepared
        self._prepared = None
        commit(order.generation, order.loaded)
        self._listeners.offered.close()
        self._moved(listening)

    def _forget(self) -> None:
        self._prepared = None
        self._listeners.forget()
        self._listeners.offered.close()
