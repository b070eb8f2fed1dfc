"""the content, out of DATA and of BDAT, and into DATA

Receiving: only CRLF . CRLF ends data (RFC 5321 §4.1.1.4); the dot that
transparency added (§4.5.2) is taken away again; bare CR and LF never end
anything. They are noted, and with `normalize` they become CRLF in what is
handed on. A chunk of BDAT (RFC 3030) has a length instead of an end, and no
dots. Sending: dots are added, and the end.

Why      A message is looked through a few times by the C of `bytes.find`, not
         octet by octet in Python.
"""

from __future__ import annotations

import re

_NEWLINE = re.compile(rb"\r\n|\r|\n")


def _bare(content: bytes) -> bool:
    """Is there a CR or LF without the other? `content` must not end between the two."""
    rest = content.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest


class DotReader:
    """Feed octets as they come; get content, and at the end what stood behind it."""

    def __init__(self, *, normalize: bool = False) -> None:
        self._normalize = normalize
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
        dot = data.find(b"\r\n.")  # the first that matters: most contents have none but the end
        end = data.find(b"\r\n.\r\n", dot) if dot >= 0 else -1
        if end >= 0:
            self.done = True
            self.rest = data[end + 5 :]
            content, self._held = data[: end + 2], b""
        else:
            keep = _open_end(data)
            content, self._held = data[: len(data) - keep], data[len(data) - keep :]
        return self._content(content, stuffed=0 <= dot < len(content) - 2)

    def _content(self, content: bytes, *, stuffed: bool) -> bytes:
        bare = (self._normalize or not self.bare) and _bare(content)
        self.bare = self.bare or bare
        if stuffed:
            content = content.replace(b"\r\n.", b"\r\n")
        if bare and self._normalize:
            content = _NEWLINE.sub(b"\r\n", content)
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


class ChunkReader:
    """Feed the octets of all the chunks of one message; get content. `binary`: CR and LF are octets like others.

    What it hands on never ends between CR and LF."""

    def __init__(self, *, binary: bool = False, normalize: bool = False) -> None:
        self._binary = binary
        self._normalize = normalize
        self._held = b""  # a CR that may be half of a line end
        self.bare = False

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """`last`: nothing comes behind `data`. One octet at most is held back."""
        if self._held:
            data, self._held = self._held + data, b""
        if not last and data.endswith(b"\r"):
            data, self._held = data[:-1], b"\r"
        if self._binary:
            return data
        if (self._normalize or not self.bare) and _bare(data):
            self.bare = True
            if self._normalize:
                return _NEWLINE.sub(b"\r\n", data)
        return data


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


def stuffed(content: bytes) -> bytes:
    """A whole content at once, with its end; the same as `DotStuffer` makes."""
    if b"\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    if content.startswith(b"."):
        content = b"." + content
    return content + (b".\r\n" if not content or content.endswith(b"\r\n") else b"\r\n.\r\n")
