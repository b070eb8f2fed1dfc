"""figures from events: rates, latencies, failures, who is connected

Told events in batches (`take`, sorted by kind) and once a second that a second is
over (`second`). Pure.

Bounds   each table here has a size: NAMES next hops and sites, KINDS classes of
         failures, SORTED replies a second that are put into a class.
Why      thousands come each second, and the picture is drawn four times: what an event
         costs is a few steps of a comprehension.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tripost.delivery.classify import classify
from tripost.gateway.monitor.feed import Connections, Example, Failure, Quantiles, Rate, Rates, Sample
from tripost.gateway.monitor.feed import Trouble as Told
from tripost.gateway.observe.reader import Kinds
from tripost.queue.events import (
    Accepted,
    Adapted,
    BackedOff,
    Bounced,
    Closed,
    DeferredUntil,
    DeliveredLocally,
    Event,
    Limited,
    Opened,
    Relayed,
    Steered,
    Trouble,
    Unreachable,
)
from tripost.queue.values import QueueStatistics

NAMES = 2000
KINDS = 60
SORTED = 200
HOUR = 60  # minutes that a failure is counted
TROUBLES = 5
STEPS = 4  # buckets for each doubling
LEAST = 1e-5  # seconds, the first bucket's end
BUCKETS = STEPS * 40  # up to 10^7 s
_EDGES = [LEAST * 2.0 ** (bucket / STEPS) for bucket in range(BUCKETS)]


class Histogram:
    """Durations in buckets that grow by a fifth each."""

    def __init__(self) -> None:
        self.counts = [0] * (BUCKETS + 1)

    def add(self, durations: Sequence[float]) -> None:
        counts = self.counts
        for seconds in durations:
            counts[bisect_left(_EDGES, seconds)] += 1

    def clear(self) -> None:
        self.counts = [0] * (BUCKETS + 1)


def bound(bucket: int) -> float:
    """Its upper end, in seconds."""
    return float(f"{LEAST * 2.0 ** (bucket / STEPS):.3g}")


def quantiles(counts: list[int]) -> Quantiles:
    total = sum(counts)
    if not total:
        return Quantiles()
    wanted = [math.ceil(total * share) for share in (0.5, 0.9, 0.99)]
    found: list[float] = []
    seen = 0
    for bucket, count in enumerate(counts):
        seen += count
        while len(found) < 3 and seen >= wanted[len(found)]:
            found.append(bound(bucket))
    return Quantiles(total, *found)


class Window:
    """A histogram of the running second, and those of the seconds before."""

    def __init__(self, seconds: int = 10) -> None:
        self.now = Histogram()
        self._before: deque[list[int]] = deque(maxlen=seconds)

    def second(self) -> Quantiles:
        """The second is over; its quantiles."""
        over = self.now.counts
        self._before.append(over)
        self.now.clear()
        return quantiles(over)

    def quantiles(self) -> Quantiles:
        """Of the whole seconds that are remembered."""
        return quantiles([sum(column) for column in zip(*self._before, strict=True)] if self._before else [])


class _Failures:
    """Of one class: minutes with their counts, and the newest."""

    __slots__ = ("last", "minutes")

    def __init__(self, last: Example) -> None:
        self.last = last
        self.minutes: deque[list[int]] = deque()

    def add(self, minute: int, count: int) -> None:
        if self.minutes and self.minutes[-1][0] == minute:
            self.minutes[-1][1] += count
        else:
            self.minutes.append([minute, count])

    def count(self, minute: int) -> int:
        while self.minutes and self.minutes[0][0] <= minute - HOUR:
            self.minutes.popleft()
        return sum(count for _, count in self.minutes)


class Figures:
    """Of one gateway, since its start."""

    def __init__(self) -> None:
        self.accept, self.deliver = Window(), Window()
        self.open_out = 0
        self.most_in = self.most_out = 0
        self.messages = self.octets = 0  # accepted
        self.replies: dict[str, tuple[str, float]] = {}  # next hop → what was last said, when
        self.failures_of: dict[str, int] = {}  # next hop that cannot be spoken to → how often
        self.site_replies: dict[str, tuple[str, float]] = {}
        self.steered = 0  # how often an operator did something
        self.trouble: deque[Told] = deque(maxlen=TROUBLES)
        self._sent: dict[str, int] = {}  # next hop → relayed in the running second
        self._sent_before: deque[dict[str, int]] = deque(maxlen=10)
        self._failed: list[tuple[str, Example]] = []
        self._unsorted = 0
        self._failures: dict[tuple[str, str], _Failures] = {}
        self._totals: deque[tuple[float, list[int]]] = deque(maxlen=61)
        self._takers: dict[type[Event], Callable[[list[Any]], None]] = {
            Accepted: self._accepted,
            Relayed: self._relayed,
            DeliveredLocally: self._delivered,
            Bounced: self._bounced,
            DeferredUntil: self._deferred,
            Unreachable: self._unreachable,
            BackedOff: self._backed_off,
            Adapted: self._adapted,
            Limited: self._limited,
            Steered: self._on_steered,
            Trouble: self._on_trouble,
        }

    def take(self, kinds: Kinds) -> None:
        """Of each kind those that came, in their order."""
        for kind, some in kinds.items():
            taker = self._takers.get(kind)
            if taker is not None:
                taker(some)
        if Opened in kinds or Closed in kinds:
            self._connections([*kinds.get(Opened, ()), *kinds.get(Closed, ())])

    # --- events ---

    def _accepted(self, some: list[Accepted]) -> None:
        self.messages += len(some)
        self.octets += sum([one.size for one in some])
        self.accept.now.add([one.seconds for one in some if one.client])  # not our own reports

    def _relayed(self, some: list[Relayed]) -> None:
        self.deliver.now.add([one.age for one in some])
        sent, hops = self._sent, [one.next_hop for one in some]
        for hop, count in Counter(hops).items():
            if hop in sent:
                sent[hop] += count
            elif len(sent) < NAMES:
                sent[hop] = count
        for hop, one in dict(zip(hops, some, strict=True)).items():  # the newest for each
            self._said(self.replies, hop, one.reply, one.time)

    def _delivered(self, some: list[DeliveredLocally]) -> None:
        self.deliver.now.add([one.age for one in some])

    def _bounced(self, some: list[Bounced]) -> None:
        for one in some:
            self._fail("failed", one.id, one.recipient, one.next_hop, one.host, one.reply, one.time)
            self._said(self.replies, one.next_hop, one.reply, one.time)

    def _deferred(self, some: list[DeferredUntil]) -> None:
        for one in some:
            self._fail("deferred", one.id, one.recipient, one.next_hop, one.host, one.reply, one.time)
            self._said(self.replies, one.next_hop, one.reply, one.time)

    def _unreachable(self, some: list[Unreachable]) -> None:
        for one in some:
            self._fail("unreachable", one.id, "", "", one.host, f"{one.phase}: {one.reply}", one.time)
            self._said(self.site_replies, one.site, one.reply, one.time)

    def _backed_off(self, some: list[BackedOff]) -> None:
        for one in some:
            self._said(self.replies, one.next_hop, one.reply, one.time)
            if len(self.failures_of) >= NAMES:
                self.failures_of.clear()
            self.failures_of[one.next_hop] = one.failures

    def _adapted(self, some: list[Adapted]) -> None:
        for one in some:
            self._said(self.site_replies, one.site, one.reason, one.time)

    def _limited(self, some: list[Limited]) -> None:
        for one in some:
            if one.reason:
                self._said(self.site_replies, one.site, one.reason, one.time)

    def _connections(self, some: list[Opened | Closed]) -> None:
        some.sort(key=lambda one: one.seq)  # so that the most is right
        for one in some:
            self.open_out = max(0, self.open_out + (1 if isinstance(one, Opened) else -1))
            self.most_out = max(self.most_out, self.open_out)

    def _on_steered(self, some: list[Steered]) -> None:
        self.steered += len(some)

    def _on_trouble(self, some: list[Trouble]) -> None:
        self.trouble.extend([Told(one.time, one.where, one.reason) for one in some])

    def _fail(self, outcome: str, id: str, recipient: str, hop: str, host: str, reply: str, time: float) -> None:
        if len(self._failed) < SORTED:
            self._failed.append((outcome, Example(time, id, recipient, hop, host, reply)))
        else:
            self._unsorted += 1

    @staticmethod
    def _said(table: dict[str, tuple[str, float]], name: str, reply: str, time: float) -> None:
        """The newest counts: kinds of one batch come one after the other, not as they happened."""
        known = table.get(name)
        if known is None and len(table) >= NAMES:
            for old in list(table)[: NAMES // 2]:
                del table[old]
        if known is None or not 0.0 < known[1] - time < 1.0:  # more: the clock was set back
            table[name] = reply, time

    # --- what is told ---

    def second(self, now: float, totals: QueueStatistics) -> Sample:
        """A second is over: its sample."""
        row = [
            totals.accepted,
            totals.relayed,
            totals.delivered,
            totals.reported + totals.suppressed,
            totals.deferrals,
            self.messages,
            self.octets,
        ]
        before = self._totals[-1][1] if self._totals else row
        self._totals.append((now, row))
        self._sent_before.append(self._sent)
        self._sent = {}
        self._sort()
        accept, deliver = self.accept.second(), self.deliver.second()
        return Sample(
            time=round(now, 3),
            accepted=row[0] - before[0],
            relayed=row[1] - before[1],
            delivered=row[2] - before[2],
            failed=row[3] - before[3],
            deferred=row[4] - before[4],
            accept_p50=accept.p50,
            accept_p99=accept.p99,
            deliver_p50=deliver.p50,
            deliver_p99=deliver.p99,
            queued=totals.queued,
        )

    def rates(self) -> Rates:
        spans = [self._over(seconds) for seconds in (1, 10, 60)]
        return Rates(*[Rate(*figures) for figures in zip(*spans, strict=True)])

    def _over(self, seconds: int) -> list[float]:
        if len(self._totals) < 2:
            return [0.0] * 7
        (then, old), (now, new) = self._totals[max(0, len(self._totals) - 1 - seconds)], self._totals[-1]
        span = max(0.001, now - then)
        return [round((after - before) / span, 1) for before, after in zip(old, new, strict=True)]

    def rate(self, next_hop: str) -> float:
        """Recipients relayed a second."""
        seconds = len(self._sent_before) or 1
        return round(sum([one.get(next_hop, 0) for one in self._sent_before]) / seconds, 1)

    def connections(self, into: Mapping[str, int]) -> Connections:
        """`into`: those of clients now, by service."""
        known = {service: count for service, count in into.items() if count}
        self.most_in = max(self.most_in, sum(known.values()))
        return Connections(known, self.open_out, self.most_in, self.most_out)

    def _sort(self) -> None:
        failed, self._failed = self._failed, []
        for outcome, one in failed:
            self._count(classify(one.reply).name, outcome, one, 1)
        if self._unsorted and failed:
            self._count("unsorted", "any", failed[-1][1], self._unsorted)
        self._unsorted = 0

    def _count(self, kind: str, outcome: str, one: Example, count: int) -> None:
        known = self._failures.get((kind, outcome))
        if known is None:
            if len(self._failures) >= KINDS:
                return
            known = self._failures[kind, outcome] = _Failures(one)
        known.last = one
        known.add(int(one.time / 60), count)

    def failures(self, now: float) -> list[Failure]:
        """The newest first."""
        found: list[Failure] = []
        for (kind, outcome), one in list(self._failures.items()):
            count = one.count(int(now / 60))
            if count:
                found.append(Failure(kind, outcome, count, one.last))
            else:
                del self._failures[kind, outcome]
        return sorted(found, key=lambda one: -one.last.time)
