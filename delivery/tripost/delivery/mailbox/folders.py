"""what is in a mailbox, and who holds it"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress

from tripost.delivery.mailbox.uids import base_of

LOCK = "tripost-lock"
SESSION, UPKEEP = b"s", b"u"  # its content: who holds it
_TIME = re.compile(r"[0-9]{1,12}(?=\.)")


def lock_mailbox(box: str, *, upkeep: bool = False) -> int | None:
    """A descriptor that holds it as long as it is open, None when somebody else does. `upkeep`: not for long."""
    lock = os.open(os.path.join(box, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(OSError):  # a full disk
            os.pwrite(lock, UPKEEP if upkeep else SESSION, 0)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return lock


def held_by_upkeep(box: str) -> bool:
    """Will whoever holds it be done soon?"""
    try:
        with open(os.path.join(box, LOCK), "rb") as file:
            return file.read(1) == UPKEEP
    except OSError:
        return False


def find_messages(box: str) -> dict[str, str]:
    """Name without flags → path. A message that is being moved from new to cur is found in both, and counts once."""
    found: dict[str, str] = {}
    for part in ("new", "cur"):
        folder = os.path.join(box, part)
        prefix = f"{folder}/"
        found.update((base_of(name), prefix + name) for name in os.listdir(folder) if name[0] != ".")
    return found


def age_of(name: str, changed: float) -> float:
    """When a message came: its name says so, else the file, last `changed`."""
    match = _TIME.match(name)
    return float(match[0]) if match is not None else changed
