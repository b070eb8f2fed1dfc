"""a listener whose clients may be told to come again later

Takes connections from the backlog, a few at a time, and refuses those of which
`overload` says so: one octet string, sent without waiting, and closed.

Promise  Whoever is refused is told 421 before anything is begun for it: no task, no event of
         its own. That costs a tenth of what a message does, so that shedding is what the
         machine can do most of.
Bounds   A Unix socket does not tell what its clients waited: they waited at least as long as
         the others of this process took for their last turn.
"""

from __future__ import annotations

import socket as stdlib_socket
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from tripost.gateway import sockets
from tripost.gateway.admission import BUSY, Admission
from tripost.gateway.overload import Overload, Word
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Shed, Trouble

if TYPE_CHECKING:
    from tripost.gateway.listeners import Service

# Those whose clients are programs that try again; people's submission and mailboxes are served late instead.
SHED = frozenset({"smtp", "lmtp"})


class Shedder:
    """Of one listener; `admission.lag` is the limit."""

    def __init__(self, service: Service, admission: Admission, bus: Bus, clock: Clock) -> None:
        self._service = service
        self._admission = admission
        self._bus = bus
        self._clock = clock
        self._overload = Overload()
        self._more = False  # the last turn left some waiting
        self._since = trio.current_time() if service.open_before else -inf  # clients came before: a restart

    async def accept(self, listener: stdlib_socket.socket, most: int) -> list[tuple[stdlib_socket.socket, Any]]:
        """Up to `most` that are let in, with their addresses; none where all were refused, or it is time to tell
        something. Raises OSError."""
        asked = trio.current_time()
        found: list[tuple[stdlib_socket.socket, Any]] = []
        if self._overload.due == inf:
            found = await sockets.accept(listener, most)
        else:
            with trio.move_on_at(self._overload.due):
                found = await sockets.accept(listener, most)
        now = trio.current_time()
        if self._service.name in SHED and self._admission.lag:
            turn = now - asked if self._more else 0.0
            self._more = len(found) == most
            found = [one for one in found if not self._refused(one[0], turn, now)]
        word = self._overload.told(now, self._admission.lag)
        if word is not None:
            self._tell(word)
        return found

    def _refused(self, sock: stdlib_socket.socket, turn: float, now: float) -> bool:
        waited = sockets.waited(sock)
        if waited is not None and now - waited < self._since:
            return False
        if not self._overload.refuse(turn if waited is None else waited, now, self._admission.lag):
            return False
        self._admission.refused += 1
        try:
            if self._service.terms.tls != "implicit":  # a handshake is what overload cannot afford
                sock.send(self._service.busy(BUSY), stdlib_socket.MSG_DONTWAIT)
        except OSError:
            pass  # it is gone already
        sock.close()
        return True

    def _tell(self, word: Word) -> None:
        now, service = self._clock.now(), self._service.name
        self._admission.sheds.note(word.connections, word.wait, now)
        self._bus.emit(Shed(time=now, service=service, connections=word.connections, wait=word.wait, state=word.state))
        if word.news:
            why = f"overload: connections wait {word.wait:g} s; those above half of [limits] lag are told 421"
            self._bus.emit(Trouble(time=now, where=service, reason=why))
