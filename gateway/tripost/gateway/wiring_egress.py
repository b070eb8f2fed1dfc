"""from `[auth]` and `[limits]` to accounts and logins, POP3 and IMAP

Why      What sessions read is kept in one place for each protocol, which a reload replaces for new ones.

API      `make_logins(config, accounts, bus, clock)`: one for SMTP, POP3 and IMAP. Raises
         AccountsError when the file of accounts cannot be read at the start; later,
         what was read stays in force.
         `Readers(…)`: the sessions of both (`handlers`), and the task that runs beside them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import trio

from tripost.delivery.mailbox.opened import Opened
from tripost.gateway.accounts import Accounts
from tripost.gateway.egress.imap.context import ImapContext
from tripost.gateway.egress.imap.facts import LAYOUT
from tripost.gateway.egress.imap.session import serve_imap
from tripost.gateway.egress.login_delay import LoginDelay
from tripost.gateway.egress.pop3_context import Pop3Context
from tripost.gateway.egress.pop3_session import serve_pop3
from tripost.gateway.guard import Guard
from tripost.gateway.lifecycle import Draining
from tripost.gateway.listeners import Handler
from tripost.gateway.local_mail import LocalMail
from tripost.gateway.login import Logins
from tripost.gateway.peer import Peer
from tripost.gateway.settings import Config
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock


def make_logins(config: Config, accounts: Accounts, bus: Bus, clock: Clock) -> Logins:
    accounts.list()
    return logins_of(config, accounts, Guard(config.limits.auth_failures, config.limits.auth_ban), bus, clock)


def logins_of(config: Config, accounts: Accounts, guard: Guard, bus: Bus, clock: Clock) -> Logins:
    return Logins(
        accounts,
        guard,
        bus,
        clock,
        mechanisms=tuple(config.auth.mechanisms),
        cleartext=config.auth.cleartext,
        pop3_imap_cleartext=config.auth.pop3_imap_cleartext,
    )


def allow(logins: Logins, config: Config) -> Callable[[], None]:
    """See `tripost.gateway.reloading`."""

    def commit() -> None:
        auth = config.auth
        logins.allow(tuple(auth.mechanisms), auth.cleartext, auth.pop3_imap_cleartext)
        logins.guard.limit(config.limits.auth_failures, config.limits.auth_ban)

    return commit


class Readers:
    """The handlers of POP3 and IMAP. Each hears at once of what the other, or a delivery, does to a mailbox."""

    def __init__(
        self, config: Config, mail: LocalMail, logins: Logins, bus: Bus, clock: Clock, draining: Draining
    ) -> None:
        self._mailboxes = mailboxes = mail.mailboxes
        opened = Opened(clock.now, LAYOUT)
        mail.delivery.arrived = opened.touched
        self._delay = LoginDelay(config.limits.login_delay)
        self._pop3 = Pop3Context(
            hostname=config.hostname,
            logins=logins,
            mailboxes=mailboxes.folder,
            bus=bus,
            clock=clock,
            draining=draining,
            policy=mailboxes.policy,
            expire=mailboxes.expire,
            delay=self._delay,
            removed=opened.touched,
        )
        self._imap = ImapContext(
            hostname=config.hostname,
            logins=logins,
            mailboxes=mailboxes.folder,
            opened=opened,
            bus=bus,
            clock=clock,
            draining=draining,
            policy=mailboxes.policy,
            limit=config.limits.message_size,
        )
        self.handlers: dict[str, Handler] = {"pop3": self._on_pop3, "imap": self._on_imap}
        self.run = opened.run

    def prepare(self, config: Config) -> Callable[[], None]:
        """See `tripost.gateway.reloading`; after the mailboxes."""

        def commit() -> None:
            self._delay.seconds = config.limits.login_delay
            self._pop3 = dataclasses.replace(self._pop3, expire=self._mailboxes.expire)
            self._imap = dataclasses.replace(self._imap, limit=config.limits.message_size)

        return commit

    async def _on_pop3(self, stream: trio.abc.Stream, peer: Peer) -> None:
        await serve_pop3(stream, peer=peer, context=self._pop3)

    async def _on_imap(self, stream: trio.abc.Stream, peer: Peer) -> None:
        await serve_imap(stream, peer=peer, context=self._imap)
