"""a message as a program writes it to sendmail's standard input, made into what SMTP sends

LF becomes CRLF; CRLF stays; a CR that ends no line stays too, and the gateway refuses it. The header is gathered
whole: recipients are read from it, Bcc taken out, and what RFC 5322 §3.6 wants and is missing is added at its end.
Pure: octets in, octets out, in pieces; memory for the header and one piece.

Fails    `MessageError`: a header larger than HEADER_LIMIT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.utils import getaddresses

HEADER_LIMIT = 1 << 20
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_ENDS = re.compile(rb"\r?\n")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+\Z")
_MBOX = re.compile(rb"From [^\n]*\n")  # what a mailbox file has before each message
TO = (b"to", b"cc", b"bcc")


class MessageError(Exception):
    """One line."""


class Lines:
    """LF → CRLF, in pieces; without `dots` a line that is a single dot ends the input."""

    def __init__(self, *, dots: bool) -> None:
        self._dots = dots
        self._kept = b""
        self._fresh = True  # what comes next begins a line
        self.over = False

    def feed(self, data: bytes) -> bytes:
        """`b""` is the end of the input. What is given begins and ends anywhere, but never between CR and LF."""
        if self.over:
            return b""
        last, data = not data, self._kept + data
        held = 0 if last else self._hold(data)
        data, self._kept = data[: len(data) - held], data[len(data) - held :]
        made = _ENDS.sub(b"\r\n", data)
        if last:
            self.over = True
            if made[-2:] != b"\r\n" and (made or not self._fresh):
                made += b"\r\n"
        if not self._dots:
            made = self._until_dot(made)
        if made:
            self._fresh = made.endswith(b"\r\n")
        return made

    def _hold(self, data: bytes) -> int:
        """Octets at its end whose meaning what follows decides: of a line that may be a dot's, or a CR."""
        at = data.rfind(b"\n") + 1
        if (at or self._fresh) and data[at:] in (b".", b".\r"):
            return len(data) - at
        return int(data.endswith(b"\r"))

    def _until_dot(self, made: bytes) -> bytes:
        if self._fresh and made.startswith(b".\r\n"):
            self.over = True
            return b""
        at = made.find(b"\r\n.\r\n")
        if at >= 0:
            self.over = True
            return made[: at + 2]
        return made


class Header:
    """`fields`: (name in lower case, the whole field with its CRLFs), in order."""

    def __init__(self, text: bytes) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        for line in _split(text):
            match = _FIELD.match(line)
            self.fields.append((match[1].lower() if match else b"", line))

    def has(self, name: bytes) -> bool:
        return any(one == name for one, _ in self.fields)

    def recipients(self) -> list[str]:
        """The addresses of To, Cc and Bcc; of the Resent- fields where there is one (RFC 5322 §3.6.6)."""
        resent = any(name.startswith(b"resent-") for name, _ in self.fields)
        wanted = [b"resent-" + name for name in TO] if resent else list(TO)
        texts = [
            line.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8", "surrogateescape")
            for name, line in self.fields
            if name in wanted
        ]
        return [address for _, address in getaddresses(texts) if address]

    def without(self, *names: bytes) -> None:
        self.fields = [(name, line) for name, line in self.fields if name not in names]

    def add(self, line: bytes) -> None:
        self.fields.append((b"", line))

    def octets(self) -> bytes:
        return b"".join(line for _, line in self.fields)


def _split(text: bytes) -> Iterator[bytes]:
    """Fields, each with its folded lines."""
    field = b""
    for line in _LINE.findall(text):
        if line[:1] in (b" ", b"\t") and field:
            field += line
            continue
        if field:
            yield field
        field = line
    if field:
        yield field


class Message:
    """Feed the text of `Lines`; `header` is there once it is whole, and `rest` what came behind it."""

    def __init__(self) -> None:
        self._data = b""
        self.header: Header | None = None
        self.rest = b""

    def feed(self, data: bytes, *, last: bool = False) -> bool:
        """Is the header whole? Raises MessageError."""
        self._data += data
        whole = self._end(last)
        if whole is None:
            if len(self._data) > HEADER_LIMIT:
                raise MessageError(f"the message's header is larger than {HEADER_LIMIT} octets")
            return False
        text, self.rest = whole
        self.header = Header(_MBOX.sub(b"", text, count=1) if text.startswith(b"From ") else text)
        self._data = b""
        return True

    def _end(self, last: bool) -> tuple[bytes, bytes] | None:
        """The header, and what follows with the empty line before it."""
        data, at = self._data, 0
        while True:
            end = data.find(b"\r\n", at)
            if end < 0:
                return (data, b"\r\n") if last else None
            line = data[at : end + 2]
            if line == b"\r\n":
                return data[:at], data[at:]
            mbox = at == 0 and line.startswith(b"From ")
            if not (mbox or _FIELD.match(line) or (at and line[:1] in (b" ", b"\t"))):
                return data[:at], b"\r\n" + data[at:]  # text without a header, or without the line that ends it
            at = end + 2
