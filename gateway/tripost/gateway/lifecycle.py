"""from starting to stopped

The first SIGTERM or SIGINT asks for a drain: accepting stops, sessions and
deliveries may finish within `drain` seconds. A second signal stops at once.
Whatever is cut is safe: a message is either acknowledged and on disk, or its
sender was never told 250.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import cast

import trio


class StartError(Exception):
    """The gateway could not start; the text says what and why."""


class Stop:
    """Tells everybody that cares that the gateway is to stop, and why."""

    def __init__(self) -> None:
        self._soft = trio.Event()
        self._hard = trio.Event()
        self.reason = ""

    def request(self, reason: str) -> None:
        """First call: drain. Second call: at once."""
        if self._soft.is_set():
            self._hard.set()
        self.reason = self.reason or reason
        self._soft.set()

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
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Turn SIGTERM and SIGINT into `stop.request`, and SIGHUP into `hangup`; runs until cancelled."""
    numbers = [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hangup is not None else [])]
    with trio.open_signal_receiver(*numbers) as received:
        task_status.started()
        async for number in received:
            if hangup is not None and number == signal.SIGHUP:
                hangup()
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
