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


CLIENT, ACCOUNT, RECIPIENTS = "client_messages", "account_messages", "account_recipients"
_WHOSE = {CLIENT: "address", ACCOUNT: "account", RECIPIENTS: "account"}


class Quotas:
    """The limits of `[limits]`; one for all sessions. Where several processes count together, the others are asked."""

    def __init__(
        self,
        client_messages: Rate = NO_LIMIT,
        account_messages: Rate = NO_LIMIT,
        account_recipients: Rate = NO_LIMIT,
    ) -> None:
        self._windows = {
            CLIENT: Windows(client_messages),
            ACCOUNT: Windows(account_messages),
            RECIPIENTS: Windows(account_recipients),
        }

    def limit(self, client_messages: Rate, account_messages: Rate, account_recipients: Rate) -> None:
        """From now on."""
        self._windows[CLIENT].limit(client_messages)
        self._windows[ACCOUNT].limit(account_messages)
        self._windows[RECIPIENTS].limit(account_recipients)

    def open(self, client: Client) -> Tally:
        """What one transaction counts."""
        return Tally(self, client)

    def rate(self, kind: str) -> Rate:
        return self._windows[kind].rate

    def counts(self, client: Client) -> list[tuple[str, str]]:
        """What a message of this client counts for: the limit and the key."""
        found: list[tuple[str, str]] = []
        if self.rate(CLIENT).count and client.address and not client.relay:
            found.append((CLIENT, account_key(client.address)))
        if self.rate(ACCOUNT).count and client.account:
            found.append((ACCOUNT, client.account.lower()))
        return found

    async def take(self, kind: str, key: str, now: float) -> float:
        """Count one, or say how many seconds from now it fits."""
        return self.take_now(kind, key, now)

    def take_now(self, kind: str, key: str, now: float) -> float:
        """As counted here."""
        return self._windows[kind].take(key, now)

    def give_back(self, kind: str, key: str, now: float) -> None:
        self._windows[kind].add(key, now, -1)


class Tally:
    """Of one transaction. `now` in seconds of a clock that goes forward."""

    __slots__ = ("_client", "_quotas", "_taken")

    def __init__(self, quotas: Quotas, client: Client) -> None:
        self._quotas = quotas
        self._client = client
        self._taken: list[tuple[str, str]] = []

    async def message(self, now: float) -> Reply | None:
        """A reply refuses."""
        for kind, key in self._quotas.counts(self._client):
            over = await self._take("messages", kind, key, now)
            if over is not None:
                self.give_back(now)
                return over
        return None

    async def recipient(self, now: float) -> Reply | None:
        account = self._client.account.lower()
        if not account or not self._quotas.rate(RECIPIENTS).count:
            return None
        return await self._take("recipients", RECIPIENTS, account, now)

    async def _take(self, what: str, kind: str, key: str, now: float) -> Reply | None:
        wait = await self._quotas.take(kind, key, now)
        if wait:
            return _over(what, self._quotas.rate(kind), _WHOSE[kind], wait)
        self._taken.append((kind, key))
        return None

    def spent(self) -> None:
        """The mail was taken: nothing is given back any more."""
        self._taken.clear()

    def give_back(self, now: float) -> None:
        for kind, key in self._taken:
            self._quotas.give_back(kind, key, now)
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
