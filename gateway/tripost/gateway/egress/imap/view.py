"""a selected mailbox as one session has been told of it

Sequence numbers mean what the client was told last; the folder itself goes on
changing. `news` is what it has to hear, in the order that keeps its numbers right.

Promise  a message keeps its number until the client was told EXPUNGE (or VANISHED);
         what the session did itself, silently, it does not hear again.
Source   RFC 9051 §7.4, §7.5.1; RFC 7162 §3.2.10 (VANISHED).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

from tripost.delivery.mailbox.flags import SYSTEM, names_of
from tripost.delivery.mailbox.folder import Folder
from tripost.delivery.mailbox.opened import Shared
from tripost.gateway.egress.imap.sets import NumberSet, compact, places, spans


class View:
    """`name` in modified UTF-7; `uids` of the messages in the client's order."""

    def __init__(self, name: str, shared: Shared, *, read_only: bool) -> None:
        self.name = name
        self.shared = shared
        self.read_only = read_only
        self.recent: set[int] = set()
        self.saved: list[int] = []  # SEARCHRES: UIDs
        folder = shared.folder
        self.uids = array("I", folder.rows.uids)
        self._modseq = folder.journal.highest
        self.version = folder.version
        self._gone: int = folder.gone_version
        self._highest = self.uids[-1] if self.uids else 0
        self._keywords = list(folder.keywords)
        self._told: dict[int, int] = {}  # UID → mod-sequence that the client knows of

    @property
    def folder(self) -> Folder:
        return self.shared.folder

    def claim(self) -> None:
        """Messages that no session has had as new are this one's."""
        folder = self.folder
        if self.read_only:
            self.recent = {uid for uid, name in zip(folder.rows.uids, folder.rows.names, strict=True)
                           if folder.places.get(name, "c")[0] == "n"} if folder.unclaimed else set()  # fmt: skip
        elif folder.fresh:
            self.recent |= folder.fresh
            folder.fresh = set()

    def number(self, uid: int) -> int:
        """Its sequence number; 0 when the client does not know it."""
        at = bisect_left(self.uids, uid)
        return at + 1 if at < len(self.uids) and self.uids[at] == uid else 0

    def chosen(self, wanted: NumberSet, *, uid: bool) -> list[tuple[int, int]] | None:
        """(number, UID) of those that a command names; None where it names a number that there is not."""
        uids = self.uids
        if wanted.saved:
            return [(number, one) for one in self.saved if (number := self.number(one))]
        if uid:
            found = places(uids, spans(wanted, uids[-1] if uids else 0))
            return [(at + 1, uids[at]) for at in found]
        ranges = spans(wanted, len(uids))
        if ranges and (ranges[-1][1] > len(uids) or ranges[0][0] < 1):
            return None
        return [(number, uids[number - 1]) for low, high in ranges for number in range(low, high + 1)]

    def knows(self, uid: int, modseq: int) -> None:
        """The client has been told of the message as it is at `modseq`."""
        self._told[uid] = modseq

    # --- news ---

    def news(self, *, expunge: bool, uid: bool, modseqs: bool, vanished: bool) -> list[bytes]:
        """What the client has to be told. `expunge`: it may be told that messages went; `uid`: its FETCH have a UID."""
        folder = self.folder
        if folder.version == self.version and folder.gone_version == self._gone and not self.shared.dead:
            return []
        lines: list[bytes] = []
        rows = folder.rows
        if expunge and (folder.gone_version != self._gone or self.shared.dead):
            lines += self._expunged(set() if self.shared.dead else set(rows.uids), vanished=vanished)
            self._gone = folder.gone_version
        if self.shared.dead:
            return lines
        lines += self.keyword_news()
        at = bisect_left(rows.uids, self._highest + 1)
        fresh = rows.uids[at:]
        lines += self._changed(at, uid=uid, modseqs=modseqs)
        if fresh:
            self.uids.extend(fresh)
            self._highest = fresh[-1]
            self.claim()
            lines += [b"* %d EXISTS\r\n" % len(self.uids), b"* %d RECENT\r\n" % len(self.recent)]
        self.version = folder.version
        return lines

    def keyword_news(self) -> list[bytes]:
        """FLAGS anew, before a keyword is told that was not in it."""
        if self.folder.keywords == self._keywords:
            return []
        self._keywords = list(self.folder.keywords)
        return self.flag_lines()

    def _expunged(self, there: set[int], *, vanished: bool) -> list[bytes]:
        gone = [at for at, uid in enumerate(self.uids) if uid not in there]
        if not gone:
            return []
        uids = [self.uids[at] for at in gone]
        lost = set(uids)
        self.uids = array("I", [uid for uid in self.uids if uid not in lost])
        self.recent -= lost
        self.saved = [uid for uid in self.saved if uid not in lost]
        for uid in uids:
            self._told.pop(uid, None)
        if vanished:
            return [b"* VANISHED %b\r\n" % compact(uids).encode()]
        return [b"* %d EXPUNGE\r\n" % (at + 1) for at in reversed(gone)]

    def _changed(self, end: int, *, uid: bool, modseqs: bool) -> list[bytes]:
        """FETCH lines for those of the first `end` rows whose flags have changed."""
        folder, rows, before = self.folder, self.folder.rows, self._modseq
        highest = folder.journal.highest
        if highest == before:
            return []
        lines: list[bytes] = []
        self._modseq = highest
        for at in [at for at, modseq in enumerate(rows.modseqs[:end]) if modseq > before]:
            one, modseq = rows.uids[at], rows.modseqs[at]
            number = self.number(one)
            if not number or self._told.pop(one, 0) == modseq:
                continue
            more = (b" UID %d" % one if uid else b"") + (b" MODSEQ (%d)" % modseq if modseqs else b"")
            lines.append(b"* %d FETCH (FLAGS (%b)%b)\r\n" % (number, self.flags(one, rows.masks[at]), more))
        if not self._told:
            return lines
        self._told = {one: modseq for one, modseq in self._told.items() if modseq > highest}
        return lines

    def flags(self, uid: int, mask: int) -> bytes:
        names = names_of(mask, self.folder.keywords)
        if uid in self.recent:
            names.append("\\Recent")
        return " ".join(names).encode()

    def flag_lines(self) -> list[bytes]:
        """FLAGS and PERMANENTFLAGS."""
        names = " ".join([*SYSTEM, *(one for one in self.folder.keywords if one)])
        permanent = "" if self.read_only else f"{names} \\*"
        return [
            f"* FLAGS ({names})\r\n".encode(),
            f"* OK [PERMANENTFLAGS ({permanent})] what can be changed\r\n".encode(),
        ]
