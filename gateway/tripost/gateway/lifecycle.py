"""from starting to stopped

The first SIGTERM or SIGINT asks for a drain: accepting stops, sessions and
deliveries may finish within `drain` seconds. A second signal stops at once.
Whatever is cut is safe: a message is either acknowledged and on disk, or its
sender was never told 250. A restart ends in the same way, within HANDING
seconds and with the listening sockets open; a signal makes an end of it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import cast

import trio

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)  # which we heed
HANDING = 1.0  # seconds that sessions and deliveries have before another image of this process takes their place


class StartError(Exception):
    """The gateway could not start; the text says what and why."""


class Stop:
    """Tells everybody that cares that the gateway is to stop, and why."""

    def __init__(self) -> None:
        self._soft = trio.Event()
        self._hard = trio.Event()
        self.reason = ""
        self.leaving = False  # for another image of this process

    def request(self, reason: str) -> None:
        """First call: drain; a restart becomes one. Second call: at once."""
        if self._soft.is_set() and not self.leaving:
            self._hard.set()
        self.leaving = False
        self.reason = self.reason or reason
        self._soft.set()

    def leave(self, reason: str) -> None:
        """End, within HANDING seconds, for another image of this process; nothing once an end was asked for."""
        if not self._soft.is_set():
            self.leaving, self.reason = True, reason
            self._soft.set()

    def within(self, drain: float) -> float:
        """Seconds that there are for what is under way."""
        return HANDING if self.leaving else drain

    @property
    def asked(self) -> bool:
        return self._soft.is_set()

    async def wait(self) -> None:
        await self._soft.wait()

    async def wait_hard(self) -> None:
        await self._hard.wait()


class Draining:
    """Ends the waits of sessions that have nothing under way, once draining has begun."""

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._told: set[Callable[[], None]] = set()
        self.begun = False

    def begin(self) -> None:
        self.begun = True
        for scope in self._scopes:
            scope.cancel()
        for tell in self._told:
            tell()

    def watch(self, tell: Callable[[], None]) -> Callable[[], None]:
        """`tell` is called when draining begins, until what this returns is called."""
        self._told.add(tell)
        return lambda: self._told.discard(tell)

    @contextmanager
    def waiting(self, seconds: float) -> Generator[trio.CancelScope]:
        """A wait of at most `seconds` that draining cuts."""
        with trio.move_on_after(seconds) as scope:
            self._scopes.add(scope)
            if self.begun:
                scope.cancel()
            try:
                yield scope
            finally:
                self._scopes.discard(scope)


async def watch_signals(
    stop: Stop,
    told: Callable[[str], None],
    hangup: Callable[[], None] | None = None,
    restart: Callable[[], None] | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Turn SIGTERM and SIGINT into `stop.request`, SIGHUP into `hangup`, SIGUSR2 into `restart`; runs until cancelled.
    Those that came while they were held (`handover.hold_signals`) come now."""
    others = {signal.SIGHUP: hangup, signal.SIGUSR2: restart}
    wanted = {number: what for number, what in others.items() if what is not None}
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, *wanted) as received:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        task_status.started()
        async for number in received:
            if number in wanted:
                wanted[signal.Signals(number)]()
                continue
            name = signal.Signals(number).name
            told(name)
            stop.request(name)


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions in a group, at whatever depth."""
    found: list[BaseException] = []
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            found += leaves(cast("BaseExceptionGroup[BaseException]", one))
        else:
            found.append(one)
    return found
