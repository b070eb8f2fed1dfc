"""an ingress process's line to the manager

Kept open by itself: when the manager dies it is tried again until there is
another. What must be exact over all processes is asked of the manager; while
there is none, this process decides with what it knows alone.

Promise  nobody waits for the manager longer than PATIENCE seconds. Events and
         dialogue are dropped, and counted, rather than waited for.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

import trio

from tripost.delivery.routing import Refusal
from tripost.gateway.processes.words import (
    Enter,
    Figures,
    FromIngress,
    FromManager,
    Full,
    Give,
    Happened,
    Hello,
    Known,
    Leave,
    Login,
    Said,
    Take,
    Trace,
    Verdict,
    Wait,
)
from tripost.queue.bus import Bus
from tripost.queue.channel import Channel, ChannelGone
from tripost.queue.dialogue import Line, Tracer, Wanted
from tripost.queue.events import Event, Shed

PATIENCE = 5.0  # seconds for an answer
AGAIN = 0.2  # seconds until the manager is looked for again
TELL = 1.0  # seconds between figures


class Manager:
    """`login`: told when a login failed, or not, in another process; `open`: connections by service."""

    def __init__(self, path: str, number: int, run: int, bus: Bus, open_: Counter[str]) -> None:
        self._path = path
        self._number = number
        self._run = run
        self._bus = bus
        self._open = open_
        self._channel: Channel[FromManager, FromIngress] | None = None
        self._counted: Counter[str] = Counter()  # clients as the manager counts them
        self._lost = 0  # with channels that are gone
        self._ear = _Ear(self._say)
        self._told_before = False
        self.known: Callable[[Known], None] = lambda known: None
        self.login: Callable[[Login], None] = lambda login: None
        bus.add_sink(self._tell)

    # --- the line ---

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._figures)
            while True:
                end = await self._connect()
                if end is not None:
                    await self._speak(end)
                await trio.sleep(AGAIN)

    async def _connect(self) -> socket.socket | None:
        end = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        try:
            await end.connect(self._path)
            return socket.socket(fileno=end.detach())
        except OSError:
            end.close()
            return None

    async def _speak(self, end: socket.socket) -> None:
        channel: Channel[FromManager, FromIngress] = Channel(end, FromManager, self._heard)
        channel.post(Hello(self._number, self._run, list(self._counted.elements())))
        self._channel = channel
        try:
            await channel.run()
        finally:
            self._channel = None
            self._lost += channel.dropped
            self._listen(on=False)

    def _heard(self, number: int, word: FromManager) -> None:
        if isinstance(word, Login):
            self.login(word)
        elif isinstance(word, Known):
            if not self._told_before:  # later, we know what there was, and have heard the rest
                self._told_before = True
                self.known(word)
        elif isinstance(word, Trace):
            self._listen(on=word.on)

    async def _figures(self) -> None:
        told = Figures({}, 0)
        while True:
            await trio.sleep(TELL)
            channel = self._channel
            if channel is None:
                told = Figures({}, 0)
                continue
            now = Figures(dict(self._open), self._lost + channel.dropped)
            if now != told:
                channel.post(now)
                told = now

    async def _ask(self, word: FromIngress) -> FromManager | None:
        """None where there is no manager, or it does not answer."""
        channel = self._channel
        if channel is None:
            return None
        with trio.move_on_after(PATIENCE):
            try:
                return await channel.ask(word)
            except ChannelGone:
                pass
        return None

    def post(self, word: FromIngress) -> None:
        """Lost where there is no manager."""
        if self._channel is not None:
            self._channel.post(word)

    # --- what is asked ---

    async def enter(self, client: str) -> str | None:
        """Why a client may not connect; "" when it is counted; None where nobody can tell."""
        answer = await self._ask(Enter(client))
        if not isinstance(answer, Verdict):
            return None
        if not answer.why:
            self._counted[client] += 1
        return answer.why

    def leave(self, client: str) -> bool:
        """A client is gone; False when the manager did not count it."""
        if not self._counted[client]:
            del self._counted[client]
            return False
        self._counted[client] -= 1
        if not self._counted[client]:
            del self._counted[client]
        self.post(Leave(client))
        return True

    async def take(self, kind: str, key: str, amount: int) -> float | None:
        """Seconds to wait; None where nobody can tell."""
        answer = await self._ask(Take(kind, key, amount))
        return answer.seconds if isinstance(answer, Wait) else None

    def give(self, kind: str, key: str, amount: int) -> None:
        self.post(Give(kind, key, amount))

    async def full(self, account: str) -> Refusal | None:
        """Why its mailbox takes nothing; None when it does, or nobody can tell."""
        answer = await self._ask(Full(account))
        if not isinstance(answer, Verdict) or not answer.why:
            return None
        code, enhanced, text = answer.why.split(" ", 2)
        return Refusal(int(code), enhanced, text)

    # --- what is told ---

    def _tell(self, event: Event) -> None:
        channel = self._channel
        if channel is None:
            self._lost += 1
        elif isinstance(event, Shed):  # seldom, and what is lost while much is to be told is what it counts
            channel.post(Happened(event))
        else:
            channel.offer(Happened(event))  # type: ignore[arg-type]

    def _listen(self, *, on: bool) -> None:
        tracers = self._bus.tracing.tracers
        if on and self._ear not in tracers:
            tracers.append(self._ear)
        elif not on and self._ear in tracers:
            tracers.remove(self._ear)

    def _say(self, line: Line) -> None:
        if self._channel is not None:
            self._channel.offer(Said(line.session, line.service, line.peer, line.direction, line.text))


class _Ear(Tracer):
    """Takes every line, for the manager."""

    def __init__(self, say: Callable[[Line], None]) -> None:
        super().__init__(Wanted())
        self._say = say

    def offer(self, line: Line) -> None:
        self._say(line)
