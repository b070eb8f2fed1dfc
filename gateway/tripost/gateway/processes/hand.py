"""what the supervisor gives each process it starts

A text among the arguments, which names descriptors that are inherited: the
configuration as it was read once (so that all processes have the same), the
board and the bell of the spool, the spool's lock, listening sockets.

Promise  whoever holds the spool's lock by inheritance holds it to his end: no other
         gateway opens the spool while one of ours may still write to it. A child
         dies with the supervisor (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket

import msgspec
import trio

from tripost.gateway.processes.orders import Listening
from tripost.gateway.settings import Config
from tripost.queue.board import Board, size

_PR_SET_PDEATHSIG = 1
CONTROL = "control"  # in place of a service


class Hand(msgspec.Struct, frozen=True, kw_only=True):
    """Descriptors, and `number` and `run` of an ingress process. `link` to the supervisor; `generation` of the
    configuration, in force since `loaded`. `writers`: rows of the board; `rows`: those of the ingress processes that
    there are to be, others finish. `news`: where the supervisor tells the manager of deaths."""

    role: str
    parent: int
    config: int
    generation: int
    loaded: float
    link: int
    board: int
    bell: int
    lock: int
    writers: int
    rows: list[int]
    number: int = 0
    run: int = 0
    delivery: int = 0  # delivery processes that there are to be
    listening: list[Listening] = []
    ingress: int = -1  # the manager's sockets for its children
    couriers: int = -1
    news: int = -1

    def text(self) -> str:
        return msgspec.json.encode(self).decode()

    def descriptors(self) -> tuple[int, ...]:
        own = (self.config, self.link, self.board, self.bell, self.lock, self.ingress, self.couriers, self.news)
        return tuple(one for one in (*own, *(each.descriptor for each in self.listening)) if one >= 0)


RESTART = "restart"


class News(msgspec.Struct, frozen=True):
    """What the supervisor tells the manager, a line. `loops`: the role dies again and again; with no text: no more. Of
    the role RESTART: why there is none; with no text: make room for the next manager."""

    role: str
    text: str
    loops: bool = False


def ingress_socket(state: str) -> str:
    """Where the manager hears its ingress processes."""
    return os.path.join(state, "ingress.sock")


def courier_socket(state: str) -> str:
    """Where the manager hears its delivery processes."""
    return os.path.join(state, "delivery.sock")


def take(text: str) -> Hand:
    """The child's side. Raises msgspec.DecodeError, OSError."""
    hand = msgspec.json.decode(text, type=Hand)
    for one in hand.descriptors():
        os.set_inheritable(one, False)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # a restart is the supervisor's, whoever is told of it
    die_with_parent(hand.parent)
    return hand


def die_with_parent(parent: int) -> None:
    """The kernel kills us when the process that started us ends; it may have ended already."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def keep_config(config: Config) -> int:
    """A descriptor with the configuration."""
    descriptor = os.memfd_create("tripost-config")
    left = memoryview(msgspec.msgpack.encode(config))
    while left:
        left = left[os.write(descriptor, left) :]
    return descriptor


def config_of(hand: Hand) -> Config:
    return decode_config(hand.config)


def decode_config(descriptor: int) -> Config:
    """Raises OSError, msgspec.DecodeError."""
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    return msgspec.msgpack.decode(data, type=Config)


def make_board(writers: int, descriptor: int = -1) -> int:
    """A descriptor of shared memory with zeros; or that one, with as much room."""
    if descriptor < 0:
        descriptor = os.memfd_create("tripost-board")
    if os.fstat(descriptor).st_size < size(writers):
        os.ftruncate(descriptor, size(writers))
    return descriptor


def board_of(descriptor: int, writers: int) -> Board:
    return Board(memoryview(mmap.mmap(descriptor, size(writers))), writers)


def listener_of(descriptor: int) -> socket.socket:
    """An inherited socket."""
    found = socket.socket(fileno=descriptor)
    found.setblocking(False)
    return found


class Bell:
    """Rung by ingress processes, heard by the manager: a counter in the kernel, so that any number of rings wake it
    once, and one that came while there was no manager is heard by the next."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ring(self) -> None:
        try:
            os.eventfd_write(self._descriptor, 1)
        except BlockingIOError:
            pass  # it has been rung 2^64 times

    async def wait(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._descriptor)
            try:
                os.eventfd_read(self._descriptor)
            except BlockingIOError:
                continue
            return


def make_bell() -> int:
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
