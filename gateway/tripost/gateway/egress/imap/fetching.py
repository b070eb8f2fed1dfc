"""FETCH: the answers for some messages at a time, made in a thread

What is known of a message (flags, ENVELOPE …) is written from memory and from
what was kept; its text is read once for all that is asked of it.

Promise  a batch ends at about `BATCH` octets; a message's text is in memory once, a
         large one only where a part of it has to be found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tripost.delivery.mailbox.cache import Entry
from tripost.delivery.mailbox.flags import SEEN
from tripost.delivery.mailbox.folder_changes import origin
from tripost.gateway.egress.imap.content import Reader
from tripost.gateway.egress.imap.facts import BODY, DATE, ENVELOPE, PREVIEW, STRUCTURE
from tripost.gateway.egress.imap.fetch_items import Item
from tripost.gateway.egress.imap.render import NIL, email_id, internal_date, string
from tripost.gateway.egress.imap.sections import Sections, UnknownEncoding, of_header
from tripost.gateway.egress.imap.view import View

BATCH = 262_144
MOST_ROWS = 2000  # of one batch
LARGE = 1 << 20  # octets of a message that is not read whole for BODY[]

_FROM_CACHE = {"ENVELOPE": ENVELOPE, "BODYSTRUCTURE": STRUCTURE, "BODY": BODY}


class Row:
    """One message of a batch."""

    __slots__ = ("at", "entry", "name", "number", "sections", "size", "uid")

    def __init__(self, number: int, uid: int, at: int, name: str, size: int) -> None:
        self.number = number
        self.uid = uid
        self.at = at
        self.name = name
        self.size = size
        self.entry: Entry | None = None
        self.sections: Sections | None = None


class Fetcher:
    """What one FETCH asks for, of a view. `missed`: a message was gone; `undecoded`: BINARY could not be told."""

    def __init__(self, view: View, items: Sequence[Item], reader: Reader) -> None:
        self.reader = reader
        self._view = view
        self._rows = view.folder.rows
        self._flags: dict[int, bytes] = {}
        self._parts: list[Callable[[Row], bytes]] = [self._part(one) for one in items]
        self.missed = False
        self.undecoded = False

    def batch(self, chosen: Sequence[tuple[int, int]], start: int) -> tuple[bytes, int]:
        """The answers from `start` on, and where to go on."""
        out: list[bytes] = []
        size, rows = 0, self._rows
        end = min(len(chosen), start + MOST_ROWS)
        for place in range(start, end):
            number, uid = chosen[place]
            at = rows.at(uid)
            if at < 0:
                continue  # gone; the client will be told
            row = Row(number, uid, at, rows.names[at], rows.sizes[at])
            try:
                line = b"* %d FETCH (%b)\r\n" % (number, b" ".join([part(row) for part in self._parts]))
            except FileNotFoundError:
                self.missed = True
                continue
            except UnknownEncoding:
                self.undecoded = True
                continue
            out.append(line)
            size += len(line)
            if size >= BATCH:
                return b"".join(out), place + 1
        return b"".join(out), end

    def _entry(self, row: Row) -> Entry:
        if row.entry is None:
            row.entry = self.reader.entry(row.uid, row.name, row.size)
        return row.entry

    def _sections(self, row: Row) -> Sections:
        if row.sections is None:
            row.sections = Sections(self.reader.content(row.uid, row.name, row.size))
        return row.sections

    def _part(self, item: Item) -> Callable[[Row], bytes]:
        name, rows = item.name, self._rows
        if name == "FLAGS":
            return self._flags_of
        if name == "UID":
            return lambda row: b"UID %d" % row.uid
        if name == "RFC822.SIZE":
            return lambda row: b"RFC822.SIZE %d" % row.size
        if name == "MODSEQ":
            return lambda row: b"MODSEQ (%d)" % rows.modseqs[row.at]
        if name in _FROM_CACHE:
            label, blob = name.encode(), _FROM_CACHE[name]
            return lambda row: b"%b %b" % (label, self._entry(row).blobs[blob])
        if name == "INTERNALDATE":
            return lambda row: b"INTERNALDATE " + internal_date(self._entry(row).numbers[DATE])
        if name == "EMAILID":
            return lambda row: b"EMAILID (%b)" % email_id(origin(row.name))
        if name == "THREADID":
            return lambda row: b"THREADID NIL"
        if name == "PREVIEW":
            return lambda row: b"PREVIEW " + string(self._entry(row).blobs[PREVIEW])
        if name == "BINARY.SIZE[]":
            return lambda row: b"%b %d" % (item.label, len(self._sections(row).octets(item) or b""))
        return lambda row: self._content(row, item)

    def _flags_of(self, row: Row) -> bytes:
        mask = self._rows.masks[row.at]
        if row.uid in self._view.recent:
            return b"FLAGS (%b)" % self._view.flags(row.uid, mask)
        found = self._flags.get(mask)
        if found is None:
            found = self._flags[mask] = b"FLAGS (%b)" % self._view.flags(0, mask)
        return found

    def _content(self, row: Row, item: Item) -> bytes:
        octets = self._slice(row, item)
        if octets is None:
            octets = self._section(row, item)
            if octets is not None and item.count >= 0:
                octets = octets[item.first : item.first + item.count]
        if octets is None:
            return b"%b %b" % (item.label, NIL)
        if item.name.startswith("BINARY") and b"\0" in octets:
            return b"%b ~{%d}\r\n%b" % (item.label, len(octets), octets)
        if b"\0" in octets:  # which IMAP has no octets for, outside of BINARY
            octets = octets.replace(b"\0", b"\x80")
        return b"%b {%d}\r\n%b" % (item.label, len(octets), octets)

    def _section(self, row: Row, item: Item) -> bytes | None:
        """A header is taken from what was kept."""
        if item.part.startswith("HEADER") and not item.path and row.sections is None:
            return of_header(self.reader.header(row.uid, row.name, row.size), item)
        return self._sections(row).octets(item)

    def _slice(self, row: Row, item: Item) -> bytes | None:
        """A partial of a large message, without reading all of it."""
        if item.path or item.part or item.count < 0 or row.size < LARGE or item.name != "BODY[]":
            return None
        found = self.reader.slice(row.name, row.size, item.first, min(item.count, row.size))
        return None if found is not None and b"\0" in found else found


def streamable(items: Sequence[Item]) -> Item | None:
    """The one item that is the whole text, when a large message can go out in pieces."""
    contents = [one for one in items if one.content]
    if len(contents) == 1:
        one = contents[0]
        if one.name == "BODY[]" and not one.path and not one.part and one.count < 0:
            return one
    return None


def unseen(view: View, chosen: Sequence[tuple[int, int]]) -> list[int]:
    """The UIDs among them that reading marks as seen."""
    rows = view.folder.rows
    return [uid for _, uid in chosen if (at := rows.at(uid)) >= 0 and not rows.masks[at] & SEEN]
