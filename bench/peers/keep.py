"""run a program, and be told the CPU time of it and of all that it ever started

    python bench/peers/keep.py COMMAND …

Whoever loses its parent becomes a child of this process, which waits for all: so no short-lived process of a mail
server goes uncounted. SIGTERM ends the program, and whatever is left of it.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import time

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 20.0


def below(root: int) -> list[int]:
    """The process, its children, theirs…"""
    children: dict[int, list[int]] = {}
    for one in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = one.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        children.setdefault(int(fields[1]), []).append(int(one.parent.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def used(root: int) -> float:
    """CPU seconds of all of them, and of those that ended and were waited for."""
    total = 0
    for pid in below(root):
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(one) for one in fields[11:15])
    return total / TICKS


def memory(root: int) -> float:
    """Their proportional set size together, in MiB."""
    kib = 0
    for pid in below(root):
        try:
            lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib / 1024


def main(command: list[str]) -> None:
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    child = subprocess.Popen(command)
    ending: list[float] = []

    def end(*_: object) -> None:
        ending.append(time.monotonic() + PATIENCE)
        child.terminate()

    signal.signal(signal.SIGTERM, end)
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            if pid == child.pid and not ending:
                ending.append(time.monotonic() + PATIENCE)
            continue
        if ending:
            left = [one for one in below(os.getpid()) if one != os.getpid()]
            for one in left:
                try:
                    os.kill(one, signal.SIGTERM if time.monotonic() < ending[0] else signal.SIGKILL)
                except ProcessLookupError:
                    pass
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1:])
