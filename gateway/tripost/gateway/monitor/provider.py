"""what the monitor knows of the gateway: the parts that it looks at, and nothing else

Everything here is asked in the process that owns the queue. `Sources` is what
app wires; the rest of the monitor takes its facts from it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from tripost.delivery.dispatcher import Dispatcher
from tripost.gateway.control.server import Upload, Verb
from tripost.gateway.lifecycle import Draining
from tripost.gateway.observe.observer import Observer
from tripost.queue.bus import Bus
from tripost.queue.errors import SpoolFull, SpoolUnsure
from tripost.queue.manager import Queue


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """`boot` differs between starts; `began` and `now` are wall-clock seconds; `connections`: those of clients, by
    service; `verbs`: what the control socket answers."""

    hostname: str
    version: str
    boot: int
    began: float
    now: Callable[[], float]
    bus: Bus
    queue: Queue
    dispatcher: Dispatcher
    draining: Draining
    observer: Observer
    connections: Callable[[], Mapping[str, int]]
    verbs: Mapping[str, Verb | Upload]
    short: Callable[[], str] = lambda: ""  # of room on the disk
    processes: Callable[[], str] = lambda: ""  # what is wrong with those that do a part of the work

    def unready(self) -> str:
        """Why no mail is taken now; "" when it is."""
        if self.draining.begun:
            return "it is stopping"
        if not self.queue.accepting:
            return SpoolUnsure.text
        try:
            self.queue.check_room(0)
        except SpoolFull as wrong:
            return str(wrong)
        return self.short() or self.processes()
