"""the delivery processes, as the manager sees them

Opens each connection in the process that has fewest of them, answers what the
processes ask back, and knows when one is dead.

Promise  A connection counts, with its site and here, until its process has said that
         the socket is closed, or the process is certainly dead: its descriptor
         (pidfd) says so. One that hangs up, talks nonsense, or is silent for 30
         seconds is killed. While none is alive workers wait; nothing is tried, and
         nothing counts as tried.
Fails    Interrupted, for whoever had a connection there.
Why      limits are decided in one place only, here, by those who decide them when
         there is one process; the processes hold no state but their sockets.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import msgspec
import trio

from tripost.delivery.links import Down, Interrupted, Order, Spare, Unroutable
from tripost.delivery.processes.far import FarLink, Hold, OwnFault
from tripost.delivery.processes.messages import (
    VERSION,
    Answer,
    Begin,
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
)
from tripost.queue.bus import Bus
from tripost.queue.channel import Channel, ChannelGone
from tripost.queue.clock import Clock
from tripost.queue.dialogue import Dialogue
from tripost.queue.errors import SpoolError
from tripost.queue.events import Trouble

SUSPECTS = 10_000  # messages that were under way when a process died
KILL_AFTER = 1.0  # seconds that a process has to end by itself once its channel is gone

Death = Callable[[], Awaitable[None]]  # returns when a process is certainly dead


class MemberStatistics(msgspec.Struct, frozen=True):
    """One process, since it began; `connections`: now."""

    name: str
    pid: int
    connections: int
    opened: int
    messages: int
    seconds: float
    memory: int


class CrewStatistics(msgspec.Struct, frozen=True):
    """`opened`, `messages`, `seconds` of the processor: of all that ever were, so that they only grow."""

    alive: int
    deaths: int
    connections: int
    opened: int
    messages: int
    seconds: float
    members: list[MemberStatistics]


class Member:
    """One process; `death` returns when it is certainly dead. `holds`: its connections, by number."""

    def __init__(self, crew: Crew, name: str, pid: int, end: socket.socket, death: Death) -> None:
        self._crew = crew
        self.name = name
        self.pid = pid
        self.channel: Channel[FromCourier, FromManager] = Channel(end, FromCourier, self._receive)
        self.dead = trio.Event()
        self.holds: dict[int, Hold] = {}
        self.greeted = False
        self.opened = self.messages = 0
        self.figures = Figures()
        self._death = death
        self._nursery: trio.Nursery

    async def run(self, spool: str) -> str:
        """Until it is dead: why."""
        async with trio.open_nursery() as self._nursery:
            self.channel.post(Begin(spool))
            self.trace()
            why = await self.channel.run()
            self.greeted = False
            await self._death()
            self._nursery.cancel_scope.cancel()
        for hold in self.holds.values():
            hold.closed()
        self.holds.clear()
        self.dead.set()
        return why

    def trace(self) -> None:
        self.channel.post(Trace(bool(self._crew.bus.tracing.tracers)))

    def suspicious(self, id: str) -> bool:
        """See Holder."""
        return self._crew.suspicious(id)

    def forget(self, number: int) -> None:
        """See Holder."""
        hold = self.holds.pop(number, None)
        if hold is not None:
            hold.closed()

    def _receive(self, number: int, message: FromCourier) -> None:
        if isinstance(message, Hello):
            if message.version == VERSION:
                self.greeted = True
                self._crew.arrived()
            else:
                self.channel.close("it is of another version than this gateway")
        elif isinstance(message, Figures):
            self.figures = message
        elif isinstance(message, (Said, Room, RoomGone, Ready, Turn)):
            hold = self.holds.get(message.connection)
            if isinstance(message, Said):
                if hold is not None:
                    hold.said(message)
            elif isinstance(message, RoomGone):
                if hold is not None and hold.extras:
                    hold.extras -= 1
                    hold.spare.give()
            elif hold is not None:  # whoever has aborted it does not wait for the answer
                self._nursery.start_soon(self._allow, number, message, hold)

    async def _allow(self, number: int, what: Room | Ready | Turn, hold: Hold) -> None:
        answer = Answer()
        try:
            if isinstance(what, Room):
                answer = Answer(not hold.over and await hold.spare.take())
                hold.extras += answer.yes
            elif isinstance(what, Ready):
                await hold.spare.ready()
            elif hold.turn is not None:
                await hold.turn()
        except SpoolError as wrong:  # the rate could not be noted
            answer = Answer(False, str(wrong))
        self.channel.reply(number, answer)


class Crew:
    """See Opener. `spool`: the folder in which contents stand. `adopt` and `serve` bring processes in."""

    def __init__(self, spool: str, bus: Bus, clock: Clock) -> None:
        self._spool = spool
        self.bus = bus
        self._clock = clock
        self._members: list[Member] = []
        self._number = 0  # of the last connection
        self._named = 0
        self._changed = trio.Event()
        self._stopped = False
        self._suspects: OrderedDict[str, None] = OrderedDict()
        self._past = (0, 0, 0.0)  # opened, messages, seconds of those that are dead
        self._deaths = 0
        bus.tracing.watchers.append(self._trace)

    # --- processes ---

    async def serve(self, listening: socket.socket) -> None:
        """Take in whoever connects, if it is of our own user; until cancelled."""
        taking = trio.socket.from_stdlib_socket(listening)
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    one, _ = await taking.accept()
                except OSError as wrong:
                    if wrong.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ECONNABORTED):
                        raise
                    await trio.sleep(1.0)
                    continue
                end = socket.socket(fileno=one.detach())
                pid, uid = _peer(end)
                if uid == os.geteuid():
                    nursery.start_soon(self.adopt, end, pid)
                else:
                    end.close()

    async def adopt(self, end: socket.socket, pid: int, death: Death | None = None) -> None:
        """Have a process in the crew until it is dead. `death`: how that is found out, by default from the system."""
        self._named += 1
        name = f"delivery process {self._named}"
        try:
            ended = death or _Descriptor(pid).ended
        except OSError as wrong:  # it is dead already
            end.close()
            self._trouble(f"{name} (pid {pid}): {wrong.strerror}")
            return
        member = Member(self, name, pid, end, ended)
        self._members.append(member)
        try:
            why = await member.run(self._spool)
        finally:
            self._members.remove(member)
        self._deaths += 1
        self._past = _sum(self._past, member)
        self._news()
        if not self._stopped:
            self._trouble(f"{name} (pid {pid}) ended: {why}")

    def arrived(self) -> None:
        """One more can open connections."""
        self._news()

    def _news(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _trouble(self, reason: str) -> None:
        self.bus.emit(Trouble(time=self._clock.now(), where="delivery", reason=reason))

    def _trace(self) -> None:
        for one in self._members:
            one.trace()

    def suspicious(self, id: str) -> bool:
        """See Holder."""
        if id in self._suspects:
            del self._suspects[id]
            return True
        self._suspects[id] = None
        if len(self._suspects) > SUSPECTS:
            self._suspects.popitem(last=False)
        return False

    # --- Opener ---

    def _best(self) -> Member | None:
        alive = [one for one in self._members if one.greeted]
        return min(alive, key=_load, default=None)

    async def ready(self) -> None:
        """See Opener."""
        while not self._stopped and self._best() is None:
            await self._changed.wait()
        if self._stopped and self._best() is None:
            raise Interrupted("no delivery process is alive")

    def stop(self) -> None:
        """See Opener."""
        self._stopped = True
        self._news()

    async def open(self, order: Order, spare: Spare, dialogue: Dialogue) -> FarLink:
        """See Opener."""
        while True:
            await self.ready()
            member = self._best()
            if member is not None:
                break
        self._number += 1
        hold = member.holds[self._number] = Hold(member, self._number, spare, dialogue)
        dialogue.also(order.host)
        try:
            answer = await member.channel.ask(Open(hold.number, order, spare.paced))
        except ChannelGone:
            await member.dead.wait()
            raise Interrupted(f"{member.name} ended") from None
        except BaseException:
            hold.abort()
            raise
        if isinstance(answer, Opened):
            member.opened += 1
            return FarLink(hold, order.host, answer)
        member.forget(hold.number)
        if not isinstance(answer, Refused):
            raise OwnFault(getattr(answer, "text", type(answer).__name__))
        if answer.hopeless:
            raise Unroutable(answer.enhanced, answer.text)
        raise Down(
            answer.text,
            enhanced=answer.enhanced,
            host=answer.host,
            phase=answer.phase,
            code=answer.code,
            timeout=answer.timeout,
        )

    def close(self) -> None:
        """Send all processes home."""
        for one in self._members:
            one.channel.close("sent home")

    def statistics(self) -> CrewStatistics:
        rows = [
            MemberStatistics(
                one.name,
                one.pid,
                len(one.holds),
                one.opened,
                one.messages,
                one.figures.seconds,
                one.figures.memory,
            )
            for one in self._members
        ]
        ever = self._past
        for one in self._members:
            ever = _sum(ever, one)
        alive = sum(one.greeted for one in self._members)
        connections = sum(row.connections for row in rows)
        return CrewStatistics(alive, self._deaths, connections, *ever, rows)


def _load(member: Member) -> int:
    return len(member.holds)


def _sum(ever: tuple[int, int, float], one: Member) -> tuple[int, int, float]:
    return ever[0] + one.opened, ever[1] + one.messages, ever[2] + one.figures.seconds


def _peer(end: socket.socket) -> tuple[int, int]:
    """pid and uid of who connected."""
    pid, uid, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


class _Descriptor:
    """A process, whoever started it (pidfd_open(2)). Raises OSError when there is none."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    async def ended(self) -> None:
        """Returns when it is dead; it is killed where it does not end by itself."""
        try:
            with trio.move_on_after(KILL_AFTER):
                await trio.lowlevel.wait_readable(self._descriptor)
                return
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
            await trio.lowlevel.wait_readable(self._descriptor)
        finally:
            os.close(self._descriptor)
