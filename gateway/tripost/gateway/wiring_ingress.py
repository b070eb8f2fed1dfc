"""from the configuration to what SMTP sessions share"""

from __future__ import annotations

import dataclasses
from typing import Any

from tripost.gateway.config import Config
from tripost.gateway.ingress.context import IngressContext, Intake
from tripost.gateway.ingress.memory import MemoryPool
from tripost.gateway.ingress.patience import Patience
from tripost.gateway.ingress.policy import Policy
from tripost.gateway.ingress.quotas import Quotas
from tripost.gateway.lifecycle import Draining
from tripost.gateway.login import Logins
from tripost.gateway.wiring_listen import networks
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock

SMTP = ("smtp", "submission", "lmtp")  # the services that are profiles of one engine


def ingress_context(
    config: Config,
    queue: Intake,
    policy: Policy,
    bus: Bus,
    clock: Clock,
    draining: Draining,
    patience: Patience,
    logins: Logins,
    quotas: Quotas | None = None,
    share: int = 1,
) -> IngressContext:
    """`share`: so many processes have the memory of `[limits]` together."""
    limits = config.limits
    return IngressContext(
        hostname=config.hostname,
        queue=queue,
        policy=policy,
        quotas=quotas if quotas is not None else quotas_of(config),
        memory=MemoryPool(limits.memory // share),
        bus=bus,
        clock=clock,
        logins=logins,
        draining=draining,
        patience=patience,
        **_terms(config),
    )


def quotas_of(config: Config) -> Quotas:
    limits = config.limits
    return Quotas(limits.client_messages, limits.account_messages, limits.account_recipients)


def renewed(context: IngressContext, config: Config, share: int = 1) -> IngressContext:
    """For new sessions; what all sessions count together goes on, with the new limits."""
    limits = config.limits
    context.quotas.limit(limits.client_messages, limits.account_messages, limits.account_recipients)
    context.memory.limit = limits.memory // share
    return dataclasses.replace(context, **_terms(config))


def _terms(config: Config) -> dict[str, Any]:
    """What a session may do, and how long it may take."""
    limits = config.limits
    return {
        "relay_networks": networks(config.relay.networks),
        "message_size": limits.message_size,
        "recipients": limits.recipients,
        "errors": limits.errors,
        "junk_commands": limits.junk_commands,
        "command_timeout": limits.command_timeout,
        "data_timeout": limits.data_timeout,
        "expire": config.retry.expire,
        "hops": config.smtp.hops,
        "minimum_rate": float(limits.minimum_rate),
        "greet_delay": config.smtp.greet_delay,
        "normalize": config.smtp.bare_newlines == "normalize",
    }
