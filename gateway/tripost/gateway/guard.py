"""guessing passwords is slow, and soon over

API      `Guard(failures, ban)`, one for all services of a gateway:
         `barred(client, account, now)` seconds until a try is allowed, 0.0 when it
         is; `failed(client, account, now)` counts and gives the seconds to wait
         before the reply; `succeeded(client, account)`. `account` may be "".
         `tripost.gateway.login` asks it for SMTP and POP3 alike.
Promise  Failures are counted per client (IPv6 by /64) and per account, in bounded
         tables. The delay doubles with each failure up to `LONGEST`. A ban ends by
         itself, and its length does not grow, so that nobody can lock a user out
         for longer than `ban` at a time.
Why      A success does not clear the client's count: one known password must not
         buy a stranger further guesses at others. It clears the account's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from tripost.gateway.peer import account_key
from tripost.gateway.windows import MOST, Rate, Windows

SHORTEST = 0.5  # seconds
LONGEST = 8.0
TOLD = 10_000  # keys


class Guard:
    """Failures of logins; `now` in seconds of a clock that goes forward."""

    def __init__(self, failures: Rate, ban: float) -> None:
        self._ban = ban
        self._windows = Windows(failures)
        self._banned: OrderedDict[str, float] = OrderedDict()
        self.bans = 0
        self.told: Callable[[str, str, bool], None] | None = None  # client, account, failed: for other processes

    def limit(self, failures: Rate, ban: float) -> None:
        """From now on; bans that run end when they were to end."""
        self._windows.limit(failures)
        self._ban = ban

    def barred(self, client: str, account: str, now: float) -> float:
        return max(self._left(key, now) for key in _keys(client, account))

    def _left(self, key: str, now: float) -> float:
        until = self._banned.get(key, 0.0)
        if until and until <= now:
            del self._banned[key]
            self._windows.forget(key)
            return 0.0
        return max(0.0, until - now)

    def failed(self, client: str, account: str, now: float) -> float:
        """The delay that this failure costs."""
        if self.told is not None:
            self.told(client, account, True)
        return self.note_failed(client, account, now)

    def note_failed(self, client: str, account: str, now: float) -> float:
        """As `failed`, when another process has seen it."""
        limit = self._windows.rate.count
        worst = 0.0
        for key in _keys(client, account):
            self._windows.add(key, now)
            used = self._windows.count(key, now)
            worst = max(worst, used)
            if limit and used >= limit and key not in self._banned:
                self._banned[key] = now + self._ban
                self.bans += 1
                if len(self._banned) > MOST:
                    self._banned.popitem(last=False)
        delay: float = SHORTEST * 2.0 ** min(10.0, max(0.0, worst - 1.0))
        return min(LONGEST, delay)

    def succeeded(self, client: str, account: str) -> None:
        if self.told is not None:
            self.told(client, account, False)
        self.note_succeeded(account)

    def known(self, now: float) -> list[tuple[str, int, float]]:
        """What another process has to know that begins now: (key, failures, seconds of a ban that are left)."""
        keys = list(dict.fromkeys([*self._banned, *self._windows.keys()]))[-TOLD:]
        return [(key, round(self._windows.count(key, now)), self._left(key, now)) for key in keys]

    def learn(self, known: list[tuple[str, int, float]], now: float) -> None:
        """The other side of `known`."""
        for key, failures, left in known:
            self._windows.add(key, now, failures)
            if left:
                self._banned[key] = now + left

    def note_succeeded(self, account: str) -> None:
        if account:
            self._windows.forget(f"a{account.lower()}")


def _keys(client: str, account: str) -> list[str]:
    keys = [f"c{account_key(client)}"]
    return [*keys, f"a{account.lower()}"] if account else keys
