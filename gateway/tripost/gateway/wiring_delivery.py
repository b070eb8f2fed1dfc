"""from `[delivery]` and `[[route]]` to what delivery takes

API      `delivery_settings(config)`, `rules_of(config)`, `check(config)` (raises ValueError).
"""

from __future__ import annotations

import msgspec

from tripost.delivery.client_auth import parse_credentials
from tripost.delivery.routing import RouteRule
from tripost.delivery.settings import LITERAL_CONNECTIONS, DeliverySettings, Destination
from tripost.gateway.settings import Config


def delivery_settings(config: Config) -> DeliverySettings:
    default = _destination(config)
    literal = default
    if config.delivery.default.connections is None:
        literal = msgspec.structs.replace(default, connections=LITERAL_CONNECTIONS)
    return DeliverySettings(
        hostname=config.hostname,
        port=config.delivery.port,
        max_connections=config.delivery.max_connections,
        default=default,
        literal=literal,
    )


def _destination(config: Config) -> Destination:
    table = config.delivery.default
    return Destination(
        connections=Destination().connections if table.connections is None else table.connections,
        messages_per_connection=table.messages_per_connection,
        recipients_per_message=table.recipients_per_message,
        idle=table.idle,
        connect_timeout=table.connect_timeout,
        tls=table.tls,
    )


def rules_of(config: Config) -> list[RouteRule]:
    return [RouteRule(one.domain, one.to, (("tls", one.tls), ("auth", one.auth_file))) for one in config.route]


def check(config: Config) -> None:
    """Can the auth files be read? Raises ValueError."""
    for one in config.route:
        if not one.auth_file:
            continue
        try:
            with open(one.auth_file, encoding="utf-8") as file:
                parse_credentials(file.read())
        except OSError as wrong:
            raise ValueError(f"{one.auth_file}: {wrong.strerror}") from wrong
        except ValueError as wrong:
            raise ValueError(f"{one.auth_file}: {wrong}") from wrong
