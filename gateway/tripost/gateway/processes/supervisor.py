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
import subprocess
import sys
import time
from functools import partial

import msgspec
import trio

from tripost.gateway.handover import DELIVERY, INGRESS, MANAGER, Handover, execute, hold_signals
from tripost.gateway.inherited import Inherited
from tripost.gateway.lifecycle import StartError, Stop, watch_signals
from tripost.gateway.notify import Notifier
from tripost.gateway.processes.child import Child
from tripost.gateway.processes.hand import (
    RESTART,
    Hand,
    News,
    board_of,
    courier_socket,
    keep_config,
    make_bell,
    make_board,
)
from tripost.gateway.processes.relief import Relief, free_rows
from tripost.gateway.processes.sockets_held import Sockets
from tripost.gateway.restarting import Restarting, RestartRefused
from tripost.gateway.settings import AUTO, Config
from tripost.gateway.sockets import ListenError
from tripost.gateway.submit_client import open_to_all
from tripost.gateway.tls import TlsError
from tripost.gateway.wiring_listen import certificates_of
from tripost.queue.errors import SpoolError, SpoolLocked
from tripost.queue.files import RealFiles, RealHandle
from tripost.queue.ids import new_run
from tripost.queue.opening import lock_spool

HELD = 2.0  # seconds that a spool may be in use yet, when we start
GRACE = 5.0  # seconds beyond the drain
MOST_OLD = 3  # times as many ingress processes as there are may still be finishing when another restart begins
SILENCE = 30  # looks, one a second, at a process that shows no life
LOOK = 1.0
ROOMY = 4  # cores from which on `auto` has delivery processes; docs/performance.md has the figures
CANNOT_START = 2  # exit code


def cores() -> int:
    return len(os.sched_getaffinity(0))


