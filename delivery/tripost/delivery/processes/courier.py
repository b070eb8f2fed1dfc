"""the process that holds connections

Opens, speaks, closes as the manager orders; reads contents from the spool's
files itself. Decides nothing about mail: it tells outcomes.

Promise  One task and at most one order at a time for each connection. An answer to
         `Close` means that the socket is closed. When the manager is gone, `run`
         ends at once and every socket with it: nobody is left to settle for.
Fails    What goes wrong with one connection is its answer, and of no other's
         business.
Bounds   the manager's: it never orders more connections than its limits allow.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec
import trio

from tripost.delivery.client_tls import ClientTls
from tripost.delivery.connection import Connection
from tripost.delivery.fast_stream import Connect, connect_tcp
from tripost.delivery.forwarding import marked
from tripost.delivery.hosts import Here
from tripost.delivery.links import Cargo, Down, Spare, Unroutable
from tripost.delivery.processes.messages import (
    ROLE,
    VERSION,
    Abort,
    Answer,
    Begin,
    Close,
    Closed,
    Deliver,
    Done,
    Figures,
    FromCourier,
    FromManager,
    Hello,
    Open,
    Opened,
    Ready,
    Refused,
    Room,
    RoomGone,
    Said,
    Trace,
    Turn,
    Unread,
    Wrong,
)
from tripost.queue.body import BodyReader
from tripost.queue.channel import Channel, ChannelGone
from tripost.queue.dialogue import DELIVERY, Dialogue
from tripost.queue.errors import SpoolError
from tripost.queue.files import Files, RealFiles
from tripost.queue.framing import FrameError
from tripost.queue.log import RunSync
from tripost.queue.message import Delivered, Outcome
from tripost.queue.shelf import Shelf

FIGURES = 5.0  # seconds between two; as long a segment stays open that nobody reads any more
READERS = 16  # threads that wait for the disk
SHORT = 200  # characters of a reply, where all of them together are too many for one answer


class Courier:
    """`end`: of the channel to the manager. `run` until that is gone."""

    def __init__(
        self,
        end: socket.socket,
        *,
        connect: Connect = connect_tcp,
        tls: ClientTls | None = None,
        files: Files | None = None,
        run_sync: RunSync | None = None,
    ) -> None:
        self.channel: Channel[FromManager, FromCourier] = Channel(end, FromManager, self._receive)
        self.here = Here(connect, tls or ClientTls(trio.current_time))
        self.files: Files = files or RealFiles()
        self.run_sync = run_sync or _threads()
        self.shelf: Shelf | None = None  # until the manager has said where the spool is
        self.tracers: list[Any] = []  # not empty while somebody listens at the manager
        self._sessions: dict[int, _Session] = {}
        self._nursery: trio.Nursery

    async def run(self) -> str:
        """Why the channel is gone."""
        async with trio.open_nursery() as self._nursery:
            self.channel.post(Hello(ROLE, VERSION, os.getpid()))
            self._nursery.start_soon(self._tell)
            why = await self.channel.run()
            self._nursery.cancel_scope.cancel()
        return why

    def _receive(self, number: int, message: FromManager) -> None:
        kind = type(message)
        if kind is Deliver or kind is Close:
            session = self._sessions.get(message.connection)  # type: ignore[union-attr]
            if session is None:  # it has ended by itself, which its last answer told
                self.channel.reply(number, Wrong("there is no such connection"))
            else:
                session.order(number, message)  # type: ignore[arg-type]
        elif isinstance(message, Open):
            session = self._sessions[message.connection] = _Session(self, message)
            self._nursery.start_soon(session.run, number)
        elif isinstance(message, Abort):
            if message.connection in self._sessions:
                self._sessions[message.connection].scope.cancel()
        elif isinstance(message, Trace):
            self.tracers[:] = [True] if message.on else []
        elif isinstance(message, Begin):
            self.shelf = Shelf(self.files, message.spool, self.run_sync)

    def ended(self, connection: int) -> None:
        del self._sessions[connection]

    async def _tell(self) -> None:
        while True:
            await trio.sleep(FIGURES)
            self.channel.offer(self.figures())
            if self.shelf is not None:
                self.shelf.close()  # a segment that is removed meanwhile gives back its room

    def figures(self) -> Figures:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Figures(time.process_time(), memory, self.channel.dropped)


class _Session:
    """One connection and its task."""

    def __init__(self, courier: Courier, opening: Open) -> None:
        self._courier = courier
        self._channel = courier.channel
        self._open = opening
        self._number = opening.connection
        self.scope = trio.CancelScope()
        self._orders: list[tuple[int, Deliver | Close]] = []
        self._task: trio.lowlevel.Task | None = None  # while it waits for an order

    def order(self, number: int, message: Deliver | Close) -> None:
        self._orders.append((number, message))
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    async def _next(self) -> tuple[int, Deliver | Close]:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        if not self._orders:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(abort)
        return self._orders.pop(0)

    async def run(self, number: int) -> None:
        answering = number
        try:
            with self.scope:
                connection = await self._opened(number)
                if connection is None:
                    return
                answer: Done | Unread | Closed = Closed()
                try:
                    while connection.usable:
                        answering, order = await self._next()
                        if isinstance(order, Close):
                            break
                        answer = await self._deliver(connection, order)
                        if connection.usable:
                            self._answer(answering, answer)
                            answer = Closed()
                finally:
                    await connection.close()
                self._answer(answering, answer)
        except ChannelGone:
            pass  # nobody is left to hear of it
        except Exception as wrong:  # the worker's boundary, which is here for what happens here
            self._channel.reply(answering, Wrong(f"{type(wrong).__name__}: {wrong}"))
        finally:
            self._courier.ended(self._number)

    async def _opened(self, number: int) -> Connection | None:
        """None when it could not be, which is told."""
        order = self._open.order
        spare, dialogue = _Asking(self._channel, self._open), _Far(self._courier, self._number, order.host)
        try:
            one = await self._courier.here.open(order, spare, dialogue)
        except Down as wrong:
            self._channel.reply(
                number,
                Refused(str(wrong), wrong.enhanced, wrong.host, wrong.phase, wrong.code, wrong.timeout),
            )
            return None
        except Unroutable as wrong:
            self._channel.reply(number, Refused(wrong.text, wrong.enhanced, hopeless=True))
            return None
        self._channel.reply(
            number,
            Opened(
                one.address,
                one.tls,
                one.verified,
                one.connect,
                one.greeting,
                one.handshake,
                one.recipients,
                one.most_messages,
            ),
        )
        return one

    async def _deliver(self, connection: Connection, order: Deliver) -> Done | Unread:
        shelf = self._courier.shelf
        assert shelf is not None  # nothing is to be delivered before
        try:
            message = await shelf.read(order.place)
            envelope = message.envelope
            recipients = envelope.recipients
            if order.recipients:
                wanted = set(order.recipients)
                recipients = tuple([one for one in recipients if one.id in wanted])

            async def open_reader() -> BodyReader:
                return shelf.open_body(message)

            opened = marked(open_reader, order.alias) if order.alias else open_reader
            cargo = Cargo(envelope, recipients, opened, order.now)
            outcomes = await connection.deliver(cargo, self._turn if order.paced else None)
        except SpoolError as wrong:
            return Unread(str(wrong), connection.messages, connection.usable)
        return Done(outcomes, connection.messages, connection.usable, connection.stale)

    def _answer(self, number: int, what: Done | Unread | Closed) -> None:
        try:
            self._channel.reply(number, what)
        except FrameError:  # a host with much to say to each of many: what it decided must not be lost for its words
            assert isinstance(what, Done)
            self._channel.reply(number, msgspec.structs.replace(what, outcomes=_shortened(what.outcomes)))

    async def _turn(self) -> None:
        answer = await self._channel.ask(Turn(self._number))
        if isinstance(answer, Answer) and not answer.yes:
            raise SpoolError(answer.text)


class _Asking(Spare):
    """The manager's room."""

    def __init__(self, channel: Channel[FromManager, FromCourier], opening: Open) -> None:
        self._channel = channel
        self._number = opening.connection
        self._paced = opening.paced

    async def take(self) -> bool:
        answer = await self._channel.ask(Room(self._number))
        return isinstance(answer, Answer) and answer.yes

    def give(self) -> None:
        self._channel.post(RoomGone(self._number))

    async def ready(self) -> None:
        if self._paced:
            await self._channel.ask(Ready(self._number))


class _Far(Dialogue):
    """A dialogue whose listeners are at the manager."""

    __slots__ = ("_channel",)

    def __init__(self, courier: Courier, number: int, host: str) -> None:
        super().__init__(courier.tracers, number, DELIVERY, host, ())
        self._channel = courier.channel

    def tell(self, direction: str, text: str) -> None:
        address = self.names[-1] if self.names else ""
        self._channel.offer(Said(self.number, self.client, address, direction, text))


def _shortened(outcomes: dict[int, Outcome]) -> dict[int, Outcome]:
    shorter: dict[int, Outcome] = {}
    for id, one in outcomes.items():
        if isinstance(one, Delivered):
            shorter[id] = msgspec.structs.replace(one, reply=one.reply[:SHORT])
        else:
            shorter[id] = msgspec.structs.replace(one, text=one.text[:SHORT])
    return shorter


def _threads() -> RunSync:
    limiter = trio.CapacityLimiter(READERS)

    async def run_sync(work: Callable[[], object]) -> object:
        return await trio.to_thread.run_sync(work, limiter=limiter)

    return run_sync
