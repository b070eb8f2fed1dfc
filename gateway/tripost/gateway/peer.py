"""who is at the other end of a connection, and on what terms

The one value that a listener hands to a session beside the stream.

API      `Peer`: `client` and `client_port`, `local` and `local_port` (addresses as
         text, as the PROXY header says where there is one; "" and 0 on a Unix
         socket), `service` as configured, `tls` (`TlsFacts` once TLS runs, from
         the start where it is implicit), `context` (for STARTTLS or STLS: offer
         it exactly when this is not None and `tls` is None), `require_tls`,
         `xclient` (may send XCLIENT and XFORWARD), `loopback`.
         `msgspec.structs.replace(peer, tls=facts)` after an upgrade.
"""

from __future__ import annotations

import ipaddress
import ssl
from functools import lru_cache

import msgspec

from tripost.queue.events import Secured

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class TlsFacts(msgspec.Struct, frozen=True):
    """What a handshake agreed on: "TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, and the name that the client asked for."""

    version: str
    cipher: str
    bits: int
    resumed: bool = False
    server_name: str = ""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One connection's two ends and the settings of its listener."""

    client: str = ""
    client_port: int = 0
    local: str = ""
    local_port: int = 0
    service: str = "smtp"
    tls: TlsFacts | None = None
    context: ssl.SSLContext | None = None
    require_tls: bool = False
    xclient: bool = False

    @property
    def loopback(self) -> bool:
        """On this machine: a Unix socket, 127.0.0.0/8 or ::1."""
        return not self.client or address_of(self.client).is_loopback


@lru_cache(maxsize=4096)
def address_of(text: str) -> Address:
    """The address without its scope; an IPv4 address that came mapped into IPv6 is that IPv4 address.
    Raises ValueError."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def secured(peer: Peer, now: float) -> Secured:
    """The event of a connection whose `tls` is known."""
    facts = peer.tls
    assert facts is not None
    return Secured(
        time=now,
        service=peer.service,
        client=peer.client,
        version=facts.version,
        cipher=facts.cipher,
        server_name=facts.server_name,
    )


def is_in(client: str, networks: tuple[Network, ...]) -> bool:
    """Is the client's address in one of the networks? A Unix socket's never is."""
    if not client or not networks:
        return False
    address = address_of(client)
    return any(address in network for network in networks)


def network_of(client: str) -> str:
    """What counts as one neighbourhood: IPv4 /24, IPv6 /64."""
    address = address_of(client)
    bits = 24 if address.version == 4 else 64
    return str(ipaddress.ip_network((address, bits), strict=False))


def account_key(client: str) -> str:
    """What counts as one client: an IPv4 address, an IPv6 /64 (its holder has all of it)."""
    return client if not client or address_of(client).version == 4 else network_of(client)
