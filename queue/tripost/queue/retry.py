"""when to try again

The message's own back-off: a delay for each attempt, growing by `factor` from
`first` to `longest`, or an explicit `schedule` whose last entry repeats. Pure:
the randomness comes in as a number.

Promise  every delay lies within ±`jitter` of its undisturbed value.
"""

from __future__ import annotations

import msgspec


class Schedule(msgspec.Struct, frozen=True):
    """Seconds throughout; `jitter` is a fraction (0.2 is ±20 %)."""

    first: float = 300.0
    factor: float = 2.0
    longest: float = 14_400.0
    jitter: float = 0.2
    schedule: tuple[float, ...] = ()

    def delay(self, attempt: int, unit_random: float) -> float:
        """Seconds to wait after failed attempt number `attempt` (1-based); `unit_random` in [0, 1)."""
        if self.schedule:
            plain = self.schedule[min(attempt, len(self.schedule)) - 1]
        else:
            # min() on the exponent: factor ** attempt overflows long before `expire` would end a fast schedule
            plain = min(self.longest, self.first * self.factor ** min(attempt - 1, 64))
        return spread(plain, self.jitter, unit_random)


def spread(delay: float, jitter: float, unit_random: float) -> float:
    """`delay` moved by up to ±`jitter` of itself."""
    return delay * (1.0 + jitter * (2.0 * unit_random - 1.0))
