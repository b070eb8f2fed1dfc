"""rates that are never exceeded

One limit "so many per so long": at most that many in any span of that length,
and evenly spread, so that nothing comes in bursts. Pure.

API      `wait(now)` seconds until one more may go; `take(now, waited)` counts it;
         `interval`. `state(now)` and `Pace(rate, begin)` carry it over a restart.
Promise  in any half-open span of `seconds` no more than `count` are taken. Who had
         to wait for its turn and woke late does not delay the next one, for up to
         CATCH_UP seconds of lateness; who comes after a pause gets no more at once.
Why      The evenness is that of a virtual clock (GCRA), the promise is kept by the
         times of the last `count`. Of large counts a smaller one over a shorter span is kept,
         which is stricter, so that memory stays within MOST numbers.
         After a stop that nobody could note, the last ones are taken to have been
         as late as they could: see `after_crash`.
"""

from __future__ import annotations

from array import array

from tripost.delivery.settings import Rate

MOST = 4096
CATCH_UP = 0.1
LEAST = 1e-6  # seconds of a wait, so that clocks move on
SLOW = 5.0  # seconds between two: worth a durable note before each


class Pace:
    """`begin`: nothing before."""

    def __init__(self, rate: Rate, begin: float = 0.0) -> None:
        scale = max(1, -(-rate.count // MOST))
        self._count = rate.count // scale
        self._seconds = rate.seconds / scale
        self.interval = self._seconds / self._count if self._count else 0.0
        self._next = begin
        self._times = array("d", [-1e18]) * self._count
        self._at = 0  # the oldest of them

    @property
    def slow(self) -> bool:
        return self.interval >= SLOW

    def wait(self, now: float) -> float:
        """Seconds; 0.0 when one may go now."""
        if not self._count:
            return 0.0
        wait = max(self._next - now, self._seconds - (now - self._times[self._at]))
        return max(wait, LEAST) if wait > 0.0 else 0.0

    def take(self, now: float, *, waited: bool = False) -> None:
        """One goes. Only when `wait` says 0.0; `waited`: it had to wait for that."""
        if not self._count:
            return
        late = now - self._next
        self._next = (self._next if waited and late <= CATCH_UP else now) + self.interval
        self._times[self._at] = now
        self._at = (self._at + 1) % self._count

    def idle(self, now: float) -> bool:
        """What was taken does not matter any more."""
        return not self._count or self._times[self._at - 1] + self._seconds <= now

    def state(self) -> float:
        """For `begin` after a stop that is known: what was late before must not add to what is late after."""
        return self._next + 2 * CATCH_UP if self._count else 0.0


def after_crash(rate: Rate, now: float) -> float:
    """`begin` where nobody knows when the last one went: up to now."""
    pace = Pace(rate)
    return now + 2 * CATCH_UP + 2 * pace.interval if rate.count else 0.0
