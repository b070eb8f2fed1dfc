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
Fails    StartError: an address cannot be bound, the spool is in use; then, and when
         the first manager cannot start, nothing is left running.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import msgspec
import trio

from tripost.gateway import sockets
from tripost.gateway.inherited import Inherited
from tripost.gateway.lifecycle import StartError, Stop, watch_signals
from tripost.gateway.notify import Notifier
from tripost.gateway.processes.backoff import Backoff
from tripost.gateway.processes.hand import (
    Hand,
    Listening,
    News,
    board_of,
    courier_socket,
    ingress_socket,
    keep_config,
    make_bell,
    make_board,
)
from tripost.gateway.settings import AUTO, Config
from tripost.gateway.sockets import ListenError
from tripost.gateway.submit_client import NAME, open_to_all, submit_socket
from tripost.gateway.tls import TlsError
from tripost.gateway.wiring_listen import certificates_of
from tripost.queue.errors import SpoolError, SpoolLocked
from tripost.queue.files import Handle, RealFiles, RealHandle
from tripost.queue.ids import new_run
from tripost.queue.opening import lock_spool

HELD = 2.0  # seconds that a spool may be in use yet, when we start
GRACE = 5.0  # seconds beyond the drain
SILENCE = 30  # looks, one a second, at a process that shows no life
LOOK = 1.0
ROOMY = 4  # cores from which on `auto` has delivery processes; docs/performance.md has the figures
MANAGER, INGRESS, DELIVERY = "manager", "ingress", "delivery"
CANNOT_START = 2  # exit code


def cores() -> int:
    return len(os.sched_getaffinity(0))


