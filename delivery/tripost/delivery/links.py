"""connections as workers use them, wherever their sockets are

Types only. `Link` is one connection to one host; `Opener` makes them. Both exist
twice: `connection` and `hosts` in this process, `processes` in others. One set of
tests holds for both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from tripost.delivery.forwarding import OpenReader
from tripost.queue.dialogue import Dialogue
from tripost.queue.message import Envelope, Outcome, Recipient

Turn = Callable[[], Awaitable[None]]


class Down(Exception):
    """The host cannot be spoken to; the text says why. `phase`: connect | greeting | ehlo | tls | auth; `code`: the
    host's reply, 0 where it gave none."""

    def __init__(
        self,
        text: str,
        *,
        enhanced: str = "4.4.1",
        host: str = "",
        phase: str = "",
        code: int = 0,
        timeout: bool = False,
    ) -> None:
        super().__init__(text)
        self.enhanced = enhanced
        self.host = host
        self.phase = phase
        self.code = code
        self.timeout = timeout


class Unroutable(Exception):
    """Nobody to speak to: `enhanced` begins with 5 for what will not get better."""

    def __init__(self, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.enhanced = enhanced
        self.text = text

    @property
    def permanent(self) -> bool:
        return self.enhanced.startswith("5")


class Interrupted(Exception):
    """What held the connection is gone, which is nobody's fault: the message is to be tried again at once."""


class Order(msgspec.Struct, frozen=True, array_like=True):
    """Which host to speak to, and how. `addresses`: in the order of their use, or the path of a Unix socket; `source`:
    the address to speak from, "" for any; `hostname`: the name to say; `timeout`: seconds to connect; `level`: none |
    may | encrypt | verify; `credentials`: user, password; `ours`: the name of this gateway, where a host that bears it
    would be a loop."""

    host: str
    addresses: tuple[str, ...]
    port: int
    hostname: str
    source: str = ""
    timeout: float = 30.0
    level: str = "may"
    lmtp: bool = False
    credentials: tuple[str, str] | None = None
    ours: str = ""


class Cargo(msgspec.Struct, frozen=True):
    """One transaction. `open_reader` gives the content; `place` says where in the spool it stands, and `alias` which
    line the reader puts on top of that, for whoever reads it himself. `now`: wall time. `paced`: `turn` has to be
    waited for, else it is only told."""

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    open_reader: OpenReader
    now: float
    place: int = 0
    alias: str = ""
    paced: bool = False


class Spare:
    """Room for sockets of a race beside its first one."""

    @property
    def paced(self) -> bool:
        """Sockets may have to wait for `ready`."""
        return False

    async def take(self) -> bool:
        return True

    def give(self) -> None:
        pass

    async def ready(self) -> None:
        """Before each socket."""


class Link(Protocol):
    """One host, greeted. `tls`: the protocol's version, "" in plain text; `verified`: by a certificate that names the
    host; `stale`: a connection that was used before broke before anything was said to the message; `messages`:
    transactions that were begun; `connect`, `greeting`, `handshake`: seconds they took."""

    host: str
    address: str
    tls: str
    verified: bool
    stale: bool
    messages: int
    connect: float
    greeting: float
    handshake: float
    dialogue: Dialogue

    @property
    def usable(self) -> bool:
        """False once nothing more can be sent over it."""
        ...

    @property
    def recipients(self) -> int:
        """How many recipients the host takes in one transaction, by its LIMITS; 0 where it does not say."""
        ...

    @property
    def spent(self) -> bool:
        """As many messages as the host's LIMITS allow on one connection were sent."""
        ...

    async def deliver(self, cargo: Cargo, turn: Turn | None = None) -> dict[int, Outcome]:
        """One transaction; an outcome for every recipient. `turn` is waited for right before the first command.
        Raises SpoolError, Interrupted; never for what the peer does: that is an outcome, and `usable` is False then."""
        ...

    async def close(self) -> None:
        """Returns when the socket is closed."""
        ...


class Opener(Protocol):
    """Opens links."""

    async def ready(self) -> None:
        """Until there is something that can open one. Raises Interrupted after `stop`."""
        ...

    async def open(self, order: Order, spare: Spare, dialogue: Dialogue) -> Link:
        """Raises Down, Unroutable, Interrupted."""
        ...

    def stop(self) -> None:
        """Nobody is to wait any more."""
        ...
