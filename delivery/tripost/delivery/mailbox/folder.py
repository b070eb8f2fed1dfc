"""one folder of a mailbox, as all its readers see it

What POP3 needs of a folder is in `index`; IMAP's flags and mod-sequences are in
`journal`; both belong to one `Folder` per gateway, which every session of that
folder shares. Blocking, for one thread at a time; the sessions read `rows`
meanwhile.

API      `refresh` looks what other programs did; `store`, `expunge`, `add` change it
         (`folder_changes`). `rows` is replaced when messages come or go, so whoever
         holds one sees no half of a change.
Promise  a UID is on disk before it is in `rows`. Flags are durable when `store`
         returns; the files' names follow, and are made to follow after a crash.
         Another program's change wins over what was here before it.
Fails    OSError: what is on disk is looked at anew by the next `refresh`.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Iterable

from tripost.delivery.mailbox import keywords
from tripost.delivery.mailbox.flags import IN_NAME, SEEN, mask_of, named
from tripost.delivery.mailbox.index import Index, held
from tripost.delivery.mailbox.journal import Journal
from tripost.delivery.mailbox.session import look_at
from tripost.delivery.mailbox.uids import base_of

MOST_MESSAGES = 1_000_000  # of one folder; what is beyond is not shown until there is room
SAME_TICK = 0.05  # seconds within which a folder may change twice and have one modification time
LOOK_AGAIN = 5.0  # seconds after a change of our own, which may have hidden another program's


class Rows:
    """The messages in UID order, in columns; flags and mod-sequences change in place."""

    __slots__ = ("masks", "modseqs", "names", "sizes", "uids")

    def __init__(
        self, uids: list[int], names: list[str], sizes: list[int], masks: list[int], modseqs: list[int]
    ) -> None:
        self.uids = uids
        self.names = names
        self.sizes = sizes
        self.masks = masks
        self.modseqs = modseqs

    def at(self, uid: int) -> int:
        """Its place, -1 when it is not there."""
        place = bisect_left(self.uids, uid)
        return place if place < len(self.uids) and self.uids[place] == uid else -1

    def __len__(self) -> int:
        return len(self.uids)


class Folder:
    """`path` has new, cur and tmp. Raises OSError."""

    def __init__(self, path: str, now: float) -> None:
        self.path = path
        self.rows = Rows([], [], [], [], [])
        self.keywords: list[str] = []
        self.fresh: set[int] = set()  # UIDs that no session has had as \Recent
        self.version = 0  # grows with every change
        self.gone_version = 0  # with every change that took messages
        self.places: dict[str, str] = {}  # name without flags → new/… or cur/…
        self.unclaimed = 0  # messages that are in new
        self.dirty = True
        self._stamps = (0, 0, 0)
        self._again = 0.0
        self._now = now
        self._open()

    def _open(self) -> None:
        with held(self.path):
            self.index = Index(self.path, self._now)
            self.index.save()
        self.journal = Journal(self.path, self.index.validity)
        self.keywords = keywords.read(self.path)
        self.dirty = True

    def moved(self, path: str) -> None:
        """The folder was renamed, with all that is in it."""
        self.path = path
        self.index.moved(path)
        self.journal.moved(path)
        self.dirty = True

    # --- looking ---

    @property
    def changed(self) -> bool:
        """Would `refresh` have to look? A few stat calls."""
        return self.dirty or self._stamp() != self._stamps or time.monotonic() > self._again > 0

    def _stamp(self) -> tuple[int, int, int]:
        found = [os.stat(os.path.join(self.path, part)).st_mtime_ns for part in ("new", "cur")]
        try:
            found.append(os.stat(os.path.join(self.path, keywords.NAME)).st_mtime_ns)
        except FileNotFoundError:
            found.append(0)
        return found[0], found[1], found[2]

    def refresh(self, *, claim: bool = False) -> bool:
        """See what is there; with `claim`, new messages move to cur. True when something was different. Raises
        OSError."""
        if not self.changed and not (claim and self.unclaimed):
            return False
        stamps, version = self._stamp(), self.version
        self.dirty, self._again = False, 0.0
        if stamps[2] != self._stamps[2]:
            self.keywords = keywords.read(self.path)
            self.version += 1
        try:
            self._look(claim)
        except BaseException:
            self.dirty = True
            raise
        after = self._stamp() if claim else stamps
        self._stamps = after
        if time.time() - max(after) / 1e9 < SAME_TICK or after != stamps:
            self._again = time.monotonic() + SAME_TICK
        return self.version != version

    def _look(self, claim: bool) -> None:
        found = self._find()
        claimed = self._claim(found) if claim else set[str]()
        with held(self.path):
            self.index.catch_up()
            if self.index.validity != self.journal.validity:
                self._restart()
            if not all(map(found.__contains__, self.index.names)):
                found |= self._find()  # a file that is renamed while a folder is read may be missed once, not twice
            self.index.update(found, lambda names: look_at(names, {name: self._full(found[name]) for name in names}))
            self.index.save()
        self._take(found, claimed)

    def _full(self, place: str) -> str:
        return f"{self.path}/{place}"

    def _find(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for part in ("new", "cur"):
            prefix = f"{part}/"
            names = os.listdir(self._full(part))
            found.update((base_of(name), prefix + name) for name in names if name[0] != ".")
        return found

    def _claim(self, found: dict[str, str]) -> set[str]:
        """From new to cur, as every reader of a Maildir does (it is how others know that they have been seen)."""
        claimed: set[str] = set()
        for base, place in found.items():
            if place[0] == "n":
                target = f"cur/{place[4:]}" if ":2," in place else f"cur/{base}:2,"
                try:
                    os.rename(self._full(place), self._full(target))
                except FileNotFoundError:
                    continue  # another program was quicker: the next look finds it
                found[base] = target
                claimed.add(base)
        return claimed

    def _restart(self) -> None:
        """The index was lost: other UIDs."""
        self.journal = Journal(self.path, self.index.validity)
        self.places = {}
        self.rows = Rows([], [], [], [], [])
        self.gone_version = self.version = self.version + 1

    def _take(self, found: dict[str, str], claimed: set[str]) -> None:
        """Make rows of what the index has, with flags from the names and the journal."""
        index, journal = self.index, self.journal
        uids, names = index.uids[:MOST_MESSAGES], index.names[:MOST_MESSAGES]
        known = dict(zip(self.rows.uids, self.rows.masks, strict=True))
        renames: list[tuple[int, int]] = []
        masks = [
            self._mask(uid, name, found.get(name, ""), known.get(uid), renames)
            for uid, name in zip(uids, names, strict=True)
        ]
        marks = journal.marks
        changed = [row for row in zip(uids, masks, strict=True) if marks.get(row[0], (-1,))[0] != row[1]]
        gone = sorted(marks.keys() - set(uids))
        if gone:
            journal.remove(gone, journal.next_modseq())
        if changed:
            modseq = journal.next_modseq()
            journal.mark([(uid, mask, modseq) for uid, mask in changed], settled=True)
        self.places = found
        self.unclaimed = sum(place[0] == "n" for place in found.values())
        self.rows = Rows(uids, names, index.sizes[:MOST_MESSAGES], masks, [marks[uid][1] for uid in uids])
        self.fresh.update(uid for uid, name in zip(uids, names, strict=True) if name in claimed)
        self.fresh.difference_update(gone)
        if changed or gone:
            self.version += 1
        if gone:
            self.gone_version = self.version
        if renames:
            self.rename(renames)

    def _mask(self, uid: int, name: str, place: str, before: int | None, renames: list[tuple[int, int]]) -> int:
        """Its flags now. `before`: what this folder knew of it; None at the first look."""
        if before is not None:
            if place == self.places.get(name) or not place:
                return before
            return mask_of(place) | (before & ~IN_NAME)
        there = mask_of(place)
        marked = self.journal.marks.get(uid)
        if marked is None:
            return there
        if uid in self.journal.unsettled and marked[0] & IN_NAME != there:
            renames.append((uid, marked[0]))
            return marked[0]
        return there | (marked[0] & ~IN_NAME)

    # --- what the changes need ---

    def path_of(self, name: str) -> str:
        """Where the message is. Raises FileNotFoundError."""
        place = self.places.get(name)
        if place is None:
            raise FileNotFoundError(name)
        return self._full(place)

    def open(self, name: str) -> int:
        """A descriptor of the message, found again when another program has renamed it. Raises OSError."""
        try:
            return os.open(self.path_of(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            self.dirty = True
            found = self._find()
            if name not in found:
                raise
            return os.open(self._full(found[name]), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def rename(self, rows: Iterable[tuple[int, int]]) -> None:
        """Give files the names that say these flags. What cannot be renamed is looked at again."""
        stamps = self._stamp()
        ours = stamps == self._stamps
        missed = False
        for uid, mask in rows:
            at = self.rows.at(uid)
            if at < 0:
                continue
            name = self.rows.names[at]
            old = self.places.get(name, "")
            new = f"cur/{named(name, mask, old)}"
            if new == old:
                continue
            try:
                os.rename(self._full(old), self._full(new))
            except OSError:
                missed = True
                continue
            self.places[name] = new
        if missed:
            self.dirty = True
        else:
            self.journal.settle()
        self.adopt(ours)

    def take(self) -> None:
        """Make rows of what the index and `places` say now."""
        self._take(self.places, set())

    def adopt(self, ours: bool) -> None:
        """After a change of our own. `ours`: before it, nobody else had changed the folder."""
        if ours:
            self._stamps = self._stamp()
            self._again = time.monotonic() + LOOK_AGAIN
        else:
            self.dirty = True

    def untouched(self) -> bool:
        """Nobody else has changed it since the last look."""
        return not self.dirty and self._stamp() == self._stamps

    def counts(self) -> tuple[int, int, int]:
        """Messages, unseen ones, octets."""
        rows = self.rows
        return len(rows), sum(not mask & SEEN for mask in rows.masks), sum(rows.sizes)
