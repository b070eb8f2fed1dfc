"""mail that goes because the policy says so

Messages older than `retention`, and the oldest of more than `max_messages`, are
removed for good. A mailbox that a session holds is left for later, so that
nothing vanishes from under a reader; the session does the same when it opens.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from tripost.delivery.mailbox.folders import age_of, find_messages, lock_mailbox
from tripost.delivery.mailbox.policy import Policy


def overdue(found: Mapping[str, str], policy: Policy, now: float, *, inbox: bool = True) -> list[str]:
    """The paths of the messages that the policy takes away; `found`: name without flags → path."""
    if not policy.retention and not (policy.max_messages and inbox):
        return []
    aged: list[tuple[float, str, str]] = []
    for name, path in found.items():
        try:
            aged.append((age_of(name, os.stat(path, follow_symlinks=False).st_mtime), name, path))
        except OSError:
            continue  # gone
    aged.sort()
    gone = sum(one[0] + policy.retention < now for one in aged) if policy.retention else 0
    if policy.max_messages and inbox:
        gone = max(gone, len(aged) - policy.max_messages)
    return [path for _, _, path in aged[:gone]]


def remove_all(paths: list[str]) -> int:
    """How many of them were there."""
    count = 0
    for path in paths:
        try:
            os.unlink(path)
            count += 1
        except FileNotFoundError:
            continue
    return count


def tidy(box: str, policy: Policy, now: float) -> int:
    """Apply the policy to a mailbox and its folders, unless a session holds it; how many messages went."""
    lock = lock_mailbox(box, upkeep=True)
    if lock is None:
        return 0
    try:
        count = remove_all(overdue(find_messages(box), policy, now))
        if policy.retention:
            for name in os.listdir(box):
                folder = os.path.join(box, name)
                if name.startswith(".") and os.path.isdir(os.path.join(folder, "cur")):
                    count += remove_all(overdue(find_messages(folder), policy, now, inbox=False))
        return count
    finally:
        os.close(lock)
