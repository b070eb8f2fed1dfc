"""what ingress processes and the manager say to each other

Mail itself is not among it: that stands in the log. Pure.
"""

from __future__ import annotations

import msgspec

from tripost.queue.events import AnyEvent


class Word(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message of either direction."""


# --- from an ingress process ---


class Hello(Word, frozen=True, tag="hello"):
    """The first of all. `clients`: who is connected, once for each connection, as counted by the manager before."""

    number: int
    run: int
    clients: list[str]


class Enter(Word, frozen=True, tag="enter"):
    """May this client connect? Asked; Verdict answers."""

    client: str


class Leave(Word, frozen=True, tag="leave"):
    """A client that was let in is gone."""

    client: str


class Take(Word, frozen=True, tag="take"):
    """Count `amount` for a key of one of the rates ("client_messages", …), if that fits. Asked; Wait answers."""

    kind: str
    key: str
    amount: int


class Give(Word, frozen=True, tag="give"):
    """What was taken was not used."""

    kind: str
    key: str
    amount: int


class Login(Word, frozen=True, tag="login"):
    """A login has failed, or not; the manager tells the other processes."""

    client: str
    account: str
    failed: bool


class Full(Word, frozen=True, tag="full"):
    """Is that mailbox known to be full? Asked; Verdict answers, with a reply."""

    account: str


class Happened(Word, frozen=True, tag="happened"):
    event: AnyEvent


class Said(Word, frozen=True, tag="said"):
    """A line of a session's dialogue, while somebody traces."""

    session: int
    service: str
    client: str
    direction: str
    text: str


class Figures(Word, frozen=True, tag="figures"):
    """`open`: connections by service; `lost`: events and lines that the manager was too slow for."""

    open: dict[str, int]
    lost: int


# --- from the manager ---


class Verdict(Word, frozen=True, tag="verdict"):
    """ "" for yes, else why not."""

    why: str


class Wait(Word, frozen=True, tag="wait"):
    """Seconds until it fits; 0: it is counted."""

    seconds: float


class Trace(Word, frozen=True, tag="trace"):
    """Tell what sessions say, or no more."""

    on: bool


class Known(Word, frozen=True, tag="known"):
    """Failed logins so far: key, how many, seconds of a ban that are left."""

    failures: list[tuple[str, int, float]]


FromIngress = Hello | Enter | Leave | Take | Give | Login | Full | Happened | Said | Figures
FromManager = Verdict | Wait | Login | Trace | Known
