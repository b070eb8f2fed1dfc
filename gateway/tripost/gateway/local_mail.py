"""the local mailboxes of one gateway, built and kept up

Built before the queue is open, because the router decides with it; `keep_up`
runs beside the deliveries.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from urllib.parse import unquote

from tripost.delivery.mailbox.maildir import MaildirDelivery
from tripost.delivery.mailbox.upkeep import keep_up
from tripost.gateway.accounts import Accounts
from tripost.gateway.backend import backend_of
from tripost.gateway.mailboxes import Mailboxes
from tripost.gateway.settings import Config
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolError
from tripost.queue.events import Expired, Trouble
from tripost.queue.manager import Queue

MOST_QUEUED = 100_000  # local messages; while more are queued, no entry of the list of deliveries is forgotten


class LocalMail:
    """`accounts` are who there is, `mailboxes` says what is where, `delivery` puts it there."""

    def __init__(self, config: Config, bus: Bus | None = None) -> None:
        self._bus = bus if bus is not None else Bus()
        self._now: Callable[[], float] = time.time
        self.accounts = Accounts(config.accounts_file, backend_of(config.auth.backend))
        self.mailboxes = Mailboxes(config, self.accounts.exists, self.accounts.quota_rule)
        self.delivery = MaildirDelivery(
            self.mailboxes.folder,
            config.hostname,
            self.mailboxes.locate,
            now=lambda: self._now(),
            told=lambda box, count: self._expired(unquote(os.path.basename(box)), count),
        )
        self.mailboxes.usage = self.delivery.store.usage

    def prepare(self, config: Config) -> Callable[[], None]:
        """See `tripost.gateway.reloading`. Raises ValueError."""
        self.accounts.list()
        other = Mailboxes(config, self.accounts.exists, self.accounts.quota_rule)
        return lambda: self.mailboxes.become(other)

    async def keep_up(self, queue: Queue, clock: Clock) -> None:
        """Until cancelled."""
        self._now = clock.now

        async def queued() -> set[str] | None:
            try:
                return await queue.search.ids_at("local", MOST_QUEUED)
            except SpoolError as wrong:
                self._trouble(str(wrong))
                return None

        await keep_up(
            self.delivery,
            self.mailboxes.policy,
            queued,
            now=clock.now,
            told=self._expired,
            trouble=self._trouble,
        )

    def _expired(self, account: str, count: int) -> None:
        self._bus.emit(Expired(time=self._now(), account=account, messages=count))

    def _trouble(self, reason: str) -> None:
        self._bus.emit(Trouble(time=self._now(), where="mailboxes", reason=reason))

    def close(self) -> None:
        self.delivery.store.close()