def how_many(config: Config) -> int:
    return config.processes if config.processes != AUTO else max(1, cores() // 2)


def delivering(config: Config) -> int:
    """How many deliver. On few cores a process more only adds its messages to the work: there the manager delivers."""
    return 0 if config.processes == AUTO and cores() < ROOMY else how_many(config)


class Supervisor:
    """`run` once."""

    def __init__(
        self, config: Config, inherited: Inherited, notifier: Notifier, handed: Handover | None = None
    ) -> None:
        """`handed`: what the image before us left; its processes can be worked with."""
        self._config = config
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

    # --- what all share ---

    def prepare(self) -> None:
        """Raises StartError."""
        config, handed = self._config, self._handed
        try:
            os.makedirs(config.state, mode=0o711, exist_ok=True)
            spool = os.path.join(config.state, "spool")
            self._lock = RealHandle(handed.lock) if handed.lock >= 0 else _lock(spool)
            certificates_of(config)  # a self-signed one is made before several look for it
            self._sockets = Sockets(config, self._inherited)
            open_to_all(config)
        except SpoolLocked as wrong:
            raise StartError(f"{config.state}: {SpoolLocked.text}") from wrong
        except (ListenError, TlsError) as wrong:
            raise StartError(str(wrong)) from wrong
        except (SpoolError, OSError) as wrong:
            raise StartError(f"{config.state}: {wrong}") from wrong
        self._settings = keep_config(config)
        self._shared = make_board(self._rows, handed.board)
        self._board = board_of(self._shared, self._rows)
        self._bell = handed.bell if handed.bell >= 0 else make_bell()
        self._news_end, self._news = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def _hand(self, child: Child) -> Hand:
        run = new_run() if child.role == INGRESS else 0
        manager = child.role == MANAGER
        return Hand(
            role=child.role,
            parent=os.getpid(),
            config=self._settings,
            board=self._shared,
            bell=self._bell,
            lock=self._lock.fileno(),
            writers=self._rows,
            rows=self._new,
            number=child.number,
            run=run,
            delivery=delivering(self._config),
            listening=self._sockets.listening,
            ingress=self._sockets.ingress if manager else -1,
            couriers=self._sockets.couriers if manager else -1,
            news=self._news_end if manager else -1,
        )

    # --- one child ---

    def _start(self, child: Child) -> None:
        """Raises OSError."""
        command = [sys.executable, "-P", "-m", "tripost", "--role", child.role]
        if child.role == DELIVERY:
            command += ["--connect", courier_socket(self._config.state)]
            descriptors: tuple[int, ...] = ()
        else:
            hand = self._hand(child)
            command.append(hand.text())
            descriptors = hand.descriptors()
            if child.role == INGRESS:
                self._board.enter(child.number, hand.run)
        # not in a worker thread: a child is told when the thread that started it ends
        child.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=descriptors)

    async def _keep(self, child: Child) -> None:
        """Have it alive until we stop."""
        try:
            if child.role != INGRESS:
                await self._relief.over.wait()
            while not self._stop.asked:
                if child.role == DELIVERY:
                    await self._manager_is_there()
                began = trio.current_time()
                try:
                    self._start(child)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._watch, child)
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
        if child.role == INGRESS:
            self._board.enter(child.number, 0)
            os.eventfd_write(self._bell, 1)
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
            self._tell(News(child.name, f"{child.name} dies again and again: {how}", loops=True))
        self._tell(News(child.name, text))
        with trio.move_on_after(delay):
            await self._stop.wait()
        return True

    async def _watch(self, child: Child) -> None:
        """Kill it when it shows no life; say when it lives after all."""
        began, beats, quiet = trio.current_time(), -1, 0
        while True:
            await trio.sleep(LOOK)
            if child.backoff.lives(trio.current_time() - began):
                self._tell(News(child.name, "", loops=True))
            if child.role == DELIVERY:
                continue  # the manager hears whether it lives
            now = self._board.beats(child.number)
            quiet = quiet + 1 if now == beats else 0
            beats = now
            if quiet >= SILENCE:
                self._tell(News(child.name, f"{child.name} shows no life for {SILENCE} s and is killed"))
                child.signal(signal.SIGKILL)
                return

    def _tell(self, news: News) -> None:
        """The manager, or whoever is the next."""
        try:
            os.write(self._news, msgspec.json.encode(news) + b"\n")
        except BlockingIOError:
            pass  # there has been no manager for long
        if news.role == MANAGER and news.text:
            print(f"tripost: {news.text}", file=sys.stderr, flush=True)

    # --- another image of this process ---

    def _picture(self) -> Handover:
        """Raises RestartRefused."""
        if self._stop.asked:
            raise RestartRefused("the gateway is draining")
        if not self._relief.over.is_set():
            raise RestartRefused("the restart before is not over")
        if len(self._relief.before) >= MOST_OLD * self._count:
            raise RestartRefused(f"{len(self._relief.before)} processes from before restarts still end their sessions")
        children = [one.old() for one in [*self._children, *self._relief.before]]
        return Handover(
            pid=os.getpid(),
            state=self._config.state,
            sockets=self._sockets.kept(),
            lock=self._lock.fileno(),
            drain=self._config.lifecycle.drain,
            board=self._shared,
            rows=self._rows,
            bell=self._bell,
            children=[one for one in children if one is not None],
        )

    def _restart(self, nursery: trio.Nursery) -> None:
        """SIGUSR2."""

        async def ask() -> None:
            try:
                await self._restarting.ask("SIGUSR2")
                await self._go()
            except RestartRefused as wrong:
                self._tell(News(RESTART, str(wrong)))

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
        self._tell(News(RESTART, ""))
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
            async with trio.open_nursery() as keeping:
                keeping.start_soon(self._relief.run, self._board, self._new)
                for child in self._children:
                    keeping.start_soon(self._keep, child)
                await self._stop.wait()
                keeping.start_soon(self._end, keeping.cancel_scope)
            nursery.cancel_scope.cancel()
        codes = [one.process.returncode for one in self._children if one.process is not None and one.role != DELIVERY]
        return CANNOT_START if self._failed else int(any(codes))

    async def _tell_ready(self) -> None:
        await self._manager_is_there()
        self._notifier.started()

    def _hangup(self) -> None:
        self._manager.signal(signal.SIGHUP)

    async def _end(self, keeping: trio.CancelScope) -> None:
        everybody = [*self._children, *self._relief.before]
        for child in everybody:
            if not child.finishing:
                child.signal(signal.SIGTERM)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_now)
            with trio.move_on_after(self._config.lifecycle.drain + GRACE):
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
        self._sockets.close()


def _lock(spool: str) -> RealHandle:
    """Those whom the kernel kills with a supervisor hold the spool a moment longer. Raises SpoolLocked, SpoolError."""
    end = time.monotonic() + HELD
    while True:
        try:
            found = lock_spool(RealFiles(), spool)
            assert isinstance(found, RealHandle)
            return found
        except SpoolLocked:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def _say_nothing(name: str) -> None:
    """The manager's events tell that the gateway is stopping."""


def run(config: Config, inherited: Inherited, notifier: Notifier, handed: Handover | None = None) -> int:
    """As `tripost serve`: 0, 1 when something was cut, 2 when it cannot start."""
    supervisor = Supervisor(config, inherited, notifier, handed)
    try:
        supervisor.prepare()
    except StartError as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return CANNOT_START
    try:
        return trio.run(supervisor.run)
    finally:
        supervisor.close()
