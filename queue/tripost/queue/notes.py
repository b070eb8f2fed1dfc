"""what else must survive a restart

Named values beside the messages: which next hops are suspended, which could not
be spoken to, what an operator did. Few, small, and changed seldom.

Promise  `durable` is what the log says. Every segment begins with all of them,
         so that the segment in which a note was written may go.
Bounds   MOST notes, VALUE_LIMIT octets each: a segment's beginning stays small.
         One more is refused (`put` answers False): what is kept here is worth
         keeping, but never worth more than room for mail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

MOST = 10_000
NAME_LIMIT = 300
VALUE_LIMIT = 4096

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, bytes]).decode


class Notes:
    """`durable`: as of the last record; `pending`: to be written, b"" for what is to go."""

    def __init__(self) -> None:
        self.durable: dict[str, bytes] = {}
        self.pending: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> bytes:
        """The newest value, b"" for none."""
        found = self.pending.get(name)
        return found if found is not None else self.durable.get(name, b"")

    def under(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """(rest of the name, value) of each; an explicit scan."""
        names = [*self.durable, *[name for name in self.pending if name not in self.durable]]
        return ((name.removeprefix(prefix), self[name]) for name in names if name.startswith(prefix) and self[name])

    def put(self, name: str, value: bytes) -> bool:
        """To be written soon; False when there is no room for it."""
        fits = len(name) <= NAME_LIMIT and len(value) <= VALUE_LIMIT
        known = name in self.durable or name in self.pending
        if value and (not fits or (not known and len(self.durable) + len(self.pending) >= MOST)):
            return False
        if self[name] != value:
            self.pending[name] = value
        return True

    def take(self) -> bytes:
        """The payload of a record with all that is pending, b"" for nothing. It stays pending until `apply`."""
        return _encode(self.pending) if self.pending else b""

    def apply(self, payload: bytes) -> None:
        """A record of some notes became durable."""
        for name, value in _decode(payload).items():
            if self.pending.get(name) == value:
                del self.pending[name]
            if value:
                self.durable[name] = value
            else:
                self.durable.pop(name, None)

    def snapshot(self) -> bytes:
        """The payload of a record with all that is durable, b"" for nothing."""
        return _encode(self.durable) if self.durable else b""

    def restore(self, payload: bytes) -> None:
        """A snapshot: nothing else is true."""
        self.durable = _decode(payload)


def decode(payload: bytes) -> Mapping[str, bytes]:
    """Of either record. Raises msgspec.DecodeError."""
    return _decode(payload)
