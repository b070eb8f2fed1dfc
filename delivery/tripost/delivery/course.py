"""how far a conversation with a host is, and how long each part of it took"""

from __future__ import annotations

import trio

from tripost.queue.message import Transfer


class Course:
    """`phase` is what goes on now: greeting | ehlo | tls | auth, and for a transaction mail | content | dot."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self._since = trio.current_time()
        self._took: dict[str, float] = {}

    def enter(self, phase: str) -> None:
        now = trio.current_time()
        self._took[self.phase] = self._took.get(self.phase, 0.0) + now - self._since
        self.phase, self._since = phase, now

    def took(self, *phases: str) -> float:
        """Seconds of those that are over."""
        return round(sum([self._took.get(one, 0.0) for one in phases]), 6)

    def transfer(self, address: str, tls: str, opening: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Transfer:
        """A transaction that is over now; `opening`: what connection, greeting and STARTTLS took."""
        self.enter("over")
        return Transfer(address, tls, *opening, self.took("mail"), self.took("content"), self.took("dot"))


def reason(wrong: BaseException) -> str:
    """Why it ended."""
    if isinstance(wrong, OSError) and wrong.strerror:
        return wrong.strerror
    if isinstance(wrong, trio.TooSlowError):
        return "no answer in time"
    if isinstance(wrong, trio.BrokenResourceError):
        return "connection broken"
    return str(wrong)
