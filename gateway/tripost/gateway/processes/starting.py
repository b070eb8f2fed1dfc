"""what the supervisor's processes share, and their start by exec

The spool's lock, the board and the bell, the listening sockets, the pipe on which
the manager is told of deaths. Those that an earlier image of this process left
(`handover`) are taken over.

Fails    StartError: an address cannot be bound, the spool is in use.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import msgspec

from tripost.gateway.handover import DELIVERY, INGRESS, MANAGER, Handover
from tripost.gateway.inherited import Inherited
from tripost.gateway.lifecycle import StartError
from tripost.gateway.processes.changing import Changing, Partner
from tripost.gateway.processes.child import Child
from tripost.gateway.processes.hand import Hand, News, board_of, courier_socket, make_bell, make_board
from tripost.gateway.processes.link import Link, pair
from tripost.gateway.processes.orders import FromChild, ToChild
from tripost.gateway.processes.sockets_held import Sockets
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
ROOMY = 4  # cores from which on `auto` has delivery processes; docs/performance.md has the figures


def cores() -> int:
    return len(os.sched_getaffinity(0))


def how_many(config: Config) -> int:
    return config.processes if config.processes != AUTO else max(1, cores() // 2)


def delivering(config: Config) -> int:
    """How many deliver. On few cores a process more only adds its messages to the work: there the manager delivers."""
    return 0 if config.processes == AUTO and cores() < ROOMY else how_many(config)


class Common:
    """`rows` of the board there are, `new` are those of the ingress processes that there are to be."""

    def __init__(self, config: Config, inherited: Inherited, handed: Handover, rows: int, new: list[int]) -> None:
        """Raises StartError."""
        self._config = config
        self.rows = rows
        self._new = new
        try:
            os.makedirs(config.state, mode=0o711, exist_ok=True)
            spool = os.path.join(config.state, "spool")
            self.lock = RealHandle(handed.lock) if handed.lock >= 0 else _lock(spool)
            certificates_of(config)  # a self-signed one is made before several look for it
            self.sockets = Sockets(config, inherited)
            open_to_all(config)
        except SpoolLocked as wrong:
            raise StartError(f"{config.state}: {SpoolLocked.text}") from wrong
        except (ListenError, TlsError) as wrong:
            raise StartError(str(wrong)) from wrong
        except (SpoolError, OSError) as wrong:
            raise StartError(f"{config.state}: {wrong}") from wrong
        self.shared = make_board(rows, handed.board)
        self.board = board_of(self.shared, rows)
        self.bell = handed.bell if handed.bell >= 0 else make_bell()
        self._news_end, self._news = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def _hand(self, child: Child, link: int, changing: Changing) -> Hand:
        run = new_run() if child.role == INGRESS else 0
        manager = child.role == MANAGER
        return Hand(
            role=child.role,
            parent=os.getpid(),
            config=changing.settings,
            generation=changing.generation,
            loaded=changing.loaded,
            link=link,
            board=self.shared,
            bell=self.bell,
            lock=self.lock.fileno(),
            writers=self.rows,
            rows=self._new,
            number=child.number,
            run=run,
            delivery=delivering(self._config),
            listening=self.sockets.listening,
            ingress=self.sockets.ingress if manager else -1,
            couriers=self.sockets.couriers if manager else -1,
            news=self._news_end if manager else -1,
        )

    def start(self, child: Child, changing: Changing) -> None:
        """In the main thread: a child is told when the thread that started it ends. Raises OSError."""
        command = [sys.executable, "-P", "-m", "tripost", "--role", child.role]
        if child.role == DELIVERY:
            command += ["--connect", courier_socket(self._config.state)]
            child.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            changing.moved()
            return
        ours, theirs = pair()
        try:
            with theirs:
                hand = self._hand(child, theirs.fileno(), changing)
                if child.role == INGRESS:
                    self.board.enter(child.number, hand.run)
                command.append(hand.text())
                child.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=hand.descriptors())
        except BaseException:
            ours.close()
            raise
        link: Link[FromChild, ToChild] = Link(ours, FromChild)
        child.partner = Partner(child.name, child.process.pid, link, ingress=child.role == INGRESS)
        changing.join(child.partner)

    def tell(self, news: News) -> None:
        """The manager, or whoever is the next."""
        try:
            os.write(self._news, msgspec.json.encode(news) + b"\n")
        except BlockingIOError:
            pass  # there has been no manager for long
        if news.role == MANAGER and news.text:
            print(f"tripost: {news.text}", file=sys.stderr, flush=True)


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
