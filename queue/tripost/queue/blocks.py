"""next hops that are not to be tried now

Two reasons: it could not be spoken to (a back-off, with one probe at its end),
or somebody said so (a suspension, until a time or until resumed). Both are
notes (tripost.queue.notes), so that a restart neither storms a dead host nor
forgets an operator's word.

States   of a back-off: blocked until a time; open for one probe; probing.
Bounds   as many as there are next hops with mail, but no more are written down
         than there is room for notes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import msgspec

from tripost.queue.message import Deferred
from tripost.queue.notes import Notes

BACK_OFF = "backoff/"
SUSPEND = "suspend/"


class BackOff:
    """What is remembered of a hop that could not be spoken to; `last` is None until it was tried since the start."""

    __slots__ = ("failures", "last", "probing", "until")

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.until = 0.0
        self.probing = False
        self.last: Deferred | None = None


class Suspension(msgspec.Struct, frozen=True, array_like=True):
    """`until` in wall-clock seconds, 0 for until it is resumed."""

    until: float
    reason: str


class _Written(msgspec.Struct, frozen=True, array_like=True):
    failures: int
    until: float


_encode = msgspec.msgpack.Encoder().encode
_decode_back_off = msgspec.msgpack.Decoder(_Written).decode
_decode_suspension = msgspec.msgpack.Decoder(Suspension).decode


class Blocks:
    """By a hop's number (back-offs) and name (suspensions, which outlive the mail that waits)."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._back_offs: dict[int, BackOff] = {}
        self._ends: list[tuple[float, int]] = []
        self.suspended: dict[str, Suspension] = {}
        self._resumptions: list[tuple[float, str]] = []

    def back_off(self, hop: int) -> BackOff | None:
        return self._back_offs.get(hop) if self._back_offs else None

    @property
    def down(self) -> int:
        """How many hops could not be spoken to."""
        return len(self._back_offs)

    def begin(self, hop: int, name: str, until: float, last: Deferred) -> None:
        """The hop could not be spoken to."""
        one = self._back_offs.setdefault(hop, BackOff())
        one.failures += 1
        one.probing = False
        one.last = last
        self._wait(hop, one, until)
        self._notes.put(BACK_OFF + name, _encode(_Written(one.failures, until)))

    def _wait(self, hop: int, one: BackOff, until: float) -> None:
        one.until = until
        heapq.heappush(self._ends, (until, hop))

    def end(self, hop: int, name: str) -> bool:
        """It can be spoken to, or nobody cares any more; True when it was blocked."""
        if self._back_offs.pop(hop, None) is None:
            return False
        self._notes.put(BACK_OFF + name, b"")
        return True

    def hurry(self, hop: int, now: float) -> bool:
        """Its probe is due now; False where there is no back-off, or a probe under way."""
        one = self._back_offs.get(hop)
        if one is None or one.probing:
            return False
        self._wait(hop, one, now)
        return True

    def ended(self, now: float) -> Iterator[int]:
        """Hops whose time to be probed has come."""
        while self._ends and self._ends[0][0] <= now:
            _, hop = heapq.heappop(self._ends)
            one = self._back_offs.get(hop)
            if one is not None and one.until <= now and not one.probing:
                one.until = 0.0
                yield hop

    def suspend(self, name: str, what: Suspension) -> None:
        self.suspended[name] = what
        if what.until:
            heapq.heappush(self._resumptions, (what.until, name))
        self._notes.put(SUSPEND + name, _encode(what))

    def resume(self, name: str) -> bool:
        """False when it is not suspended."""
        if self.suspended.pop(name, None) is None:
            return False
        self._notes.put(SUSPEND + name, b"")
        return True

    def resumed(self, now: float) -> Iterator[str]:
        """Hops whose suspension is over."""
        while self._resumptions and self._resumptions[0][0] <= now:
            _, name = heapq.heappop(self._resumptions)
            one = self.suspended.get(name)
            if one is not None and 0.0 < one.until <= now:
                self.resume(name)
                yield name

    def closed(self, hop: int, name: str, now: float) -> bool:
        """Nothing may be claimed."""
        one = self._back_offs.get(hop)
        if one is not None and (one.probing or one.until > now):
            return True
        what = self.suspended.get(name) if self.suspended else None
        return what is not None and not 0.0 < what.until <= now

    def any(self) -> bool:
        return bool(self._back_offs or self.suspended)

    def next_time(self) -> float | None:
        times = [heap[0][0] for heap in (self._ends, self._resumptions) if heap]
        return min(times, default=None)

    def restore(self, numbers: dict[str, int]) -> None:
        """At a start: from the notes; of back-offs those of hops that have mail (name → number)."""
        for name, value in self._notes.under(SUSPEND):
            self.suspended[name] = what = _decode_suspension(value)
            if what.until:
                heapq.heappush(self._resumptions, (what.until, name))
        for name, value in self._notes.under(BACK_OFF):
            if name not in numbers:
                self._notes.put(BACK_OFF + name, b"")
                continue
            written = _decode_back_off(value)
            self._back_offs[numbers[name]] = one = BackOff(written.failures)
            self._wait(numbers[name], one, written.until)
