"""Delivered-To: what keeps forwarded mail from going in circles

A mailbox, and an alias that forwards to another host, puts its own address on
top of the message. Who finds its address there already has had the message
before: 554 5.4.6, and the sender, who is kept, is told. (There is no standard;
qmail, Postfix and Dovecot do the same.)
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from tripost.queue.body import BodyReader
from tripost.queue.message import Failed, Recipient

READ = 65_536  # octets of the message in which its header is looked for
_FIELD = re.compile(rb"(?im)^Delivered-To:[ \t]*([^\r\n]*?)[ \t]*\r?$")
OpenReader = Callable[[], Awaitable[BodyReader]]


def delivered_to(address: str) -> bytes:
    """The line."""
    return f"Delivered-To: {address}\r\n".encode()


def was_delivered_to(address: str, start: bytes) -> bool:
    """Does the header in a message's first octets say so?"""
    found = _FIELD.findall(start.partition(b"\r\n\r\n")[0])
    return address.lower().encode() in [one.lower() for one in found]


def circle(address: str) -> Failed:
    return Failed(554, "5.4.6", f"the message was delivered to {address} before: it goes in circles")


def by_alias(recipients: tuple[Recipient, ...]) -> dict[str, tuple[Recipient, ...]]:
    """Recipients whose copy has the same line on top; "" for those that nobody forwards to."""
    groups: dict[str, tuple[Recipient, ...]] = {}
    for one in recipients:
        groups[one.via] = (*groups.get(one.via, ()), one)
    return groups


class _Marked(BodyReader):
    """Another reader's content behind a line of ours."""

    def __init__(self, line: bytes, inner: BodyReader) -> None:
        self._line = line
        self._inner = inner
        self.size = len(line) + inner.size

    async def read(self, n: int = READ) -> bytes:
        if self._line:
            data, self._line = self._line[:n], self._line[n:]
            return data
        return await self._inner.read(n)

    def close(self) -> None:
        self._inner.close()


def marked(open_reader: OpenReader, alias: str) -> OpenReader:
    """The message as the alias sends it on."""

    async def opened() -> BodyReader:
        return _Marked(delivered_to(alias), await open_reader())

    return opened


async def goes_in_circles(open_reader: OpenReader, alias: str) -> bool:
    """Raises SpoolError."""
    reader = await open_reader()
    try:
        return was_delivered_to(alias, await reader.read(READ))
    finally:
        reader.close()
