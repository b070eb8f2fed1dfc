"""what is in a mailbox, and who holds it"""

from __future__ import annotations

import fcntl
import os
import re

from tripost.delivery.mailbox.uids import base_of

LOCK = "tripost-lock"
_TIME = re.compile(r"[0-9]{1,12}(?=\.)")


def lock_mailbox(box: str) -> int | None:
    """A descriptor that holds it as long as it is open, None when somebody else does."""
    lock = os.open(os.path.join(box, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return lock


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
