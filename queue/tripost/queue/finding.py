"""what an operator looks for, and whether a message is it

A `Wanted` is a set of conditions, all of which must be true. Some can be decided
from the columns in memory (state, attempts, size, next hop), the others need the
message's record; `needle` says which octets such a record must hold, so that most
records need not be read at all.

Words    `*` and `?` are wild, upper and lower case are the same in addresses,
         domains and next hops; ids are told exactly or with wild cards.
Fails    ValueError where a condition cannot be meant.
"""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache

import msgspec

from tripost.queue.message import Envelope, Recipient

READY, DEFERRED, HELD, SUSPENDED, ACTIVE, DOWN = "ready", "deferred", "held", "suspended", "active", "down"
ENDING = "ending"  # an operator's action is to end it
NEEDLE = 3  # octets
_FOLD = re.compile(rb"\r\n[ \t]+")
STATES = (READY, DEFERRED, HELD, SUSPENDED, ACTIVE, DOWN, ENDING)


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ "" or 0 for whatever: ages in seconds, `larger` in octets, `attempts` at least so many, `error` a part or the
    class of the last reply, `header` "Name: text". `states`: any of these."""

    id: str = ""
    sender: str = ""
    recipient: str = ""
    address: str = ""  # of the sender or a recipient
    domain: str = ""
    next_hop: str = ""
    account: str = ""
    site: str = ""
    error: str = ""
    header: str = ""
    older: float = 0.0
    younger: float = 0.0
    larger: int = 0
    attempts: int = 0
    states: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises ValueError, one line."""
        for state in self.states:
            if state not in STATES:
                raise ValueError(f"no state {state!r}; there are {', '.join(STATES)}")
        if min(self.older, self.younger, self.larger, self.attempts) < 0:
            raise ValueError("ages, sizes and attempts are not negative")
        name, colon, _ = self.header.partition(":")
        if self.header and not (name.strip() and colon):
            raise ValueError("a header is written as 'Name: text'")

    @property
    def anything(self) -> bool:
        return self == Wanted()

    def needle(self) -> bytes:
        """Octets that stand in the record of every message that is wanted, whatever their case; b"" for unknown, or so
        few that they would stand everywhere."""
        sender = "" if "<" in self.sender or ">" in self.sender else self.sender  # "<>" stands in no record
        pieces = [self.id, sender, self.recipient, self.address, f"@{self.domain}" if self.domain else "", self.account]
        literal = max((_literal(one) for one in pieces), key=len)
        return literal.encode().lower() if literal.isascii() and len(literal) >= NEEDLE else b""

    def fits(self, envelope: Envelope, now: float) -> bool:
        """The message itself, whatever its recipients."""
        age = now - envelope.accepted
        return (
            like(self.id, envelope.id)
            and (not self.sender or like(self.sender, envelope.sender or "<>"))
            and (not self.address or any(like(self.address, one) for one in _addresses(envelope)))
            and (not self.account or like(self.account, envelope.account))
            and (not self.older or age > self.older)
            and (not self.younger or age < self.younger)
        )

    def fits_recipient(self, one: Recipient) -> bool:
        return like(self.recipient, one.address) and (
            not self.domain or like(self.domain, one.address.rpartition("@")[2])
        )

    def fits_hop(self, name: str, site: str) -> bool:
        fits = like(self.next_hop, name) or like(self.next_hop, name.partition(":")[2])
        return fits and (not self.site or like(self.site, site))

    def fits_error(self, reply: str, kind: str) -> bool:
        """The reply holds the words, or they are its class."""
        return self.error.lower() in reply.lower() or self.error.lower() == kind

    def fits_header(self, head: bytes) -> bool:
        """One of the fields of that name holds the text, whatever the case and the folding (RFC 5322 §2.2.3)."""
        name, _, text = self.header.partition(":")
        wanted = " ".join(text.split()).lower()
        for field in _FOLD.sub(b" ", head).split(b"\r\n"):
            own, colon, value = field.decode("utf-8", "replace").partition(":")
            if colon and own.strip().lower() == name.strip().lower() and wanted in " ".join(value.split()).lower():
                return True
        return False


def _addresses(envelope: Envelope) -> list[str]:
    return [envelope.sender, *(one.address for one in envelope.recipients)]


def like(pattern: str, text: str) -> bool:
    return not pattern or _compiled(pattern).match(text) is not None


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    # brackets are no wild cards here: addresses may hold them
    return re.compile(translate(pattern.replace("[", "[[]")), re.IGNORECASE)


def _literal(pattern: str) -> str:
    """The longest part without wild cards."""
    return max(re.split(r"[*?]+", pattern), key=len)
