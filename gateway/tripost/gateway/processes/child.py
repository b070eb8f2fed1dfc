"""one of the supervisor's processes: started by it, or by the image before a restart

API      `Child(role, number)` is a place; `process` who is in it now, a Popen or an `Adopted`. `wait()`: until that
         one is dead, by its pidfd. `old()` and `Child.of(…)` carry it over an exec, which leaves children ours.
Promise  a signal reaches that process or nobody: its number stays taken until it was waited for here.
"""

from __future__ import annotations

import os
import signal
import subprocess

import trio

from tripost.gateway.handover import MANAGER, Old
from tripost.gateway.processes.backoff import Backoff
from tripost.gateway.processes.changing import Partner


class Adopted:
    """As much of a Popen as is needed, for a child of ours that an earlier image started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        """Harmless when it is dead: until we have waited for it nobody else has its number."""
        if self.returncode is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def wait(self) -> int:
        if self.returncode is None:
            try:
                self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            except ChildProcessError:
                self.returncode = -signal.SIGKILL  # it is nobody's that we know
        return self.returncode


class Child:
    """One process, and those after it in its place. `ended`: it was killed by us, and for no fault of its own;
    `finishing`: it was told to end its sessions."""

    def __init__(self, role: str, number: int) -> None:
        self.role = role
        self.number = number
        self.name = role if role == MANAGER else f"{role} {number}"
        self.backoff = Backoff()
        self.process: subprocess.Popen[bytes] | Adopted | None = None
        self.ended = False
        self.finishing = False
        self.partner: Partner | None = None  # its end of a reload
        self.gone = trio.Event()

    @classmethod
    def of(cls, old: Old) -> Child:
        """One that the image before us left."""
        made = cls(old.role, old.number)
        made.process, made.finishing = Adopted(old.pid), old.finishing
        return made

    def old(self) -> Old | None:
        """What the image after us has to know; None when it is dead."""
        if self.process is None or self.process.returncode is not None:
            return None
        return Old(self.role, self.number, self.process.pid, self.finishing)

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.returncode is None

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
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return process.wait()
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            os.close(descriptor)
        return process.wait()