def how_many(config: Config) -> int:
    return config.processes if config.processes != AUTO else max(1, cores() // 2)


def delivering(config: Config) -> int:
    """How many deliver. On few cores a process more only adds its messages to the work: there the manager delivers."""
    return 0 if config.processes == AUTO and cores() < ROOMY else how_many(config)


class Child:
    """One process, and those after it in its place. `ended`: it was killed by us, and for no fault of its own."""

    def __init__(self, role: str, number: int) -> None:
        self.role = role
        self.number = number
        self.name = role if role == MANAGER else f"{role} {number}"
        self.backoff = Backoff()
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = False
        self.gone = trio.Event()

    def signal(self, number: int) -> None:
        """Harmless when it is dead."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    async def wait(self) -> int:
        """Until it is dead; its exit code, or minus the signal."""
        process = self.process
        assert process is not None
        if process.returncode is not None:  # nobody else has its number before it was waited for
            return process.returncode
        descriptor = os.pidfd_open(process.pid)
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        return process.wait()


class Supervisor:
    """`run` once."""

    def __init__(self, config: Config, inherited: Inherited, notifier: Notifier) -> None:
        self._config = config
        self._inherited = inherited
        self._notifier = notifier
        self._count = how_many(config)
        self._stop = Stop()
        self._children = [Child(MANAGER, 0)]
        self._children += [Child(INGRESS, n) for n in range(1, self._count + 1)]
        self._children += [Child(DELIVERY, n) for n in range(1, delivering(config) + 1)]
        self._manager = self._children[0]
        self._ever_ready = False
        self._failed = False
        self._listening: list[Listening] = []
        self._bound: list[str] = []  # addresses that were not handed over to us

    # --- what all share ---

    def prepare(self) -> None:
        """Raises StartError."""
        config = self._config
        try:
            os.makedirs(config.state, mode=0o711, exist_ok=True)
            self._lock = _lock(os.path.join(config.state, "spool"))
            certificates_of(config)  # a self-signed one is made before several look for it
            self._listen()
            open_to_all(config)
        except SpoolLocked as wrong:
            raise StartError(f"{config.state}: {SpoolLocked.text}") from wrong
        except (ListenError, TlsError) as wrong:
            raise StartError(str(wrong)) from wrong
        except (SpoolError, OSError) as wrong:
            raise StartError(f"{config.state}: {wrong}") from wrong
        self._settings = keep_config(config)
        self._shared = make_board(self._count)
        self._board = board_of(self._shared, self._count)
        self._bell = make_bell()
        self._news_end, self._news = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def _listen(self) -> None:
        config = self._config
        wanted: list[tuple[str, str]] = [(one.service, one.address) for one in config.listen]
        wanted.append((NAME, submit_socket(config)))
        for service, address in wanted:
            listener = self._inherited.take(address)
            self._bound += [] if listener is not None else [address]
            listener = listener or sockets.listen(address)
            self._listening.append(Listening(service, address, sockets.shown(listener, address), listener.detach()))
        if self._inherited.rest:
            left = ", ".join(self._inherited.rest)
            raise ListenError(f"handed over by LISTEN_FDS, but no [[listen]] has this address: {left}")
        paths = [ingress_socket(config.state), courier_socket(config.state)]
        self._ours: list[int] = []
        for path in paths:
            listener = sockets.listen(f"{sockets.UNIX}{path}")
            os.chmod(path, 0o600)
            self._ours.append(listener.detach())

    def _hand(self, child: Child) -> Hand:
        assert isinstance(self._lock, RealHandle)
        run = new_run() if child.role == INGRESS else 0
        manager = child.role == MANAGER
        return Hand(
            role=child.role,
            parent=os.getpid(),
            config=self._settings,
            board=self._shared,
            bell=self._bell,
            lock=self._lock.fileno(),
            writers=self._count,
            number=child.number,
            run=run,
            delivery=delivering(self._config),
            listening=self._listening,
            ingress=self._ours[0] if manager else -1,
            couriers=self._ours[1] if manager else -1,
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
            for one in self._children:  # whose leases would be unknown to the next manager
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

    # --- all of them ---

    async def run(self) -> int:
        """Until stopped: the exit code."""
        async with trio.open_nursery() as nursery:
            await nursery.start(watch_signals, self._stop, _say_nothing, self._hangup)
            nursery.start_soon(self._notifier.run, self._stop.wait)
            nursery.start_soon(self._tell_ready)
            async with trio.open_nursery() as keeping:
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
        for child in self._children:
            child.signal(signal.SIGTERM)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_now)
            with trio.move_on_after(self._config.lifecycle.drain + GRACE):
                for child in self._children:
                    if child.role != DELIVERY:
                        await child.gone.wait()
            for child in self._children:
                child.signal(signal.SIGKILL)
            for child in self._children:
                await child.gone.wait()
            nursery.cancel_scope.cancel()

    async def _end_now(self) -> None:
        """The second signal."""
        await self._stop.wait_hard()
        for child in self._children:
            child.signal(signal.SIGTERM)

    def close(self) -> None:
        """Sockets of which others could find the file."""
        paths = ingress_socket(self._config.state), courier_socket(self._config.state)
        for address in [*self._bound, *[f"{sockets.UNIX}{path}" for path in paths]]:
            if address.startswith(sockets.UNIX):
                try:
                    os.unlink(address.removeprefix(sockets.UNIX))
                except OSError:
                    pass


def _lock(spool: str) -> Handle:
    """Those whom the kernel kills with a supervisor hold the spool a moment longer. Raises SpoolLocked, SpoolError."""
    end = time.monotonic() + HELD
    while True:
        try:
            return lock_spool(RealFiles(), spool)
        except SpoolLocked:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def _say_nothing(name: str) -> None:
    """The manager's events tell that the gateway is stopping."""


def run(config: Config, inherited: Inherited, notifier: Notifier) -> int:
    """As `tripost serve`: 0, 1 when something was cut, 2 when it cannot start."""
    supervisor = Supervisor(config, inherited, notifier)
    try:
        supervisor.prepare()
    except StartError as wrong:
        print(f"tripost: {wrong}", file=sys.stderr)
        return CANNOT_START
    try:
        return trio.run(supervisor.run)
    finally:
        supervisor.close()
