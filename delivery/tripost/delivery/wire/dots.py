"""the end of data and the dots before it

Receiving: only CRLF . CRLF ends data (RFC 5321 §4.1.1.4); the dot that
transparency added (§4.5.2) is taken away again; bare CR and LF are noted,
never understood. Sending: dots are added, and the end.

Why      A message is looked through a few times by the C of `bytes.find`, not
         octet by octet in Python.
"""

from __future__ import annotations


class DotReader:
    """Feed octets as they come; get content, and at the end what stood behind it."""

    def __init__(self) -> None:
        self._held: bytes = b"\r\n"  # the line end of the DATA command: data may be empty
        self._fresh = True  # `_held`'s first octets are not content
        self.done = False
        self.rest: bytes = b""
        self.bare = False

    def feed(self, data: bytes) -> bytes:
        """The content in `data`, without stuffed dots; `done`, `rest` and `bare` are up to date afterwards.

        Never more than 4 octets are held back.
        """
        data = self._held + data
        end = data.find(b"\r\n.\r\n")
        if end >= 0:
            self.done = True
            self.rest = data[end + 5 :]
            content, self._held = data[: end + 2], b""
        else:
            keep = _open_end(data)
            content, self._held = data[: len(data) - keep], data[len(data) - keep :]
        return self._content(content)

    def _content(self, content: bytes) -> bytes:
        if not self.bare:
            pairs = content.count(b"\r\n")
            self.bare = content.count(b"\r") != pairs or content.count(b"\n") != pairs
        content = content.replace(b"\r\n.", b"\r\n")
        if self._fresh and content:
            content = content[2:]
            self._fresh = False
        return content


def _open_end(data: bytes) -> int:
    """How many octets at the end may become an end of data or a stuffed dot."""
    for size in (4, 3, 2, 1):
        if data.endswith(b"\r\n.\r\n"[:size]):
            return size
    return 0


class DotStuffer:
    """The other direction: content in, what goes over the wire out."""

    def __init__(self) -> None:
        self._tail = b"\r\n"  # what was sent last, as far as it matters

    def feed(self, data: bytes) -> bytes:
        if not data:
            return b""
        whole = self._tail + data
        stuffed = whole.replace(b"\r\n.", b"\r\n..")
        tail, self._tail = self._tail, whole[-2:]
        return stuffed[len(tail) :]

    def finish(self) -> bytes:
        """The end of data; a line end first where the content has none."""
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"
