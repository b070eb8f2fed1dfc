"""a proxy says whom it speaks for: what XCLIENT and XFORWARD change

Only for listeners' `xclient` networks. XCLIENT makes the session the client's:
its address, its rights, its account. XFORWARD tells for whom the next
transaction is, for the record only.

Source   XCLIENT_README and XFORWARD_README of Postfix.
"""

from __future__ import annotations

from collections.abc import Mapping

from tripost.gateway.ingress.context import Client
from tripost.gateway.peer import Network, is_in


def claim(client: Client, attributes: Mapping[str, str | None], relay_networks: tuple[Network, ...]) -> None:
    """`client` becomes who the proxy says. What is not named stays; None is not known."""
    if "ADDR" in attributes:
        client.address = attributes["ADDR"] or ""
        client.relay = is_in(client.address, relay_networks)
        client.port = 0
    if "PORT" in attributes:
        client.port = int(attributes["PORT"] or 0)
    if "NAME" in attributes:
        client.name = attributes["NAME"] or ""
    if "LOGIN" in attributes:
        client.account = attributes["LOGIN"] or ""
    # what the proxy heard is told in HELO and PROTO; the proxy says its own EHLO all the same
    client.helo, client.extended = "", False


def forward(client: Client, attributes: Mapping[str, str | None]) -> None:
    """Of several XFORWARD before one transaction, each adds to the others."""
    client.forwarded = attributes.get("ADDR") or client.forwarded
