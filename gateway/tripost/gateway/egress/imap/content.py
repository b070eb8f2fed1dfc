"""reading messages of a folder, for FETCH and SEARCH

Blocking, for a thread. Contents are as they go over the wire, CRLF at each line's
end; a file that other programs wrote with LF is turned into that.
"""

from __future__ import annotations

import os

from tripost.delivery.mailbox.cache import Cache, Entry
from tripost.delivery.mailbox.folder import Folder
from tripost.delivery.mailbox.lineends import wire_ends
from tripost.delivery.mime.fields import header_end
from tripost.gateway.egress.imap.facts import HEADER, TEXTS, facts

MOST_WHOLE = 128 << 20  # octets of a message that is looked into; what is beyond is cut off


class Reader:
    """One folder's messages, and what is kept of them."""

    def __init__(self, folder: Folder, cache: Cache) -> None:
        self.folder = folder
        self._cache = cache
        self._last: tuple[int, bytes] = (0, b"")

    def entry(self, uid: int, name: str, size: int) -> Entry:
        """What is known of the message; found out at the first time. Raises OSError."""
        found = self._cache.get(uid)
        if found is None:
            date = self._read(uid, name, size)
            found = facts(self._last[1], date)
            self._cache.put(uid, found.numbers, found.blobs)
        return found

    def texts(self, uid: int, name: str, size: int) -> bytes:
        """The header as SEARCH looks at it. Raises OSError."""
        found = self._cache.blob(uid, TEXTS)
        return found if found is not None else self.entry(uid, name, size).blobs[TEXTS]

    def header(self, uid: int, name: str, size: int) -> bytes:
        """As it is sent. Raises OSError."""
        if uid not in self._cache:
            self.entry(uid, name, size)
        found = self._cache.blob(uid, HEADER)
        if found:
            return found
        content = self.content(uid, name, size)
        return content[: header_end(content)]

    def content(self, uid: int, name: str, size: int) -> bytes:
        """The whole message, which is `size` octets on the wire. Raises OSError."""
        if self._last[0] != uid:
            self._read(uid, name, size)
        return self._last[1]

    def _read(self, uid: int, name: str, size: int) -> int:
        """When the message came; its content is `_last`."""
        fd = self.folder.open(name)
        try:
            content = _all(fd)
            # a file as large as on the wire is what goes over it, be it text or not
            self._last = uid, content if len(content) == size else wire_ends(content)
            return int(os.fstat(fd).st_mtime)
        finally:
            os.close(fd)

    def slice(self, name: str, size: int, first: int, count: int) -> bytes | None:
        """A part of a large message; None when its file is not as it goes over the wire. Raises OSError."""
        fd = self.folder.open(name)
        try:
            if os.fstat(fd).st_size != size:
                return None
            return os.pread(fd, count, first)
        finally:
            os.close(fd)


def _all(fd: int) -> bytes:
    pieces: list[bytes] = []
    left = min(os.fstat(fd).st_size, MOST_WHOLE)
    while left > 0:
        data = os.read(fd, min(left, 1 << 20))
        if not data:
            break
        pieces.append(data)
        left -= len(data)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
