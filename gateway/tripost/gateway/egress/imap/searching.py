"""SEARCH, SORT and THREAD over a view: blocking, in a thread, some messages at a time"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tripost.delivery.mailbox.cache import Entry
from tripost.delivery.mailbox.flags import mask_for
from tripost.delivery.mailbox.folder_changes import origin
from tripost.delivery.mime.decoding import texts
from tripost.delivery.mime.fields import decoded, header_end
from tripost.delivery.mime.structure import structure
from tripost.gateway.egress.imap.content import Reader
from tripost.gateway.egress.imap.facts import DATE, SENT, SortKeys, folded, has_field, sort_keys
from tripost.gateway.egress.imap.matching import Compiler, Test, needles, one_field
from tripost.gateway.egress.imap.render import email_id
from tripost.gateway.egress.imap.search_keys import Key
from tripost.gateway.egress.imap.sets import compact, spans
from tripost.gateway.egress.imap.threads import Mail
from tripost.gateway.egress.imap.view import View

CHUNK = 20_000  # messages that are looked at without a pause…
SLICE = 0.25  # …and seconds, about


class Looked:
    """A `Candidate`."""

    __slots__ = ("_at", "_entry", "_reader", "_texts", "_view", "number", "uid")

    def __init__(self, view: View, reader: Reader, number: int, uid: int, at: int) -> None:
        self._view = view
        self._reader = reader
        self._at = at
        self._entry: Entry | None = None
        self._texts: dict[bool, str] | None = None
        self.number = number
        self.uid = uid

    @property
    def size(self) -> int:
        return self._view.folder.rows.sizes[self._at]

    @property
    def mask(self) -> int:
        return self._view.folder.rows.masks[self._at]

    @property
    def modseq(self) -> int:
        return self._view.folder.rows.modseqs[self._at]

    @property
    def recent(self) -> bool:
        return self.uid in self._view.recent

    @property
    def _name(self) -> str:
        return self._view.folder.rows.names[self._at]

    @property
    def id(self) -> str:
        return email_id(origin(self._name)).decode()

    def entry(self) -> Entry:
        if self._entry is None:
            self._entry = self._reader.entry(self.uid, self._name, self.size)
        return self._entry

    def texts(self) -> bytes:
        return self._reader.texts(self.uid, self._name, self.size)

    def text(self, *, header: bool) -> str:
        if self._texts is None:
            self._texts = {}
        found = self._texts.get(header)
        if found is None:
            found = self._texts[header] = self._text(header)
        return found

    def _text(self, header: bool) -> str:
        content = self._reader.content(self.uid, self._name, self.size)
        found = texts(structure(content), content)
        if header:
            found = decoded(content[: header_end(content)].replace(b"\r\n ", b" ")) + "\n" + found
        return folded(found)


class Searcher:
    """One program over one view."""

    def __init__(self, view: View, key: Key, now: float) -> None:
        self._view = view
        self._rows = view.folder.rows
        self._reader: Reader | None = None
        self._test = self._compiled(key, now)
        self._needle = needles(key)
        self._field = one_field(key)
        self._among: set[int] | None = None
        self.found: list[tuple[int, int]] = []  # (number, UID)

    def _compiled(self, key: Key, now: float) -> Test:
        view = self._view

        def bit(flag: str) -> int:
            return mask_for([flag], view.folder.keywords)[0]

        def ranges(one: Key) -> Sequence[tuple[int, int]]:
            uid = one.kind == "uid"
            if one.set.saved:
                numbers = sorted(view.saved if uid else map(view.number, view.saved))
                return [(number, number) for number in numbers if number]
            return spans(one.set, (view.uids[-1] if view.uids else 0) if uid else len(view.uids))

        return Compiler(bit, ranges, now).compile(key)

    @property
    def _opened(self) -> Reader:
        if self._reader is None:
            self._reader = Reader(self._view.folder, self._view.shared.cache())
        return self._reader

    def chunk(self, start: int) -> int:
        """Look at some messages; where to go on. A message that is gone matches nothing."""
        reader, rows, uids = self._opened, self._rows, self._view.uids
        if not start and self._needle is not None:
            self._among = self._view.shared.cache().holding(self._needle, uids)
        among = self._among
        end, stop = min(len(uids), start + CHUNK), time.monotonic() + SLICE
        for place in range(start, end):
            uid = uids[place]
            if among is not None and uid not in among:
                continue
            at = place if place < len(rows) and rows.uids[place] == uid else rows.at(uid)
            if at < 0:
                continue
            try:
                if self._matches(reader, place + 1, uid, at):
                    self.found.append((place + 1, uid))
            except FileNotFoundError:
                continue
            if not place % 32 and time.monotonic() > stop:
                return place + 1
        return end

    def _matches(self, reader: Reader, number: int, uid: int, at: int) -> bool:
        if self._field is not None:  # the most common search, without a detour
            mark, wanted = self._field
            return has_field(reader.texts(uid, self._rows.names[at], self._rows.sizes[at]), mark, wanted)
        return self._test(Looked(self._view, reader, number, uid, at))

    # --- SORT and THREAD ---

    def ordered(self, order: Sequence[tuple[str, bool]]) -> list[tuple[int, int]]:
        """What was found, in this order."""
        keys: dict[int, tuple[Entry, SortKeys, int]] = {}
        for one in self.found:
            entry = self._entry(one[1])
            if entry is not None:
                keys[one[1]] = entry, sort_keys(entry), self._rows.sizes[self._rows.at(one[1])]
        found = [one for one in self.found if one[1] in keys]
        for name, backwards in reversed(order):
            found.sort(key=lambda one: _sort_value(name, *keys[one[1]]), reverse=backwards)
        return found

    def mails(self, *, uid: bool) -> list[Mail]:
        """What was found, for THREAD."""
        mails: list[Mail] = []
        for number, one in self.found:
            entry = self._entry(one)
            if entry is None:
                continue
            keys = sort_keys(entry)
            sent = entry.numbers[SENT] or entry.numbers[DATE]
            mails.append(Mail(one if uid else number, sent, keys.subject, keys.reply, keys.id, keys.references))
        return mails

    def _entry(self, uid: int) -> Entry | None:
        at = self._rows.at(uid)
        try:
            return self._opened.entry(uid, self._rows.names[at], self._rows.sizes[at])
        except FileNotFoundError:
            return None


def _sort_value(name: str, entry: Entry, keys: SortKeys, size: int) -> str | int:
    if name == "ARRIVAL":
        return entry.numbers[DATE]
    if name == "DATE":
        return entry.numbers[SENT] or entry.numbers[DATE]
    if name == "SIZE":
        return size
    return {"SUBJECT": keys.subject, "FROM": keys.sender, "TO": keys.to, "CC": keys.cc}[name]


def esearch(tag: str, found: Sequence[tuple[int, int]], returns: frozenset[str], *, uid: bool, modseq: int) -> bytes:
    """RFC 4731's answer. `modseq` 0: not asked for."""
    numbers = [one[1] if uid else one[0] for one in found]
    parts = [f'* ESEARCH (TAG "{tag}")'] + (["UID"] if uid else [])
    if numbers and "MIN" in returns:
        parts.append(f"MIN {numbers[0]}")
    if numbers and "MAX" in returns:
        parts.append(f"MAX {numbers[-1]}")
    if "COUNT" in returns:
        parts.append(f"COUNT {len(numbers)}")
    if numbers and "ALL" in returns:
        parts.append(f"ALL {compact(numbers)}")
    if numbers and modseq:
        parts.append(f"MODSEQ {modseq}")
    return " ".join(parts).encode() + b"\r\n"
