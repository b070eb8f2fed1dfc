"""sessions of the monitor that were logged out, kept over restarts

A cookie outlives a restart, because its token does; so must a logout. One line for
each in state/monitor.loggedout: the cookie's first part, which says what it was for
and until when, without the MAC that makes a cookie of it.

Promise  what `keep` has returned from is on stable storage.
Bounds   MOST octets, then only those are kept that could be valid still.
Fails    OSError.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

FILE = "monitor.loggedout"  # in state
MOST = 1 << 20


def until(head: str) -> int:
    """When such a cookie ends, seconds since 1970; 0 for what is none."""
    parts = head.split(".")
    return int(parts[1]) if len(parts) == 3 and parts[1].isascii() and parts[1].isdigit() else 0


def logged_out(path: str, now: float) -> list[str]:
    """Those that could be valid still, the oldest first."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            heads = file.read().split("\n")
    except FileNotFoundError:
        return []
    return [head for head in heads if until(head) > now]


def keep(path: str, head: str, others: Iterable[str]) -> None:
    """One more; `others`: what is known besides, for a file that has become too large."""
    size = 0
    with suppress(FileNotFoundError):
        size = os.stat(path).st_size
    if size <= MOST:
        _write(path, f"{head}\n", os.O_APPEND)
        return
    fresh = f"{path}.new"
    _write(fresh, "".join([f"{one}\n" for one in (*others, head)]), os.O_TRUNC)
    os.replace(fresh, path)


def _write(path: str, text: str, how: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)
    with open(fd, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
