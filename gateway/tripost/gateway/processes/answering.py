"""the manager's side of its ingress processes

Counts for all of them what must be exact, passes on what one has seen to the
others, takes their events. Mail comes by the log, not from here.

Promise  what an ingress process had counted is given back when its line ends.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections import Counter
from collections.abc import Callable

import trio

from tripost.gateway import sockets
from tripost.gateway.admission import Admission
from tripost.gateway.guard import Guard
from tripost.gateway.ingress.quotas import Quotas
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
from tripost.queue.channel import Channel
from tripost.queue.dialogue import Dialogue
from tripost.queue.events import Shed

_CREDENTIALS = struct.Struct("3i")
SESSIONS = 1_000_000_000  # of a process, so that sessions' numbers differ


class _Line:
    """One ingress process; `clients`: whom it was counted for."""

    def __init__(self, end: socket.socket, all_: Ingress) -> None:
        self.number = 0
        self.clients: Counter[str] = Counter()
        self.figures = Figures({}, 0)
        self._all = all_
        self.channel: Channel[FromIngress, FromManager] = Channel(end, FromIngress, self._heard)

    def _heard(self, number: int, word: FromIngress) -> None:
        all_ = self._all
        if isinstance(word, Happened):
            all_.bus.emit(word.event)
            if isinstance(word.event, Shed):
                all_.admission.sheds.note(word.event.connections, word.event.wait, word.event.time)
        elif isinstance(word, Enter):
            why = all_.admission.enter(word.client, trio.current_time())
            if not why:
                self.clients[word.client] += 1
            self.channel.reply(number, Verdict(why))
        elif isinstance(word, Leave):
            self.clients[word.client] -= 1
            all_.admission.leave(word.client)
        elif isinstance(word, Give):
            all_.quotas.give_back(word.kind, word.key, trio.current_time())
        elif isinstance(word, Take):
            self.channel.reply(number, Wait(all_.quotas.take_now(word.kind, word.key, trio.current_time())))
        elif isinstance(word, Login):
            all_.login(word, self)
        elif isinstance(word, Full):
            self.channel.reply(number, Verdict(all_.full(word.account)))
        elif isinstance(word, Said):
            session = self.number * SESSIONS + word.session
            tracers = all_.bus.tracing.tracers
            Dialogue(tracers, session, word.service, word.client, ()).tell(word.direction, word.text)
        elif isinstance(word, Figures):
            self.figures = word
        else:
            self._hello(word)

    def _hello(self, word: Hello) -> None:
        self.number = word.number
        for client in word.clients:  # they are in, whatever the limits say now
            self._all.admission.admit(client)
            self.clients[client] += 1
        self.channel.post(Trace(bool(self._all.bus.tracing.tracers)))
        self.channel.post(Known(self._all.guard.known(trio.current_time())))

    def end(self) -> None:
        for client in self.clients.elements():
            self._all.admission.leave(client)
        self.clients.clear()


class Ingress:
    """All ingress processes; `full(account)`: why its mailbox takes nothing. One that is silent for 30 s is killed."""

    def __init__(
        self, bus: Bus, admission: Admission, quotas: Quotas, guard: Guard, full: Callable[[str], str]
    ) -> None:
        self.bus = bus
        self.admission = admission
        self.quotas = quotas
        self.full = full
        self.guard = guard
        self._lines: set[_Line] = set()
        guard.told = self._tell_all
        bus.tracing.watchers.append(self._trace)

    @property
    def open(self) -> Counter[str]:
        """Connections by service."""
        found: Counter[str] = Counter()
        for line in self._lines:
            found.update(line.figures.open)
        return found

    @property
    def lost(self) -> int:
        """Events that did not come through."""
        return sum(line.figures.lost for line in self._lines)

    async def run(self, listener: socket.socket) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                for end, _ in await sockets.accept(listener):
                    data = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                    pid, uid, _ = _CREDENTIALS.unpack(data)
                    if uid != os.geteuid():
                        end.close()
                        continue
                    try:
                        process = os.pidfd_open(pid)
                    except OSError:  # it is dead already
                        end.close()
                        continue
                    nursery.start_soon(self._speak, end, process)

    async def _speak(self, end: socket.socket, process: int) -> None:
        line = _Line(end, self)
        self._lines.add(line)
        try:
            why = await line.channel.run()
            if why.startswith("silent"):  # stopped, or in an endless loop: the supervisor starts another
                signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(process)
            self._lines.discard(line)
            line.end()

    def _trace(self) -> None:
        for line in self._lines:
            line.channel.post(Trace(bool(self.bus.tracing.tracers)))

    def login(self, word: Login, but: _Line) -> None:
        if word.failed:
            self.guard.note_failed(word.client, word.account, trio.current_time())
        else:
            self.guard.note_succeeded(word.account)
        self._tell_others(word, but)

    def _tell_all(self, client: str, account: str, failed: bool) -> None:
        self._tell_others(Login(client, account, failed), None)

    def _tell_others(self, word: Login, but: _Line | None) -> None:
        for line in self._lines:
            if line is not but:
                line.channel.post(word)
