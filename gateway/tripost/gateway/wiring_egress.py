"""from `[auth]` and `[limits]` to accounts, logins and POP3

API      `make_logins(config, accounts, bus, clock)`: one for SMTP and POP3, and the
         task that runs beside it. Raises AccountsError when the file of accounts
         cannot be read at the start; later, what was read stays in force.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tripost.gateway.accounts import Accounts
from tripost.gateway.guard import Guard
from tripost.gateway.last_logins import LastLogins
from tripost.gateway.login import Logins
from tripost.gateway.peer import Peer
from tripost.gateway.settings import Config
from tripost.queue.clock import Clock
from tripost.queue.events import Bus


def make_logins(
    config: Config, accounts: Accounts, bus: Bus, clock: Clock
) -> tuple[Logins, Callable[[], Awaitable[None]]]:
    """The logins, and what runs beside them until cancelled."""
    accounts.list()
    last = LastLogins(config.state)

    def noted(account: str, peer: Peer) -> None:
        last.note(account, peer, clock.now())

    async def keep() -> None:
        await last.keep(bus, clock)

    logins = Logins(
        accounts,
        Guard(config.limits.auth_failures, config.limits.auth_ban),
        bus,
        clock,
        mechanisms=tuple(config.auth.mechanisms),
        cleartext=config.auth.cleartext,
        pop3_imap_cleartext=config.auth.pop3_imap_cleartext,
        noted=noted,
    )
    return logins, keep
