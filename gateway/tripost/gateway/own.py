"""is that address one at which we take mail ourselves?

What the loop guard asks of every MX host (RFC 5321 §5.1). Ours is where an SMTP
listener of ours has the port to which mail is sent; of one that listens at all
addresses, every address of this machine. Addresses that somebody translates
(NAT) are not known here: delivery knows itself by its name then.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence

from tripost.gateway.sockets import UNIX, split_address


class Own:
    """`bound`: service → addresses, filled when they are bound; `port`: to which mx routes go."""

    def __init__(self, port: int, bound: Mapping[str, Sequence[str]]) -> None:
        self._port = port
        self._bound = bound

    def __call__(self, address: str) -> bool:
        asked = ipaddress.ip_address(address)
        for text in self._bound.get("smtp", ()):
            if text.startswith(UNIX):
                continue
            host, port = split_address(text)
            one = ipaddress.ip_address(host)
            if port == self._port and (
                one == asked or (one.is_unspecified and one.version == asked.version and _here(asked))
            ):
                return True
        return False

    def __bool__(self) -> bool:
        """Could any be ours?"""
        return any(
            not one.startswith(UNIX) and split_address(one)[1] == self._port for one in self._bound.get("smtp", ())
        )


def _here(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Is it this machine's? Only such can be bound."""
    with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as one:
        try:
            one.bind((str(address), 0))
        except OSError:
            return False
        return True
