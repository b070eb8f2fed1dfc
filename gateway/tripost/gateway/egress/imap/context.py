"""what all IMAP sessions of a gateway share"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tripost.delivery.mailbox.opened import Opened
from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.usage import Usage
from tripost.gateway.lifecycle import Draining
from tripost.gateway.login import Logins
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock


def _no_policy(account: str) -> Policy:
    return Policy()


class Measure:
    """How much mailboxes hold, for any thread."""

    def __init__(self) -> None:
        self._usage = Usage()
        self._lock = threading.Lock()

    def __call__(self, box: str) -> tuple[int, int]:
        """Octets and messages. Blocking; raises OSError."""
        with self._lock:
            return self._usage.measure(box)


@dataclass(frozen=True)
class ImapContext:
    """`mailboxes` is their folder; `limit` octets of a message that is appended; `touched(path)` tells POP3 and
    delivery's figures nothing: they look for themselves."""

    hostname: str
    logins: Logins
    mailboxes: str
    opened: Opened
    bus: Bus
    clock: Clock
    draining: Draining = field(default_factory=Draining)
    policy: Callable[[str], Policy] = _no_policy
    limit: int = 50 << 20
    measure: Measure = field(default_factory=Measure)
