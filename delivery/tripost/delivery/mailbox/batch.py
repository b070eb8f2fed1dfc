"""many deliveries, few syncs

What waits for the disk at the same time is made durable together, in one
worker-thread hop. Blocking; one batch at a time.

Order    1. each message is written in the staging folder, and both are synced
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
import time
from collections import OrderedDict
from collections.abc import Callable

from tripost.delivery.mailbox.delivered import DeliveredList
from tripost.delivery.mailbox.places import DELIVERED, STAGING, make_folder, make_mailbox, sync_folder, write_all
from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.retention import tidy
from tripost.delivery.mailbox.syncing import Syncer
from tripost.delivery.mailbox.uids import file_name
from tripost.delivery.mailbox.usage import Usage

BOXES = 10_000  # mailboxes whose staging folder is remembered


class Item:
    """One message for one mailbox. `content` is None, and `part` set, where it was written before (`Store.begin`)."""

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
        "new",
        "part",
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
        self.new = False  # this try made its file in the staging folder…
        self.part = False  # …or wrote it beside what an earlier one left there
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

    def __init__(self, folder: str, hostname: str) -> None:
        self.folder = folder
        self.usage = Usage()
        self.delivered = DeliveredList(os.path.join(folder, DELIVERED))
        self.pushed_out: dict[str, int] = {}  # mailbox → messages that went; for who asks
        self._hostname = hostname
        self._stages: OrderedDict[str, str] = OrderedDict()
        self._common = os.path.join(folder, STAGING)
        self._sync = Syncer(folder)

    def close(self) -> None:
        self.delivered.close()
        self._sync.close()

    # --- large messages, written piece by piece before their batch ---

    def begin(self, item: Item) -> int:
        """A descriptor for the message's text, which the caller syncs."""
        item.part = True
        path = os.path.join(self._stage(item), f"{item.key}.part")
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    # --- a batch ---

    def commit(self, batch: list[Item], now: float) -> None:
        """`now` in wall-clock seconds. Afterwards every item is `delivered`, is `full`, or has an `error`."""
        for item in batch:
            _try(item, self._look)
        fresh = [item for item in batch if _good(item) and not item.again]
        self._weigh(fresh)
        fresh_good = [item for item in fresh if _good(item)]
        together = self._together(fresh_good)
        self._write(fresh_good, together)
        for item in fresh:
            if not _good(item):
                self._clear(item)
        noted = [item for item in batch if _good(item)]
        if not noted:
            return
        began = time.monotonic()
        try:
            self.delivered.add([(item.key, max(now, item.accepted)) for item in noted])
            self._sync.single(time.monotonic() - began)
        except OSError as wrong:
            for item in noted:
                item.error = wrong
            return
        self._show(noted, together)
        for item in noted:
            item.delivered = item.error is None
            if item.moved and item.policy.max_messages:
                self._cap(item, now)

    def _cap(self, item: Item, now: float) -> None:
        """The oldest go, where only so many may stay."""
        try:
            if self.usage.measure(item.box)[1] > item.policy.max_messages:
                count = tidy(item.box, item.policy, now)
                self.pushed_out[item.box] = self.pushed_out.get(item.box, 0) + count
        except OSError:
            pass  # the next delivery tries again

    def _together(self, items: list[Item]) -> bool:
        try:
            return self._sync.pays(len(items))
        except OSError:
            return False

    def _clear(self, item: Item) -> None:
        """What this try wrote of a message that is not noted; what an earlier one left may be named by a note."""
        if item.new or item.part:
            try:
                os.unlink(os.path.join(self._stage(item), f"{item.key}.part" if item.part else item.key))
            except OSError:
                pass  # the next try goes round it, or `upkeep` finds it

    def _look(self, item: Item) -> None:
        self._stage(item)
        item.again = self.delivered.has(item.key, item.accepted)

    def _stage(self, item: Item) -> str:
        """The folder where its message is written: the common one, or the mailbox's own on another file system."""
        stage = self._stages.get(item.box)
        if stage is None:
            make_mailbox(item.box)
            make_folder(self._common)
            same = os.stat(self._common).st_dev == os.stat(os.path.join(item.box, "new")).st_dev
            stage = self._stages[item.box] = self._common if same else os.path.join(item.box, "tmp")
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

    def _write(self, fresh: list[Item], together: bool) -> None:
        stages: dict[str, list[Item]] = {}
        rest: list[tuple[Item, int]] = []
        try:
            for item in fresh:
                _try(item, lambda one: self._content(one, rest))
            alone = [pair for pair in rest if not together or self._stage(pair[0]) != self._common]
            self._sync.each(lambda pair: _try(pair[0], lambda _: os.fsync(pair[1])), alone)
        finally:
            for _, fd in rest:
                os.close(fd)
        for item in fresh:
            if item.part:
                _try(item, self._whole)
            stages.setdefault(self._stage(item), []).append(item)
        if together:
            self._all([item for item in fresh if item.error is None], 0)
            stages.pop(self._common, None)
        for stage, items in stages.items():
            _sync(stage, [item for item in items if item.error is None])

    def _content(self, item: Item, rest: list[tuple[Item, int]]) -> None:
        """Write a small message. Its name is new, else an earlier try was cut off: then it must not be touched before
        what replaces it is whole and synced, because a note that names it may be on the disk."""
        if item.content is None:
            return
        path = os.path.join(self._stage(item), item.key)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            fd = self.begin(item)
            try:
                write_all(fd, item.content)
                os.fsync(fd)
            finally:
                os.close(fd)
            return
        item.new = True
        rest.append((item, fd))
        write_all(fd, item.content)

    def _all(self, items: list[Item], folders: int) -> None:
        """`folders` would be synced, or, where there are none, `items`."""
        try:
            self._sync.all(folders or len(items))
        except OSError as wrong:
            for item in items:
                item.error = wrong

    def _whole(self, item: Item) -> None:
        path = os.path.join(self._stage(item), item.key)
        os.rename(f"{path}.part", path)
        item.part = False

    def _show(self, noted: list[Item], together: bool) -> None:
        believed = {target: self.usage.begin(box, target) for box, target in {(one.box, one.target) for one in noted}}
        targets: dict[str, list[Item]] = {}
        for item in noted:
            _try(item, self._move)
            targets.setdefault(item.target, []).append(item)
        if together:
            self._all([item for item in noted if self._stage(item) == self._common], len(targets))
            others = {target: some for target, some in targets.items() if self._stage(some[0]) != self._common}
        else:
            others = targets
        self._sync.each(lambda pair: _sync(*pair), others.items())
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
