"""who waited too long to be let in: what overload sheds, and when

One `Overload` looks at the connections of one listener, in the order in which they
are accepted, which is that in which they came.

API      `refuse(waited, now, most)`: shall this one come again later? `most` is
         `[limits] lag`, 0 for never; all are seconds. `told(now, most)`: what is to
         be said of it now, as `Word`s; `due`: when to ask again although nobody came.
Promise  Nobody is refused who waited no longer than half of `most`; none at all while some
         come in sooner than `most`. Of those that are let in while it sheds, none
         waited longer than half of `most`.
States   open → shedding: all waited longer than `most`, for half of `most`. That is
         a queue that stands and not one that a burst, or a pause of the machine, left
         and that goes away. shedding → open: for `most` nobody waited longer than
         half of it.
Why      What a client waits is all that shows overload. How busy a processor is, or how
         many are connected, says nothing: many connections may be idle, and a full
         queue may be a fast one. Shedding to half is what makes one limit serve both
         ends: clients that come together, 300 at a time, wait for their turn, and
         while more comes than can be taken, waits are short for those that are taken.
         The queue is never emptied for it, so nothing that could be taken is lost.
Source   Nichols and Jacobson, Controlling Queue Delay (RFC 8289), for the standing queue.

Pure.
"""

from __future__ import annotations

from math import inf

import msgspec

EVERY = 1.0  # seconds between two words while it sheds
AGAIN = 60.0  # seconds for which a second beginning is no news


class Word(msgspec.Struct, frozen=True):
    """`connections` were refused since the last word, the one that waited longest after `wait` seconds. `state`: begins
    | goes on | ends; `news`: it did not begin within the last minute."""

    state: str
    connections: int
    wait: float
    news: bool = False


class Sheds:
    """What the listeners of all processes have told, for `status`: `connections` since the start; the last word, with
    the time at which it was said."""

    def __init__(self) -> None:
        self.connections = 0
        self.wait = 0.0
        self.at = -inf

    def note(self, connections: int, wait: float, at: float) -> None:
        if connections:
            self.connections, self.wait, self.at = self.connections + connections, wait, at

    def now(self, time: float) -> bool:
        """Some were refused lately."""
        return time - self.at < 2 * EVERY


class Overload:
    """`shed`: how many were refused."""

    def __init__(self) -> None:
        self.shedding = False
        self.shed = 0
        self.due = inf
        self._late = inf  # since when all wait longer than `most`
        self._last = -inf  # when somebody was last found to have waited too long
        self._state = ""
        self._told = 0
        self._wait = 0.0
        self._began = -inf  # the last beginning that was news

    def refuse(self, waited: float, now: float, most: float) -> bool:
        """Of one that is taken from the line now."""
        came = now - waited
        if self.shedding and self._over(came, most):
            self._end(now)
        if not waited > (most / 2 if self.shedding else most) > 0:
            if not self.shedding:
                self._late = inf
            return False
        if self._over(came, most):
            self._late = inf  # nobody was there for some time: what there was is no queue that stands
        self._last = now
        self._late = min(self._late, now)
        if now - self._late < most / 2:
            return False
        if not self.shedding:
            self.shedding, self._state, self.due = True, "begins", now
        self.shed += 1
        self._wait = max(self._wait, waited)
        return True

    def _over(self, then: float, most: float) -> bool:
        return then - self._last > most

    def _end(self, now: float) -> None:
        self.shedding, self._late = False, inf
        self._state, self.due = "ends", now

    def told(self, now: float, most: float) -> Word | None:
        """At most one each second, but for the last."""
        if now < self.due:
            return None
        if self.shedding and self._over(now, most):
            self._end(now)
        state, self._state = self._state or "goes on", ""
        self.due = now + EVERY if self.shedding else inf
        news = state == "begins" and now - self._began > AGAIN
        if news:
            self._began = now
        word = Word(state, self.shed - self._told, round(self._wait, 3), news)
        self._told, self._wait = self.shed, 0.0
        return word
