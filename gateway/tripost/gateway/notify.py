"""telling systemd how it is: sd_notify(3), Type=notify and WatchdogSec

API      `Notifier(environment)`; `started()` once connections are taken, so that it can be given to whoever wants a
         TaskStatus; `run(stop)` tells the watchdog that the event loop goes round, and the end when `stop` returns.
Promise  harmless without systemd, and when it does not take what we say. The variables are taken out of the
         environment: children do not speak for us. The next image of this process gets them: `variables`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping

import trio


class Notifier:
    """Of one process."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        names = "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"
        self.variables = {name: environment[name] for name in names if name in environment}
        address = environment.pop("NOTIFY_SOCKET", "")
        meant = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = environment.pop("WATCHDOG_USEC", "")
        self.interval = int(period) / 2e6 if meant and period.isdecimal() else 0.0  # seconds; 0: nobody watches
        self._socket: socket.socket | None = None
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    def tell(self, text: str) -> None:
        """`VARIABLE=value` lines."""
        if self._socket is not None:
            try:
                self._socket.sendto(text.encode(), self._address)
            except OSError:
                pass  # systemd is gone or busy: mail does not wait for it

    def started(self, value: None = None) -> None:
        self.tell("READY=1\nSTATUS=serving")

    def leaving(self) -> None:
        """Another image of this process goes on; it says when it is `started`."""
        self.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=restarting")

    async def run(self, stop: Callable[[], Awaitable[None]], leaving: Callable[[], bool]) -> None:
        """Until cancelled. `leaving`: the process does not end."""
        async with trio.open_nursery() as nursery:
            if self.interval:
                nursery.start_soon(self._watched)
            await stop()
            if not leaving():
                self.tell("STOPPING=1\nSTATUS=draining")

    async def _watched(self) -> None:
        while True:
            self.tell("WATCHDOG=1")
            await trio.sleep(self.interval)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
