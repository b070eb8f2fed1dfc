"""how much mail a client and an account may send

Counted when a transaction begins and when a recipient is taken, and given back
where no mail came of it: sessions side by side cannot pass a limit together.

Promise  a refusal is temporary and says when there is room again. Relay networks
         are not counted by client.
"""

from __future__ import annotations

from tripost.delivery.wire.replies import Reply, reply
from tripost.gateway.ingress.context import Client
from tripost.gateway.peer import account_key
from tripost.gateway.windows import NO_LIMIT, Rate, Windows

_UNITS = ((86_400.0, "day"), (3600.0, "hour"), (60.0, "minute"), (1.0, "second"))


class Quotas:
    """The limits of `[limits]`; one for all sessions."""

    def __init__(
        self,
        client_messages: Rate = NO_LIMIT,
        account_messages: Rate = NO_LIMIT,
        account_recipients: Rate = NO_LIMIT,
    ) -> None:
        self._clients = Windows(client_messages)
        self._messages = Windows(account_messages)
        self._recipients = Windows(account_recipients)

    def limit(self, client_messages: Rate, account_messages: Rate, account_recipients: Rate) -> None:
        """From now on."""
        self._clients.limit(client_messages)
        self._messages.limit(account_messages)
        self._recipients.limit(account_recipients)

    def open(self, client: Client) -> Tally:
        """What one transaction counts."""
        return Tally(self, client)

    def windows(self, client: Client) -> tuple[tuple[Windows, str, str], ...]:
        """What a message of this client counts for: the limit, the key, and whose it is."""
        found: list[tuple[Windows, str, str]] = []
        if self._clients.rate.count and client.address and not client.relay:
            found.append((self._clients, account_key(client.address), "address"))
        if self._messages.rate.count and client.account:
            found.append((self._messages, client.account.lower(), "account"))
        return tuple(found)

    @property
    def recipients(self) -> Windows:
        return self._recipients


class Tally:
    """Of one transaction. `now` in seconds of a clock that goes forward."""

    __slots__ = ("_client", "_quotas", "_taken")

    def __init__(self, quotas: Quotas, client: Client) -> None:
        self._quotas = quotas
        self._client = client
        self._taken: list[tuple[Windows, str]] = []

    def message(self, now: float) -> Reply | None:
        """A reply refuses."""
        for windows, key, whose in self._quotas.windows(self._client):
            wait = windows.take(key, now)
            if wait:
                self.give_back(now)
                return _over("messages", windows.rate, whose, wait)
            self._taken.append((windows, key))
        return None

    def recipient(self, now: float) -> Reply | None:
        windows, account = self._quotas.recipients, self._client.account.lower()
        if not windows.rate.count or not account:
            return None
        wait = windows.take(account, now)
        if wait:
            return _over("recipients", windows.rate, "account", wait)
        self._taken.append((windows, account))
        return None

    def spent(self) -> None:
        """The mail was taken: nothing is given back any more."""
        self._taken.clear()

    def give_back(self, now: float) -> None:
        for windows, key in self._taken:
            windows.add(key, now, -1)
        self._taken.clear()


def _over(what: str, rate: Rate, whose: str, wait: float) -> Reply:
    span = f"{rate.seconds:g} seconds"
    for seconds, name in _UNITS:
        if rate.seconds % seconds == 0:
            count = int(rate.seconds // seconds)
            span = name if count == 1 else f"{count} {name}s"
            break
    return reply(450, "4.7.1", f"limit of {rate.count} {what} per {span} for your {whose}; again in {shown(wait)}")


def shown(seconds: float) -> str:
    """As people say it, rounded up."""
    if seconds < 120:
        return f"{max(1, -int(-seconds // 1))} s"
    return f"{-int(-seconds // 60)} min" if seconds < 7200 else f"{-int(-seconds // 3600)} h"
