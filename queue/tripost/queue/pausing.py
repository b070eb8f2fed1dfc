"""mail that is not to be tried now because of where it comes from

A pause names a sender, an account, or a client (the network that the mail came
from). It binds what is queued and what comes while it lasts: every message is
compared when it is claimed, and put aside where a pause fits.

Promise  a pause is a note: it survives restarts, with its end and its reason.
Bounds   MOST pauses; without any, nothing is compared.
Fails    ValueError for what cannot be meant, SpoolFull where there is no room.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Protocol

import msgspec

from tripost.queue.errors import SpoolFull
from tripost.queue.finding import like
from tripost.queue.notes import Notes

SENDER, ACCOUNT, CLIENT = "sender", "account", "client"
KINDS = (SENDER, ACCOUNT, CLIENT)
NOTE = "pause/"  # + kind + "/" + what: names of notes
MOST = 200


class From(Protocol):
    """Where a message comes from."""

    @property
    def sender(self) -> str: ...
    @property
    def account(self) -> str: ...
    @property
    def client(self) -> str: ...


class Pause(msgspec.Struct, frozen=True, array_like=True):
    """`until` in wall-clock seconds, 0 for until it is resumed."""

    until: float
    reason: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Pause).decode


class Pauses:
    """By (kind, what): an address with wild cards, or for a client an address or a network."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.known: dict[tuple[str, str], Pause] = {}
        for name, value in notes.under(NOTE):
            kind, _, what = name.partition("/")
            self.known[kind, what] = _decode(value)

    def add(self, kind: str, what: str, pause: Pause) -> None:
        """To be made durable by the caller. Raises ValueError, SpoolFull."""
        if kind not in KINDS:
            raise ValueError(f"no {kind!r}; there are {', '.join(KINDS)}")
        if kind == CLIENT:
            _network(what)
        if not what or len(what) > 200:
            raise ValueError(f"which {kind}? In at most 200 characters")
        if len(self.known) >= MOST and (kind, what) not in self.known:
            raise SpoolFull(f"{MOST} suspensions of senders, accounts and clients are kept; end some first")
        if not self._notes.put(f"{NOTE}{kind}/{what}", _encode(pause)):
            raise SpoolFull("too many suspensions and back-offs are kept")
        self.known[kind, what] = pause

    def end(self, kind: str, what: str) -> bool:
        """False when there is no such pause. To be made durable by the caller."""
        if self.known.pop((kind, what), None) is None:
            return False
        self._notes.put(f"{NOTE}{kind}/{what}", b"")
        return True

    def over(self, now: float) -> list[tuple[str, str]]:
        return [name for name, one in self.known.items() if 0.0 < one.until <= now]

    def match(self, envelope: From, now: float) -> tuple[str, str] | None:
        """The pause that binds the message."""
        for (kind, what), one in self.known.items():
            if not 0.0 < one.until <= now and _fits(kind, what, envelope):
                return kind, what
        return None


def _fits(kind: str, what: str, envelope: From) -> bool:
    if kind == SENDER:
        return like(what, envelope.sender or "<>")
    if kind == ACCOUNT:
        return bool(envelope.account) and like(what, envelope.account)
    try:
        address = ip_address(envelope.client)
    except ValueError:
        return False
    network = _network(what)
    return address.version == network.version and address in network


@lru_cache(maxsize=MOST)
def _network(what: str) -> IPv4Network | IPv6Network:
    """Raises ValueError."""
    try:
        return ip_network(what, strict=False)
    except ValueError as wrong:
        raise ValueError(f"{what!r} is neither an address nor a network") from wrong
