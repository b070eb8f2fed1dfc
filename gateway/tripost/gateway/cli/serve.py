"""tripost serve: run one gateway until a signal ends it"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from tripost.gateway.config import Config, Loaded
from tripost.gateway.inherited import Inherited
from tripost.gateway.lifecycle import StartError, Stop, leaves, watch_signals
from tripost.gateway.notify import Notifier
from tripost.gateway.privileges import PrivilegeError, give_up
from tripost.gateway.sockets import ListenError

if TYPE_CHECKING:
    from tripost.gateway.app import Gateway
    from tripost.gateway.processes.house import House


def run(config: Config, read: Callable[[], Loaded]) -> int:
    notifier = Notifier()
    try:
        inherited = Inherited()
        give_up(config, inherited)
    except (ListenError, PrivilegeError, OSError) as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return 2
    if config.processes != 1:
        from tripost.gateway.processes import supervisor

        return supervisor.run(config, inherited, notifier)
    return run_here(config, read, inherited, notifier)


def run_here(
    config: Config,
    read: Callable[[], Loaded] | None,
    inherited: Inherited,
    notifier: Notifier,
    house: House | None = None,
) -> int:
    """In this process; `house`: what the manager has of others."""
    from tripost.gateway.app import Gateway
    from tripost.gateway.observe.log import EventLog

    log = EventLog(config.events.file, config.events.format)
    try:
        log.open()
    except OSError as wrong:
        print(f"tripost: [events] {config.events.file or 'journal'}: {wrong.strerror}", file=sys.stderr)
        return 2
    gateway = Gateway(config, log, read, inherited, house)
    code = 2
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
        await nursery.start(watch_signals, stop, _say_nothing, gateway.hangup)
        nursery.start_soon(notifier.run, stop.wait)
        clean = await gateway.run(stop, notifier)
        nursery.cancel_scope.cancel()
    return clean


def _say_nothing(signal: str) -> None:
    """The events tell that the gateway is stopping, and why."""
