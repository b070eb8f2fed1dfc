"""how destinations are to be treated

What the operator wrote, by destination. Pure.

Order    the first that fits: `[delivery.destination."x"]` for the recipient
         domain (or the host a route names), for an MX host, for a suffix of an MX
         host ("*.google.com"), else `[delivery.default]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

LITERAL_CONNECTIONS = 100  # for a route with a host of its own, where nobody said otherwise


class Rate(msgspec.Struct, frozen=True):
    """So many per so many seconds; a count of 0 means no limit."""

    count: int = 0
    seconds: float = 1.0


class Source(msgspec.Struct, frozen=True):
    """An address of ours to send from, with the name to say in EHLO ("" for the gateway's)."""

    ip: str
    name: str = ""
    weight: int = 1


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds. `sources` is empty where the system chooses the address."""

    connections: int = 20
    rate: Rate = Rate()
    connection_rate: Rate = Rate()
    messages_per_connection: int = 100
    recipients_per_message: int = 100
    idle: float = 5.0
    connect_timeout: float = 30.0
    tls: str = "may"
    rollup: bool = True
    ip: str = "any"
    sources: tuple[Source, ...] = ()
    probe_first: float = 60.0
    probe_longest: float = 1800.0

    @property
    def probes(self) -> tuple[float, float]:
        """The first and the longest pause of a destination that cannot be spoken to."""
        return self.probe_first, self.probe_longest


class DeliverySettings(msgspec.Struct, frozen=True, kw_only=True):
    """`port` is for mx routes; `destinations` by names in lower case; `pools`: what a route's `source` names."""

    hostname: str
    port: int = 25
    max_connections: int = 2000
    default: Destination = Destination()
    literal: Destination = Destination(connections=LITERAL_CONNECTIONS)
    destinations: Mapping[str, Destination] = {}
    pools: Mapping[str, tuple[Source, ...]] = {}

    def probes(self, next_hop: str) -> tuple[float, float]:
        """Where nobody knows the hosts."""
        domain = next_hop.partition("?")[0].removeprefix("mx:")
        return (self.named(domain) or self.default).probes

    def named(self, name: str) -> Destination | None:
        """Of this domain, or host that a route names."""
        return self.destinations.get(name.lower())

    def by_hosts(self, hosts: Sequence[str]) -> tuple[str, Destination]:
        """Of MX hosts: what fits, and its name, "" for the default."""
        for host in hosts:
            if host in self.destinations:
                return host, self.destinations[host]
        for host in hosts:
            labels = host.split(".")
            for start in range(1, len(labels)):
                suffix = "*." + ".".join(labels[start:])
                if suffix in self.destinations:
                    return suffix, self.destinations[suffix]
        return "", self.default
