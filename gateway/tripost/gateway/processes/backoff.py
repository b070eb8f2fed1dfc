"""when a process that died is started again

Promise  the first death costs SHORTEST seconds, each of a process that lived for
         less than STEADY twice as many as the one before, up to LONGEST. LOOP
         deaths within SPAN seconds are a crash loop, however long each lived: it
         is told, and over when the process has lived for SPAN seconds.
"""

from __future__ import annotations

from collections import deque

SHORTEST = 0.1
LONGEST = 30.0
STEADY = 5.0
LOOP = 5
SPAN = 60.0


class Backoff:
    """Of one role; `now` in seconds of a clock that goes forward."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque(maxlen=LOOP)
        self._delay = 0.0
        self.deaths = 0
        self.looping = False

    def died(self, now: float, lived: float) -> float:
        """Seconds to wait before the next start."""
        self.deaths += 1
        self._deaths.append(now)
        self._delay = SHORTEST if lived >= STEADY else min(LONGEST, max(SHORTEST, self._delay * 2))
        self.looping = len(self._deaths) == LOOP and now - self._deaths[0] <= SPAN
        return self._delay

    def lives(self, lived: float) -> bool:
        """It has not died for so many seconds: True when that ends a crash loop."""
        over = self.looping and lived >= SPAN
        if over:
            self.looping = False
        return over
