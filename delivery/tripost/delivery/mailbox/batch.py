"""many deliveries, few syncs

What waits for the disk at the same time is made durable together, in one
worker-thread hop. Blocking; one batch at a time.

Order    1. each message is written and synced in the staging folder, under a
            name that only a whole message ever has; that folder is synced
         2. the list of deliveries is synced
         3. each message is moved to new/; those folders are synced
Promise  a crash before 2 has delivered nothing and the retry writes anew; after
         2 the retry only moves what is still staged, and what is not staged was
         visible: somebody else may have removed it since.
Fails    per message, as its `error`. A message whose note may be on disk stays
         staged, whole, so that the note can never hide it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tripost.delivery.mailbox.delivered import DeliveredList
from tripost.delivery.mailbox.places import DELIVERED, STAGING, make_folder, make_mailbox, sync_folder, write_all
from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.uids import file_name
from tripost.delivery.mailbox.usage import Usage

SYNCERS = 4  # threads: a disk does several syncs in the time of one
BOXES = 10_000  # mailboxes whose staging folder is remembered


class Item:
    """One message for one mailbox. `content` is None where it stands in the staging folder already (`spill`)."""

    __slots__ = (
        "accepted",
        "again",
        "binary",
        "box",
        "content",
        "delivered",
        "done",
        "error",
        "folder",
        "full",
        "key",
        "moved",
        "policy",
        "size",
    )

    def __init__(self, key: str, box: str, folder: str, policy: Policy, accepted: float, *, binary: bool) -> None:
        self.key = key
        self.box = box
        self.folder = folder  # "" or ".Name"
        self.policy = policy
        self.accepted = accepted
        self.binary = binary
        self.content: bytes | None = None
        self.size = 0
        self.again = False  # it is in the list
        self.moved = False
        self.delivered = False
        self.full = False
        self.error: OSError | None = None
        self.done = False

    @property
    def target(self) -> str:
        return os.path.join(self.box, self.folder, "new") if self.folder else os.path.join(self.box, "new")


class Store:
    """The mailboxes below `folder`."""

    def __init__(self, folder: str, hostname: str, now: Callable[[], float]) -> None:
        self.folder = folder
        self.usage = Usage()
        self.delivered = DeliveredList(os.path.join(folder, DELIVERED))
        self._hostname = hostname
        self._now = now
        self._stages: OrderedDict[str, str] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        self.delivered.close()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    # --- large messages, written piece by piece before their batch ---

    def begin(self, item: Item) -> int:
        """A descriptor for the message's text."""
        path = os.path.join(self._stage(item), f"{item.key}.part")
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    # --- a batch ---

    def commit(self, batch: list[Item]) -> None:
        """Afterwards every item is `delivered`, is `full`, or has an `error`."""
        for item in batch:
            _try(item, self._look)
        fresh = [item for item in batch if _good(item) and not item.again]
        self._weigh(fresh)
        self._write([item for item in fresh if _good(item)])
        for item in fresh:
            if not _good(item):
                self._clear(item)
        noted = [item for item in batch if _good(item)]
        if not noted:
            return
        now = self._now()
        try:
            self.delivered.add([(item.key, max(now, item.accepted)) for item in noted])
        except OSError as wrong:
            for item in noted:
                item.error = wrong
            return
        self._show(noted)
        for item in noted:
            item.delivered = item.error is None

    def _clear(self, item: Item) -> None:
        """Of a message that is not noted, nothing needs to stay."""
        try:
            os.unlink(os.path.join(self._stage(item), f"{item.key}.part"))
        except OSError:
            pass  # the next attempt begins it anew, or `upkeep` finds it

    def _look(self, item: Item) -> None:
        self._stage(item)
        item.again = self.delivered.has(item.key, item.accepted)

    def _stage(self, item: Item) -> str:
        """The folder where its message is written: the common one, or the mailbox's own on another file system."""
        stage = self._stages.get(item.box)
        if stage is None:
            make_mailbox(item.box)
            common = os.path.join(self.folder, STAGING)
            make_folder(common)
            same = os.stat(common).st_dev == os.stat(os.path.join(item.box, "new")).st_dev
            stage = self._stages[item.box] = common if same else os.path.join(item.box, "tmp")
            while len(self._stages) > BOXES:
                self._stages.popitem(last=False)
        return stage

    def _weigh(self, fresh: list[Item]) -> None:
        """Mark those that would be over their mailbox's quota."""
        more: dict[str, tuple[int, int]] = {}
        for item in fresh:
            if not item.policy.limited:
                continue
            try:
                octets, messages = more.get(item.box) or self.usage.measure(item.box)
            except OSError as wrong:
                item.error = wrong
                continue
            item.full = item.policy.full(octets + item.size, messages + 1)
            if not item.full:
                octets, messages = octets + item.size, messages + 1
            more[item.box] = octets, messages

    def _write(self, fresh: list[Item]) -> None:
        fds: list[tuple[Item, int]] = []
        try:
            for item in fresh:
                if item.content is not None:
                    _try(item, lambda one: fds.append((one, self.begin(one))))
                    if item.error is None:
                        _try(item, lambda one: write_all(fds[-1][1], one.content or b""))
            self._each(lambda pair: _try(pair[0], lambda _: os.fsync(pair[1])), fds)
        finally:
            for _, fd in fds:
                os.close(fd)
        stages: dict[str, list[Item]] = {}
        for item in fresh:
            _try(item, self._whole)
            if item.error is None:
                stages.setdefault(self._stage(item), []).append(item)
        for stage, items in stages.items():
            try:
                sync_folder(stage)
            except OSError as wrong:
                for item in items:
                    item.error = wrong

    def _whole(self, item: Item) -> None:
        path = os.path.join(self._stage(item), item.key)
        os.rename(f"{path}.part", path)

    def _show(self, noted: list[Item]) -> None:
        believed = {target: self.usage.begin(box, target) for box, target in {(one.box, one.target) for one in noted}}
        targets: dict[str, list[Item]] = {}
        for item in noted:
            _try(item, self._move)
            targets.setdefault(item.target, []).append(item)
        self._each(lambda pair: _sync(*pair), targets.items())
        for target, items in targets.items():
            moved = [item for item in items if item.moved]
            if moved and believed.get(target):
                self.usage.changed(moved[0].box, target, sum(one.size for one in moved), len(moved))

    def _move(self, item: Item) -> None:
        staged = os.path.join(self._stage(item), item.key)
        if item.again:
            try:
                item.size = os.stat(staged).st_size
            except FileNotFoundError:  # it was visible
                return
        name = file_name(item.key, item.accepted, self._hostname, item.size, binary=item.binary)
        try:
            os.rename(staged, os.path.join(item.target, name))
        except FileNotFoundError:  # the mailbox, or its folder, was removed
            item.folder = ""
            make_mailbox(item.box)
            os.rename(staged, os.path.join(item.target, name))
        item.moved = True

    def _each(self, work: Callable[[Any], None], what: Iterable[Any]) -> None:
        """Several at once where there are several; `work` raises nothing."""
        rows = list(what)
        if len(rows) < 2:
            for row in rows:
                work(row)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(SYNCERS, thread_name_prefix="mailbox-sync")
        for _ in self._pool.map(work, rows):
            pass


def _sync(target: str, items: list[Item]) -> None:
    try:
        sync_folder(target)
    except OSError as wrong:
        for item in items:
            if item.moved or not isinstance(wrong, FileNotFoundError):
                item.error = item.error or wrong


def _good(item: Item) -> bool:
    return item.error is None and not item.full


def _try(item: Item, work: Callable[[Item], None]) -> None:
    if item.error is None:
        try:
            work(item)
        except OSError as wrong:
            item.error = wrong
