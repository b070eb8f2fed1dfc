"""what all POP3 sessions of a gateway share"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tripost.delivery.mailbox.policy import Policy
from tripost.gateway.egress.login_delay import LoginDelay
from tripost.gateway.lifecycle import Draining
from tripost.gateway.login import Logins
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock


def _no_policy(account: str) -> Policy:
    return Policy()


def _nobody_asks(box: str) -> None:
    return


@dataclass(frozen=True)
class Pop3Context:
    """What all sessions share; `mailboxes` is their folder; `expire` is EXPIRE's argument before the login."""

    hostname: str
    logins: Logins
    mailboxes: str
    bus: Bus
    clock: Clock
    draining: Draining = field(default_factory=Draining)
    policy: Callable[[str], Policy] = _no_policy
    expire: str = "NEVER"
    implementation: str = "tripost"
    delay: LoginDelay = field(default_factory=LoginDelay)
    removed: Callable[[str], None] = _nobody_asks  # called with the folder of a mailbox from which messages went
