"""what the sessions of ingress share, and what one of them is about

`IngressContext` is made once from the configuration. `Client` is what policy
gets to see of a connection: it changes as the client says who it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import trio

from tripost.gateway.ingress.memory import MemoryPool
from tripost.gateway.ingress.patience import Patience
from tripost.gateway.lifecycle import Draining
from tripost.gateway.login import Logins
from tripost.gateway.peer import Network, Peer
from tripost.queue.body import Body
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.message import Envelope

if TYPE_CHECKING:
    from tripost.gateway.ingress.policy import Policy
    from tripost.gateway.ingress.quotas import Quotas


TURNS = 64  # contents in files that are committed at the same time


class Intake(Protocol):
    """Where accepted mail goes: `tripost.queue.manager.Queue`, or nowhere in a rehearsal."""

    @property
    def accepting(self) -> bool: ...
    def check_room(self, more: int) -> None: ...
    def new_id(self) -> str: ...
    def new_body(self) -> Body: ...
    async def accept(self, envelope: Envelope, body: Body) -> None: ...


@dataclass(frozen=True)
class Who:
    """An account; `names`: as whom else he sends, in lower case, None for anybody."""

    account: str = ""
    names: frozenset[str] | None = frozenset()


NOBODY = Who()


@dataclass(slots=True)
class Client:
    """`address` is "" on a Unix socket, and where a proxy does not know it."""

    address: str
    port: int = 0
    profile: str = "smtp"
    relay: bool = False  # its address is one of [relay] networks
    tls: str = ""  # version and cipher
    account: str = ""  # who has logged in
    names: frozenset[str] | None = frozenset()  # see Who
    helo: str = ""
    extended: bool = False
    name: str = ""  # its host name, as a proxy told
    forwarded: str = ""  # for whom a proxy (XFORWARD) speaks in this transaction

    @property
    def trusted(self) -> bool:
        """May relay anywhere."""
        return self.relay or bool(self.account)


@dataclass(frozen=True)
class IngressContext:
    """Sizes in octets, times in seconds, rates in octets a second."""

    hostname: str
    queue: Intake
    policy: Policy
    quotas: Quotas
    memory: MemoryPool
    bus: Bus
    clock: Clock
    relay_networks: tuple[Network, ...]
    message_size: int
    recipients: int
    errors: int
    junk_commands: int
    command_timeout: float
    data_timeout: float
    expire: float
    hops: int
    minimum_rate: float = 0.0
    greet_delay: float = 0.0
    normalize: bool = False
    logins: Logins | None = None
    turns: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(TURNS))
    draining: Draining = field(default_factory=Draining)
    patience: Patience = field(default_factory=Patience)

    def mechanisms(self, peer: Peer) -> tuple[str, ...]:
        """What may be used to log in now: an account that was just added counts at once."""
        return self.logins.mechanisms(peer) if self.logins is not None else ()
