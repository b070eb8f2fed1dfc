"""what the sessions of ingress share, and what one of them is about

`IngressContext` is made once from the configuration. `Client` is what policy
gets to see of a connection: it changes as the client says who it is.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tripost.gateway.lifecycle import Draining
from tripost.queue.body import Body
from tripost.queue.clock import Clock
from tripost.queue.events import Bus
from tripost.queue.message import Envelope

if TYPE_CHECKING:
    from tripost.gateway.ingress.policy import Policy

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Intake(Protocol):
    """Where accepted mail goes: `tripost.queue.manager.Queue`, or nowhere in a rehearsal."""

    def new_id(self) -> str: ...
    def new_body(self) -> Body: ...
    async def accept(self, envelope: Envelope, body: Body) -> None: ...


@dataclass(slots=True)
class Client:
    """`address` is "" on a Unix socket; `trusted` when it may relay anywhere."""

    address: str
    port: int = 0
    profile: str = "smtp"
    trusted: bool = False
    tls: str = ""  # version and cipher
    account: str = ""  # who has logged in
    helo: str = ""
    extended: bool = False
    name: str = ""  # its host name, as a proxy told
    forwarded: str = ""  # for whom a proxy (XFORWARD) speaks in this transaction


@dataclass(frozen=True)
class IngressContext:
    """Sizes in octets, times in seconds, rates in octets a second."""

    hostname: str
    queue: Intake
    policy: Policy
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
    draining: Draining = field(default_factory=Draining)

    def is_trusted(self, client: str) -> bool:
        """May relay anywhere, by its address."""
        address = ipaddress.ip_address(client) if client else None
        return any(address in network for network in self.relay_networks if address is not None)
