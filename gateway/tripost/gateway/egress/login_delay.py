"""how soon an account may log in again (RFC 2449 §6.5)

A polite word to clients that ask every second; opening a mailbox costs the most
of all that POP3 does. Kept in memory: a restart forgives.
"""

from __future__ import annotations

from collections import OrderedDict

MOST = 100_000  # accounts


class LoginDelay:
    """`seconds` between two logins of an account, 0 for none; `now` of any clock that goes forward."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._last: OrderedDict[str, float] = OrderedDict()

    def wait(self, account: str, now: float) -> float:
        """Seconds until it may; 0.0 when it may now."""
        return max(0.0, self._last.get(account, now - self.seconds) + self.seconds - now)

    def entered(self, account: str, now: float) -> None:
        if not self.seconds:
            return
        self._last[account] = now
        self._last.move_to_end(account)
        if len(self._last) > MOST:
            self._last.popitem(last=False)
