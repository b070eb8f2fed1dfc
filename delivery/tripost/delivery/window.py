"""how many connections a site takes, found out by trying

The adaptive part of a site's concurrency; the operator's limit is a bound that
it never passes. Pure: told the time and what happened.

States   starting (nothing was refused yet: every greeted connection allows one
         more, so that the number doubles with every round) · holding (so many
         were taken, one more was refused) · probing (one more is tried; each
         success doubles the next step) · down (nothing worked: one at a time).
Promise  A refused probe costs one connection and nothing else; while nothing
         changes there is at most one for LEAST_GOOD good ones, or in
         2 × PAUSE_LONGEST seconds. Of refusals that were all under way at once each
         takes off one: as many are left as were taken.
Falling  A connection that was begun after the last refusal, and is refused as well, with
         none good in between, says that the limit is still too high: it takes off 1, 2, 4…, at
         most half. What that skipped is tried again soon, by steps that double.
Why      The usual ±1/N around the limit of a server that answers 421 has half of
         the connects refused; remembering the ceiling and asking seldom has few, and
         the doubling steps make up for the long pauses once the ceiling has gone.
"""

from __future__ import annotations

import math

INITIAL = 2
PAUSE = 2.0  # seconds until one more is tried after a refusal; doubled by every refused probe
PAUSE_LONGEST = 20.0
NEXT = 1.0  # seconds between two steps of a probe that succeeds
LEAST_GOOD = 12


class Window:
    """`limit` is what may be open now; `hard` the operator's bound. `fixed`: there is nobody who refuses."""

    def __init__(self, hard: int, *, learned: int = 0, fixed: bool = False) -> None:
        self.hard = hard
        self.limit = hard if fixed else min(hard, learned or INITIAL)
        self.state = "holding" if learned else "starting"
        self._fixed = fixed
        self._pause = PAUSE
        self._refused_at = 0.0
        self._stepped_at = 0.0
        self._step = 1
        self._good = 0  # greeted since the last refusal
        self._fall = 1  # what the next refusal takes off
        self._skipped = 0  # up to there it fell in one step, and may have fallen too deep
        self.refusals = 0

    @property
    def learned(self) -> int:
        """What is worth to be known after a restart; 0 for nothing."""
        return self.limit if self.state in ("holding", "probing") and self.limit < self.hard else 0

    @property
    def doubtful(self) -> bool:
        """The last one was refused, and none was good since."""
        return self._fall > 1

    def opened(self, now: float) -> str:
        """A connection was greeted. The reason of a change of `limit`, "" for none."""
        self._good += 1
        self._fall = 1
        if self._fixed or self.limit >= self.hard:
            return ""
        if self.state == "down":
            self.state = "starting"
        if self.state == "starting":
            self.limit += 1
            return "accepted while starting"
        return ""

    @property
    def _enough(self) -> bool:
        """So many were good since the last refusal that one more may be tried."""
        return self._good >= (1 if self.limit < self._skipped else LEAST_GOOD)

    def due(self, now: float, open: int) -> str:
        """Try more, when it is time and all that may be open is; the reason, "" for no change."""
        if self._fixed or self.state not in ("holding", "probing") or self.limit >= self.hard or open < self.limit:
            return ""
        if self.state == "probing":
            if now < self._stepped_at + NEXT:
                return ""
            self._step *= 2
        else:
            waited = now - self._refused_at
            if waited < self._pause or (not self._enough and waited < 2 * PAUSE_LONGEST):
                return ""
            self.state, self._step = "probing", 1
        self._stepped_at = now
        self.limit = min(self.hard, self.limit + self._step)
        return "trying whether more are taken"

    def next_time(self) -> float:
        """When `due` is worth to be asked again, if no connection is greeted before."""
        if self.state == "probing":
            return self._stepped_at + NEXT
        if self.state != "holding":
            return math.inf
        return self._refused_at + (self._pause if self._enough else 2 * PAUSE_LONGEST)

    def refused(self, now: float, used: int, begun: int | None = None) -> str:
        """One of `used` was refused while others are good. `begun`: what `refusals` was when it was begun, None for one
        that was good before. The reason of the change."""
        current = begun == self.refusals
        self.refusals += 1
        probed = self.state == "probing"
        was = min(self.limit, used)
        off = max(1, min(self._fall, was // 2)) if current else 1
        if off > 1:
            self._skipped = was - 1
        elif probed:
            self._skipped = 0
        self._pause = min(PAUSE_LONGEST, self._pause * 2) if probed else 2 * PAUSE if off > 1 else PAUSE
        self._fall = min(self._fall * 2, self.hard) if current else self._fall
        self.limit = max(1, was - off)
        self.state, self._step, self._good = "holding", 1, 0
        self._refused_at = now
        return f"one of {used} was refused"

    def failed(self) -> str:
        """Nothing works: one, when its time comes."""
        self.state, self.limit, self._step, self._good, self._pause = "down", 1, 1, 0, PAUSE
        self._fall, self._skipped = 1, 0
        return "cannot be spoken to"
