"""which keyword has which letter in a folder

The list is Dovecot's own file, so that both mean the same: lines of a number and
a name. It is replaced under the lock that Dovecot takes for it, a file that is
made anew and then renamed.

Fails    OSError; `Crowded` when the list is full.
"""

from __future__ import annotations

import os
import re
import time

from tripost.delivery.mailbox.flags import MOST_KEYWORDS
from tripost.delivery.mailbox.places import sync_folder, write_all

NAME = "dovecot-keywords"
STALE = 120.0  # seconds after which a lock is nobody's
PATIENCE = 2.0
_LINE = re.compile(r"([0-9]{1,3}) ([^\x00-\x20\x7f-\xff(){%*\"\\\]]{1,250})\Z")


class Crowded(Exception):
    """There is no room for another keyword."""


def read(folder: str) -> list[str]:
    """In the order of their letters; "" where a number is not used. Raises OSError."""
    try:
        with open(os.path.join(folder, NAME), encoding="ascii", errors="replace") as file:
            lines = file.read(65_536).splitlines()
    except FileNotFoundError:
        return []
    found: list[str] = []
    for line in lines:
        match = _LINE.match(line)
        if match is None or int(match[1]) >= MOST_KEYWORDS:
            continue
        found += [""] * (int(match[1]) + 1 - len(found))
        found[int(match[1])] = match[2]
    return found


def add(folder: str, names: list[str]) -> list[str]:
    """The list with these added, durable. Raises OSError, Crowded."""
    path = os.path.join(folder, NAME)
    lock = f"{path}.lock"
    fd = _locked(lock)
    try:
        found = read(folder)
        lower = {one.lower() for one in found}
        found += [name for name in names if name.lower() not in lower]
        if len(found) > MOST_KEYWORDS:
            raise Crowded
        text = "".join(f"{n} {name}\n" for n, name in enumerate(found) if name)
        write_all(fd, text.encode("ascii"))
        os.fsync(fd)
        os.rename(lock, path)
    except BaseException:
        os.unlink(lock)
        raise
    finally:
        os.close(fd)
    sync_folder(folder)
    return found


def _locked(lock: str) -> int:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            if _age(lock) > STALE:
                os.unlink(lock)
            elif time.monotonic() > end:
                raise
        time.sleep(0.01)


def _age(lock: str) -> float:
    try:
        return time.time() - os.stat(lock).st_mtime
    except FileNotFoundError:
        return 0.0
