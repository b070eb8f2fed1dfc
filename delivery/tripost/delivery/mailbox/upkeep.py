"""what no session asks for: old mail, what crashes left, entries out of date

`keep_up` does it all at the start and every `PAUSE`; the rest is blocking.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import unquote

import trio

from tripost.delivery.mailbox.folders import find_messages, lock_mailbox
from tripost.delivery.mailbox.maildir import MaildirDelivery
from tripost.delivery.mailbox.places import STAGING
from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.removal import pending, replay
from tripost.delivery.mailbox.retention import remove_all, tidy

PAUSE = 3600.0  # seconds
STALE = 129_600.0  # seconds: 36 hours, as Maildir has it for tmp

# which of the messages in "local" are queued; None when they are too many to say
Queued = Callable[[], Awaitable[set[str] | None]]


def finish_removals(mail: str) -> int:
    """After a crash: what sessions had begun to remove."""
    count = 0
    for box in pending(mail):
        lock = lock_mailbox(box, upkeep=True) if os.path.isdir(box) else None
        if lock is not None:
            try:
                count += replay(mail, box, partial(find_messages, box))
            finally:
                os.close(lock)
    return count


def stale(mail: str, now: float) -> list[str]:
    """Files in the staging folder that no delivery has touched for long."""
    stage = os.path.join(mail, STAGING)
    found: list[str] = []
    try:
        with os.scandir(stage) as entries:
            for entry in entries:
                if entry.stat(follow_symlinks=False).st_mtime + STALE < now:
                    found.append(entry.path)
    except FileNotFoundError:
        pass
    return found


def mailbox_folders(mail: str) -> list[tuple[str, str]]:
    """(folder, account) of every mailbox. The account of a name that had to be cut short is not known."""
    try:
        names = os.listdir(mail)
    except FileNotFoundError:
        return []
    return [(os.path.join(mail, name), unquote(name)) for name in names if not name.startswith(".")]


async def keep_up(
    local: MaildirDelivery,
    policy: Callable[[str], Policy],
    queued: Queued,
    *,
    now: Callable[[], float],
    told: Callable[[str, int], None],
    trouble: Callable[[str], None],
) -> None:
    """Until cancelled. `told(account, count)` of messages that went; `trouble` of what could not be done."""
    mail = local.store.folder
    while True:
        try:
            await trio.to_thread.run_sync(partial(finish_removals, mail))
            await forget(local, queued, now())
            for box, account in await trio.to_thread.run_sync(partial(mailbox_folders, mail)):
                rules = policy(account)
                if rules.retention or rules.max_messages:
                    count = await trio.to_thread.run_sync(partial(tidy, box, rules, now()))
                    if count:
                        told(account, count)
        except OSError as wrong:
            trouble(f"{wrong.filename or mail}: {wrong.strerror}")
        await trio.sleep(PAUSE)


async def forget(local: MaildirDelivery, queued: Queued, now: float) -> None:
    """Old entries of the list of deliveries, and staged files that nobody will ask for any more."""
    runs = await local.with_disk(partial(local.store.delivered.old, now))
    litter = await trio.to_thread.run_sync(partial(stale, local.store.folder, now))
    if not runs and not litter:
        return
    held = await queued()
    if held is None:
        return
    free = [run for run in runs if held.isdisjoint(await trio.to_thread.run_sync(run.messages))]
    await local.with_disk(partial(local.store.delivered.forget, free))
    unwanted = [path for path in litter if os.path.basename(path).rpartition("_")[0] not in held]
    await trio.to_thread.run_sync(partial(remove_all, unwanted))
