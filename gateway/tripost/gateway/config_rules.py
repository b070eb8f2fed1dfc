"""what types cannot say about a configuration

`complain(key, reason)` is called for every value that cannot be.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from tripost.delivery.wire.addresses import AddressError, check_domain, parse_address
from tripost.gateway.backend import check_backend
from tripost.gateway.config_positions import Path
from tripost.gateway.settings import Config, Listen
from tripost.gateway.sockets import ListenError, check_address, split_address
from tripost.gateway.wiring_delivery import unfit

Complain = Callable[[Path, str], None]


def check(config: Config, complain: Complain) -> None:
    """What types cannot say."""

    def each(values: list[str], path: Path, parse: Callable[[str], object]) -> None:
        for number, value in enumerate(values):
            _try(value, (*path, number), parse, complain)

    if config.hostname:
        _try(config.hostname, ("hostname",), check_domain, complain)
    if not config.listen:
        complain(("listen",), "at least one [[listen]] is needed")
    for number, one in enumerate(config.listen):
        _try(one.address, ("listen", number, "address"), check_address, complain)
        each(one.xclient, ("listen", number, "xclient"), _network)
        for key, reason in _unfit(config, one):
            complain(("listen", number, key), reason)
    _check_tls(config, complain)
    _try(config.auth.backend, ("auth", "backend"), check_backend, complain)
    each(config.proxy.networks, ("proxy", "networks"), _network)
    each(config.relay.networks, ("relay", "networks"), _network)
    each(config.relay.domains, ("relay", "domains"), check_domain)
    each(config.local.domains, ("local", "domains"), check_domain)
    each(config.monitor.origins, ("monitor", "origins"), _origin)
    each(config.dns.nameservers, ("dns", "nameservers"), _nameserver)
    if config.local.postmaster:
        _try(config.local.postmaster, ("local", "postmaster"), parse_address, complain)
    _check_local(config, complain)
    for number, route in enumerate(config.route):
        _try(route.domain, ("route", number, "domain"), _pattern, complain)
    for where, reason in unfit(config):
        complain(where, reason)
    _check_numbers(config, complain)


def _check_local(config: Config, complain: Complain) -> None:
    """Who is known here, under which names."""
    local = config.local
    domains = {domain.lower() for domain in local.domains or [config.hostname or socket.gethostname()]}

    def ours(address: str) -> None:
        domain = parse_address(address).rpartition("@")[2].lower()
        if domain not in domains:
            raise ValueError(f"{domain} is not one of [local] domains")

    for name, targets in local.aliases.items():
        _try(name, ("local", "aliases", name), ours, complain)
        if not targets:
            complain(("local", "aliases", name), "must name somebody")
        for number, target in enumerate(targets):
            _try(target, ("local", "aliases", name, number), parse_address, complain)
    for domain, target in local.catch_all.items():
        if domain.lower() not in domains:
            complain(("local", "catch_all", domain), "is not one of [local] domains")
        _try(target, ("local", "catch_all", domain), parse_address, complain)
    for name in local.mailbox:
        _try(name, ("local", "mailbox", name), ours, complain)


def _unfit(config: Config, one: Listen) -> list[tuple[str, str]]:
    """What a listener asks for and cannot get."""
    found: list[tuple[str, str]] = []
    if one.tls in ("starttls", "implicit") and not config.tls.certificate:
        found.append(("tls", "needs a [tls] certificate"))
    if one.tls == "starttls" and one.service == "monitor":
        found.append(("tls", "the monitor has no STARTTLS; write none or implicit"))
    if one.require_tls and (one.tls == "none" or not config.tls.certificate):
        found.append(("require_tls", "needs TLS on this listener"))
    if one.proxy_protocol and not config.proxy.networks:
        found.append(("proxy_protocol", "needs [proxy] networks, which may send the header"))
    if one.address.startswith("unix:") and (one.proxy_protocol or one.xclient):
        found.append(("address", "a Unix socket takes neither proxy_protocol nor xclient"))
    return found


def _check_tls(config: Config, complain: Complain) -> None:
    tls = config.tls
    if bool(tls.certificate) != bool(tls.key):
        complain(("tls", "key" if tls.key else "certificate"), "certificate and key come together")
    if tls.sni and not tls.certificate:
        complain(("tls", "sni", 0), "needs a certificate in [tls], for clients that name no host")
    for number, one in enumerate(tls.sni):
        for place, name in enumerate(one.names):
            _try(name, ("tls", "sni", number, "names", place), _pattern, complain)


def _origin(text: str) -> None:
    parts = urlsplit(text)
    more = parts.path.strip("/") or parts.query or parts.fragment or "@" in text
    if parts.scheme not in ("http", "https") or not parts.hostname or more:
        raise ValueError("an origin is written as https://monitor.example.com, with its port where it is not the usual")


def _network(text: str) -> None:
    ipaddress.ip_network(text, strict=False)


def _check_numbers(config: Config, complain: Complain) -> None:
    retry, delivery = config.retry, config.delivery
    rules: list[tuple[bool, Path, str]] = [
        (0 < delivery.port < 65_536, ("delivery", "port"), "must be between 1 and 65535"),
        (retry.factor >= 1, ("retry", "factor"), "must be 1 or more"),
        (0 <= retry.jitter < 1, ("retry", "jitter"), "must be at least 0 and less than 1"),
        (retry.first > 0, ("retry", "first"), "must be more than 0"),
        (retry.expire > 0, ("retry", "expire"), "must be more than 0"),
        (all(one > 0 for one in retry.schedule), ("retry", "schedule"), "every delay must be more than 0"),
        (config.spool.segment_size >= 1 << 16, ("spool", "segment_size"), "must be at least 64KiB"),
        (config.spool.inline <= 1 << 20, ("spool", "inline"), "must be at most 1MiB"),
        (config.history.size >= 1 << 24, ("history", "size"), "must be at least 16MiB"),
        (config.limits.memory >= 1 << 20, ("limits", "memory"), "must be at least 1MiB"),
        (config.smtp.greet_delay <= 60, ("smtp", "greet_delay"), "must be at most 60s"),
        (len(config.local.separator) <= 1, ("local", "separator"), "must be one character, or empty"),
    ]
    counts = {
        "limits": ("recipients", "connections", "client_connections", "errors", "junk_commands", "message_size"),
    }
    for table, names in counts.items():
        rules += [(getattr(getattr(config, table), name) > 0, (table, name), "must be more than 0") for name in names]
    for good, path, reason in rules:
        if not good:
            complain(path, reason)


def _try(value: str, path: Path, parse: Callable[[str], object], complain: Complain) -> None:
    try:
        parse(value)
    except (AddressError, ListenError, ValueError) as wrong:
        complain(path, f'"{value}": {wrong}' if value not in str(wrong) else str(wrong))


def _nameserver(text: str) -> None:
    host, port = split_address(text)
    ipaddress.ip_address(host)
    if not 0 < port < 65_536:
        raise ValueError("the port must be between 1 and 65535")


def _pattern(text: str) -> None:
    if text != "*":
        check_domain(text.removeprefix("*."))
