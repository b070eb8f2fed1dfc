"""what a restart hands over: from one image of this process to the next, by exec

The process id stays (for systemd, and for pid files), and so do descriptors that
are made inheritable. An environment variable names them: the listening sockets,
the spool's lock, and with several processes their board, their bell and who they
are. The next image is whatever is installed by then.

API      `take(environment)` in the next image; `execute(…)` is the end of this one.
         `hold_signals` before: from then on signals wait for the next image
         (`lifecycle.watch_signals` lets them through).
Promise  the spool is locked throughout: a flock belongs to the open file, which goes
         over. The listening sockets never close: clients wait in their backlog.
Why      VERSION counts what processes of an earlier image share with a later one (the
         board's layout, the words on the manager's socket, the log). Where it differs
         they are ended first: `alone`.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from types import FrameType
from typing import NoReturn

import msgspec

from tripost.gateway.inherited import Inherited
from tripost.gateway.lifecycle import HANDING, SIGNALS

VARIABLE = "TRIPOST_HANDOVER"
VERSION = 1
MANAGER, INGRESS, DELIVERY = "manager", "ingress", "delivery"  # roles


class Kept(msgspec.Struct, frozen=True):
    """A listening socket. `given`: by LISTEN_FDS."""

    address: str  # as configured
    descriptor: int
    given: bool = False


class Old(msgspec.Struct, frozen=True):
    """A process of an earlier image: still our child. `finishing`: it was told to."""

    role: str
    number: int
    pid: int
    finishing: bool = False


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """`trial`: tell whether you could take this, and end. `drain`: seconds that old ingress processes may take."""

    pid: int
    state: str
    version: int = 0  # of the image that hands over
    trial: bool = False
    sockets: list[Kept] = []
    lock: int = -1
    drain: float = 0.0
    board: int = -1
    rows: int = 0
    bell: int = -1
    children: list[Old] = []

    def descriptors(self) -> list[int]:
        own = self.lock, self.board, self.bell
        return [one for one in (*own, *(each.descriptor for each in self.sockets)) if one >= 0]


def take(environment: MutableMapping[str, str] = os.environ) -> Handover | None:
    """What was handed to this process, or to whose trial it is; None for nobody's. It is not told to children."""
    text = environment.pop(VARIABLE, "")
    if not text:
        return None
    found = msgspec.json.decode(text, type=Handover)
    if found.trial:
        return found
    if found.pid != os.getpid():
        return None
    for one in found.descriptors():
        os.set_inheritable(one, False)
    return found


def sockets_of(handed: Handover, inherited: Inherited) -> None:
    """Have those that were handed over among the inherited ones."""
    for one in handed.sockets:
        sock = socket.socket(fileno=one.descriptor)
        sock.setblocking(False)
        inherited.add(one.address, sock, given=one.given)


def command() -> list[str]:
    """That of this process, for the interpreter and the package that are installed now."""
    return [sys.executable, *sys.orig_argv[1:]]


def environment(handed: Handover, more: Mapping[str, str] | None = None) -> dict[str, str]:
    text = msgspec.json.encode(msgspec.structs.replace(handed, version=VERSION)).decode()
    return {**os.environ, **(more or {}), VARIABLE: text}


def hold_signals() -> Callable[[], None]:
    """From now on they wait: in this thread they are blocked, which exec keeps, and what other threads are given is
    passed on to this one. What it gives back undoes it."""
    me = threading.get_ident()

    def wait(number: int, frame: FrameType | None) -> None:
        signal.pthread_kill(me, number)

    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    before = {number: signal.signal(number, wait) for number in SIGNALS}

    def undo() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    return undo


def execute(handed: Handover, more: Mapping[str, str]) -> NoReturn:
    """Be the next image; `more`: variables. In the main thread: children are told when another one ends. Raises
    OSError."""
    sys.stdout.flush()
    sys.stderr.flush()
    for one in handed.descriptors():
        os.set_inheritable(one, True)
    words = command()
    os.execve(words[0], words, environment(handed, more))


def _end_children(handed: Handover) -> None:
    """Blocking: until none is left. The manager was told to end by the image before; ingress has HANDING seconds."""
    left = {one.pid: one for one in handed.children}
    for one in handed.children:
        if one.role == INGRESS and not one.finishing:
            _signal(one.pid, signal.SIGTERM)
    for seconds, number in ((HANDING, signal.SIGTERM), (HANDING, signal.SIGKILL), (10.0, signal.SIGKILL)):
        end = time.monotonic() + seconds
        while left and time.monotonic() < end:
            for pid in list(left):
                if _ended(pid):
                    del left[pid]
            time.sleep(0.01)
        for pid in left:
            _signal(pid, number)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def alone(handed: Handover) -> Handover:
    """Without the processes, which are ended, and what was shared with them. Blocking."""
    _end_children(handed)
    for one in (handed.board, handed.bell):
        if one >= 0:
            os.close(one)
    return msgspec.structs.replace(handed, children=[], board=-1, rows=0, bell=-1)
