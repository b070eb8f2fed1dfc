"""tripost serve: run one gateway until a signal ends it"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from tripost.gateway import handover
from tripost.gateway.config import Config, Loaded
from tripost.gateway.inherited import Inherited
from tripost.gateway.lifecycle import StartError, Stop, leaves, watch_signals
from tripost.gateway.notify import Notifier
from tripost.gateway.privileges import PrivilegeError, give_up
from tripost.gateway.sockets import ListenError

if TYPE_CHECKING:
    from tripost.gateway.app import Gateway
    from tripost.gateway.processes.house import House

CANNOT_START = 2  # exit code


def run(config: Config, read: Callable[[], Loaded]) -> int:
    handed = handover.take()
    if handed is not None and handed.trial:
        from tripost.gateway.trial import report

        return report(read(), handed)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # until we can heed it; children never do
    code = _start(config, read, handed)
    if handed is not None and code == CANNOT_START:
        print("tripost: the restart failed, nothing runs now", file=sys.stderr)
        return 1  # the configuration was tried out before: another start, by whoever watches us, may do
    return code


def _start(config: Config, read: Callable[[], Loaded], handed: handover.Handover | None) -> int:
    notifier = Notifier()
    try:
        inherited = Inherited()
        if handed is not None:
            handover.sockets_of(handed, inherited)
        give_up(config, inherited)
    except (ListenError, PrivilegeError, OSError) as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return CANNOT_START
    if handed is not None and (config.processes == 1 or handed.version != handover.VERSION):
        handed = handover.alone(handed)
    if config.processes != 1:
        from tripost.gateway.processes import supervisor

        return supervisor.run(config, read, inherited, notifier, handed)
    return run_here(config, read, inherited, notifier, handed=handed)


def run_here(
    config: Config,
    read: Callable[[], Loaded] | None,
    inherited: Inherited,
    notifier: Notifier,
    house: House | None = None,
    handed: handover.Handover | None = None,
) -> int:
    """In this process; `house`: what the manager has of others."""
    from tripost.gateway.app import Gateway
    from tripost.gateway.observe.log import EventLog

    log = EventLog(config.events.file, config.events.format)
    try:
        log.open()
    except OSError as wrong:
        print(f"tripost: [events] {config.events.file or 'journal'}: {wrong.strerror}", file=sys.stderr)
        return CANNOT_START
    gateway = Gateway(config, log, read, inherited, house, handed)
    code = CANNOT_START
    try:
        code = 0 if trio.run(partial(_serve, gateway, notifier)) else 1
    except* StartError as group:
        for leaf in leaves(group):
            print(f"tripost: {leaf}", file=sys.stderr)
    return code


async def _serve(gateway: Gateway, notifier: Notifier) -> bool:
    # A full collection looks at every object of every session: with 5,000 of them that is a pause of 200 ms for all.
    # What was imported is never looked at again, and the oldest generation rarely; sessions leave hardly any cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)
    stop = Stop()
    async with trio.open_nursery() as nursery:

        def restart() -> None:
            nursery.start_soon(gateway.restart_told)

        here = gateway.house is None
        await nursery.start(watch_signals, stop, _say_nothing, gateway.hangup, restart if here else None)
        nursery.start_soon(notifier.run, stop.wait, lambda: stop.leaving)
        clean = await gateway.run(stop, notifier)
        if here and stop.leaving:
            clean = await _leave(gateway, stop, notifier)
        nursery.cancel_scope.cancel()
    return clean


async def _leave(gateway: Gateway, stop: Stop, notifier: Notifier) -> bool:
    """Be the next image; returns when that was not to be: False when it could not."""
    undo = handover.hold_signals()
    await trio.lowlevel.checkpoint()  # those that came before are heard
    await trio.lowlevel.checkpoint()
    if not stop.leaving:  # SIGTERM: it was to end after all
        undo()
        return True
    notifier.leaving()
    try:
        handover.execute(gateway.picture(), notifier.variables)
    except OSError as wrong:
        print(f"tripost: {sys.executable}: {wrong.strerror}: the restart failed, nothing runs now", file=sys.stderr)
        return False


def _say_nothing(name: str) -> None:
    """The events tell that the gateway is stopping, and why."""
