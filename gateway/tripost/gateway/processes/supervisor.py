"""the process that starts the others

Holds the listening sockets and the spool's lock, starts the manager, ingress and
delivery processes by exec, and starts anew who dies. It touches no mail.

Promise  a connection that comes while a process is being started again waits in the
         socket's backlog; none is refused. A manager is started only when all
         delivery processes of the one before are dead. Who dies again and again
         is started more and more seldom (`backoff`), which is told, and the
         gateway says that it is not ready.
Stop     SIGTERM goes to the manager and to ingress, which drain side by side; what
         is left GRACE seconds after `[lifecycle] drain` is killed.
Restart  SIGUSR2: another image of this process (`handover`), which finds all of them
         alive and puts others in their places: see `relief`.
Fails    StartError: an address cannot be bound, the spool is in use; then, and when
         the first manager cannot start, nothing is left running.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial

import trio

from tripost.gateway.config import Loaded
from tripost.gateway.handover import DELIVERY, INGRESS, MANAGER, Handover, execute, hold_signals
from tripost.gateway.inherited import Inherited
from tripost.gateway.lifecycle import StartError, Stop, watch_signals
from tripost.gateway.notify import Notifier
from tripost.gateway.processes.changing import Changing
from tripost.gateway.processes.child import Child
from tripost.gateway.processes.hand import (
    RESTART,
    News,
)
from tripost.gateway.processes.orders import Running
from tripost.gateway.processes.relief import Relief, free_rows
from tripost.gateway.processes.starting import Common, delivering, how_many
from tripost.gateway.restarting import Restarting, RestartRefused
from tripost.gateway.settings import Config

GRACE = 5.0  # seconds beyond the drain
MOST_OLD = 3  # times as many ingress processes as there are may still be finishing when another restart begins
SILENCE = 30  # looks, one a second, at a process that shows no life
LOOK = 1.0
CANNOT_START = 2  # exit code


class Supervisor:
    """`run` once."""

    def __init__(
        self,
        config: Config,
        read: Callable[[], Loaded] | None,
        inherited: Inherited,
        notifier: Notifier,
        handed: Handover | None = None,
    ) -> None:
        """`read` reads the file anew, for a reload; `handed`: what the image before us left; its processes can be
        worked with."""
        self._config = config  # of the start
        self._read = read
        self._inherited = inherited
        self._notifier = notifier
        self._handed = handed or Handover(pid=os.getpid(), state=config.state)
        self._count = how_many(config)
        self._stop = Stop()
        self._leaving = False
        before = [Child.of(one) for one in self._handed.children]
        self._relief = Relief(before, self._handed.drain + GRACE, self._died)
        self._new = free_rows(before, self._count)  # of the board, for those that take mail in
        self._rows = max(self._handed.rows, *self._new)
        self._children = [Child(MANAGER, 0)]
        self._children += [Child(INGRESS, n) for n in self._new]
        self._children += [Child(DELIVERY, n) for n in range(1, delivering(config) + 1)]
        self._manager = self._children[0]
        self._restarting = Restarting(self._picture, self._leave)
        self._ever_ready = bool(before)
        self._failed = False
        self._common: Common
        self._changing: Changing

    def prepare(self) -> None:
        """Raises StartError."""
        common = self._common = Common(self._config, self._inherited, self._handed, self._rows, self._new)
        self._board = common.board
        self._changing = Changing(self._config, self._read, common.sockets, self._manager_serves, self._no_reload)

    # --- one child ---

    async def _keep(self, child: Child) -> None:
        """Have it alive until we stop."""
        try:
            if child.role != INGRESS:
                await self._relief.over.wait()
            while not self._stop.asked:
                if child.role == DELIVERY:
                    await self._manager_is_there()
                await self._changing.may_start()
                began = trio.current_time()
                try:
                    self._common.start(child, self._changing)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._watch, child)
                        if child.partner is not None:
                            nursery.start_soon(child.partner.run, self._changing.wanted)
                        code = await child.wait()
                        nursery.cancel_scope.cancel()
                    how = f"died: signal {-code}" if code < 0 else f"ended with code {code}"
                except OSError as wrong:
                    how, code = f"could not be started: {wrong.strerror}", -1
                await self._died(child)
                if self._stop.asked or not await self._again(child, how, code, trio.current_time() - began):
                    return
        finally:
            child.gone.set()

    async def _manager_is_there(self) -> None:
        while not self._board.ready and not self._stop.asked:  # noqa: ASYNC110  (shared memory)
            await trio.sleep(0.05)

    async def _died(self, child: Child) -> None:
        if child.partner is not None:
            self._changing.leave(child.partner)
            child.partner = None
        if child.role == INGRESS:
            self._board.enter(child.number, 0)
            os.eventfd_write(self._common.bell, 1)
        elif child.role == MANAGER:
            self._ever_ready = self._ever_ready or self._board.ready
            self._board.serve(False)
            # whose leases would be unknown to the next manager
            for one in [*self._children, *self._relief.before]:
                if one.role == DELIVERY and one.process is not None:
                    one.ended = one.process.returncode is None
                    one.signal(signal.SIGKILL)
                    await one.wait()

    async def _again(self, child: Child, how: str, code: int, lived: float) -> bool:
        """After what its death costs; False: not at all."""
        if child.role == MANAGER and not self._ever_ready and code == CANNOT_START:
            self._failed = True
            self._stop.request("the manager cannot start")
            return False
        if child.role == MANAGER and code == 0:
            self._stop.request("the manager was asked to end")  # tripost drain
            return False
        if child.ended:
            child.ended = False
            return True
        looped = child.backoff.looping
        delay = child.backoff.died(trio.current_time(), lived)
        text = f"{child.name} {how}; it is started again in {delay:g} s"
        if child.backoff.looping and not looped:
            self._common.tell(News(child.name, f"{child.name} dies again and again: {how}", loops=True))
        self._common.tell(News(child.name, text))
        with trio.move_on_after(delay):
            await self._stop.wait()
        return True

    async def _watch(self, child: Child) -> None:
        """Kill it when it shows no life; say when it lives after all."""
        began, beats, quiet = trio.current_time(), -1, 0
        while True:
            await trio.sleep(LOOK)
            if child.backoff.lives(trio.current_time() - began):
                self._common.tell(News(child.name, "", loops=True))
            if child.role == DELIVERY:
                continue  # the manager hears whether it lives
            now = self._board.beats(child.number)
            quiet = quiet + 1 if now == beats else 0
            beats = now
            if quiet >= SILENCE:
                self._common.tell(News(child.name, f"{child.name} shows no life for {SILENCE} s and is killed"))
                child.signal(signal.SIGKILL)
                return

    # --- another image of this process ---

    def _picture(self) -> Handover:
        """Raises RestartRefused."""
        if self._stop.asked:
            raise RestartRefused("the gateway is draining")
        if not self._relief.over.is_set():
            raise RestartRefused("the restart before is not over")
        if self._changing.busy:
            raise RestartRefused("a reload is under way")
        if len(self._relief.before) >= MOST_OLD * self._count:
            raise RestartRefused(f"{len(self._relief.before)} processes from before restarts still end their sessions")
        children = [one.old() for one in [*self._children, *self._relief.before]]
        return Handover(
            pid=os.getpid(),
            state=self._config.state,
            sockets=self._common.sockets.kept(),
            lock=self._common.lock.fileno(),
            drain=self._config.lifecycle.drain,
            board=self._common.shared,
            rows=self._rows,
            bell=self._common.bell,
            children=[one for one in children if one is not None],
        )

    def _restart(self, nursery: trio.Nursery) -> None:
        """SIGUSR2."""

        async def ask() -> None:
            try:
                await self._restarting.ask("SIGUSR2")
                await self._go()
            except RestartRefused as wrong:
                self._common.tell(News(RESTART, str(wrong)))

        nursery.start_soon(ask)

    def _leave(self, reason: str) -> None:
        self._leaving = True

    async def _go(self) -> None:
        """The manager makes room while we become the next image; ingress goes on until others are there. Does not
        return, but where it is not possible."""
        undo = hold_signals()
        await trio.lowlevel.checkpoint()  # those that came before are heard
        await trio.lowlevel.checkpoint()
        if self._stop.asked:
            undo()
            return
        self._notifier.leaving()
        handed = self._picture()
        self._common.tell(News(RESTART, ""))
        try:
            execute(handed, self._notifier.variables)
        except OSError as wrong:
            print(f"tripost: {sys.executable}: {wrong.strerror}: the restart failed", file=sys.stderr, flush=True)
            self._failed = True
            self._stop.request("the restart failed")

    # --- all of them ---

    async def run(self) -> int:
        """Until stopped: the exit code."""
        async with trio.open_nursery() as nursery:
            restart = partial(self._restart, nursery)
            await nursery.start(watch_signals, self._stop, _say_nothing, self._hangup, restart)
            nursery.start_soon(self._notifier.run, self._stop.wait, lambda: False)
            nursery.start_soon(self._tell_ready)
            nursery.start_soon(self._changing.run, self._others)
            async with trio.open_nursery() as keeping:
                keeping.start_soon(self._relief.run, self._board, self._new)
                for child in self._children:
                    keeping.start_soon(self._keep, child)
                await self._stop.wait()
                keeping.start_soon(self._end, keeping.cancel_scope)
            nursery.cancel_scope.cancel()
        codes = [one.process.returncode for one in self._children if one.process is not None and one.role != DELIVERY]
        clean = {0, -signal.SIGTERM}  # one that was told to end before it could heed it had nothing to cut
        return CANNOT_START if self._failed else int(not clean.issuperset(codes))

    async def _tell_ready(self) -> None:
        await self._manager_is_there()
        self._notifier.started()

    def _manager_serves(self) -> bool:
        return self._board.ready

    def _no_reload(self) -> str:
        """Why not now."""
        if self._stop.asked:
            return "the gateway is ending"
        started = all(one.finishing for one in self._relief.before)
        return "a restart is under way" if self._leaving or not started else ""

    def _others(self) -> list[Running]:
        those = [one for one in self._children if one.role == DELIVERY]
        found = [Running(one.name, one.process.pid) for one in those if one.process is not None and one.lives]
        return [*found, Running("supervisor", os.getpid(), self._changing.generation, self._changing.loaded)]

    def _hangup(self) -> None:
        self._manager.signal(signal.SIGHUP)  # for the file of events
        self._changing.hangup()

    async def _end(self, keeping: trio.CancelScope) -> None:
        everybody = [*self._children, *self._relief.before]
        for child in everybody:
            if not child.finishing:
                child.signal(signal.SIGTERM)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_now)
            with trio.move_on_after(self._changing.config.lifecycle.drain + GRACE):
                for child in everybody:
                    if child.role != DELIVERY:
                        await child.gone.wait()
            for child in everybody:
                child.signal(signal.SIGKILL)
            for child in everybody:
                await child.gone.wait()
            nursery.cancel_scope.cancel()
        keeping.cancel()

    async def _end_now(self) -> None:
        """The second signal."""
        await self._stop.wait_hard()
        for child in [*self._children, *self._relief.before]:
            child.signal(signal.SIGTERM)

    def close(self) -> None:
        """When it is over."""
        self._common.sockets.close()


def _say_nothing(name: str) -> None:
    """The manager's events tell that the gateway is stopping."""


def run(
    config: Config,
    read: Callable[[], Loaded] | None,
    inherited: Inherited,
    notifier: Notifier,
    handed: Handover | None = None,
) -> int:
    """As `tripost serve`: 0, 1 when something was cut, 2 when it cannot start."""
    supervisor = Supervisor(config, read, inherited, notifier, handed)
    try:
        supervisor.prepare()
    except StartError as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return CANNOT_START
    try:
        return trio.run(supervisor.run)
    finally:
        supervisor.close()
