"""from `[delivery]`, `[sources]` and `[[route]]` to what delivery takes

API      `delivery_settings(config)`, `rules_of(config)`; `unfit(config)`: what cannot be, with its key.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec

from tripost.delivery.rules import RouteRule, check_sender
from tripost.delivery.settings import LITERAL_CONNECTIONS, DeliverySettings, Rate, Source
from tripost.delivery.settings import Destination as Terms
from tripost.delivery.targets import next_hop_for
from tripost.delivery.wire.addresses import AddressError, check_domain
from tripost.gateway.config_positions import Path
from tripost.gateway.settings import Config, Destination
from tripost.gateway.windows import Rate as Written

_SAME = (
    *("connections", "messages_per_connection", "recipients_per_message", "idle", "connect_timeout", "tls", "rollup"),
    *("ip", "probe_first", "probe_longest"),
)


def delivery_settings(config: Config) -> DeliverySettings:
    delivery, pools = config.delivery, _pools(config)
    default = _terms(Terms(), delivery.default, pools)
    literal = default
    if delivery.default.connections is None:
        literal = msgspec.structs.replace(default, connections=LITERAL_CONNECTIONS)
    return DeliverySettings(
        hostname=config.hostname,
        port=delivery.port,
        max_connections=delivery.max_connections,
        default=default,
        literal=literal,
        destinations={name.lower(): _terms(default, one, pools) for name, one in delivery.destination.items()},
        pools=pools,
    )


def _pools(config: Config) -> dict[str, tuple[Source, ...]]:
    return {
        name: tuple(Source(one.ip, one.name, one.weight) for one in pool.addresses)
        for name, pool in config.sources.items()
    }


def _terms(base: Terms, table: Destination, pools: dict[str, tuple[Source, ...]]) -> Terms:
    """What the table says, else what `base` says."""
    said = {name: getattr(table, name) for name in _SAME if getattr(table, name) is not None}
    for name in ("rate", "connection_rate"):
        written: Written | None = getattr(table, name)
        if written is not None:
            said[name] = Rate(written.count, written.seconds)
    if table.source is not None:
        said["sources"] = pools[table.source] if table.source else ()
    return msgspec.structs.replace(base, **said)


def rules_of(config: Config) -> list[RouteRule]:
    return [
        RouteRule(one.domain, one.to, (("tls", one.tls), ("source", one.source), ("auth", one.auth_file)), one.sender)
        for one in config.route
    ]


def unfit(config: Config) -> Iterator[tuple[Path, str]]:
    """Keys whose values cannot be, and why."""
    if config.delivery.max_connections <= 0:
        yield ("delivery", "max_connections"), "must be more than 0"
    yield from _unfit_terms(config, config.delivery.default, ("delivery", "default"))
    for name, one in config.delivery.destination.items():
        try:
            check_domain(name.removeprefix("*."))
        except AddressError as wrong:
            yield ("delivery", "destination", name), str(wrong)
        yield from _unfit_terms(config, one, ("delivery", "destination", name))
    for name, pool in config.sources.items():
        if not any(one.weight for one in pool.addresses):
            yield ("sources", name, "addresses"), "must have an address with a weight"
        for number, address in enumerate(pool.addresses):
            try:
                ipaddress.ip_address(address.ip)
                if address.name:
                    check_domain(address.name)
            except ValueError as wrong:
                yield ("sources", name, "addresses", number), str(wrong)
    yield from _unfit_routes(config)


def _unfit_terms(config: Config, one: Destination, path: Path) -> Iterator[tuple[Path, str]]:
    for name in ("connections", "messages_per_connection", "connect_timeout", "recipients_per_message", "probe_first"):
        if getattr(one, name) == 0:
            yield (*path, name), "must be more than 0"
    base = _terms(Terms(), msgspec.structs.replace(config.delivery.default, source=None), {})
    first, longest = _terms(base, msgspec.structs.replace(one, source=None), {}).probes
    if first > longest and (one.probe_first, one.probe_longest) != (None, None):
        yield (
            (*path, "probe_longest" if one.probe_first is None else "probe_first"),
            f"{first:g} s first, {longest:g} s at most",
        )
    if one.source and one.source not in config.sources:
        yield (*path, "source"), f"there is no [sources.{one.source}]"


def _unfit_routes(config: Config) -> Iterator[tuple[Path, str]]:
    for number, route in enumerate(config.route):
        path = ("route", number)
        try:
            next_hop_for(route.to, "x.example")
        except ValueError as wrong:
            yield (*path, "to"), f'"{route.to}": {wrong}'
        try:
            check_sender(route.sender)
        except ValueError as wrong:
            yield (*path, "sender"), f'"{route.sender}": {wrong}'
        for key in ("tls", "source", "auth_file"):
            if getattr(route, key) and not route.to.startswith(("mx", "smtp://", "lmtp://")):
                yield (*path, key), f"has no use with {route.to}"
        if route.auth_file and route.to == "mx":
            yield (*path, "auth_file"), "passwords are for a host that the route names"
        if route.source and route.source not in config.sources:
            yield (*path, "source"), f"there is no [sources.{route.source}]"
