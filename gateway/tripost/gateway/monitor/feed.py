"""what /live sends: the whole picture once, then what changed

A client gets one `snapshot` and after it `delta`s, at most four a second. A delta
is a JSON Merge Patch (RFC 7396) on what the client has: members that changed, null
for what is gone; lists are told anew as a whole, objects member by member. Each
message is encoded once, and the same octets go to every client. Pure.

Promise  a snapshot of `tick` n and the deltas n+1, n+2, … give the same picture as
         a later snapshot. `tick` grows by one with each delta; a client that was
         too slow for one gets a snapshot instead, which replaces all it has.
Bounds   `hops` and `sites` hold the SHOWN fullest and busiest, however many there
         are; the lists have a length of their own each.
Times    wall-clock seconds; durations seconds; sizes octets; 0 and "" for none.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from tripost.queue.depths import AGES
from tripost.queue.values import QueueStatistics

SHOWN = 50  # next hops, and sites
SERIES = 300  # one-second samples in a snapshot
RECENT = 10  # actions
TROUBLES = 5

Wall = Annotated[float, Meta(description="seconds since 1970, by the wall clock")]
Seconds = Annotated[float, Meta(description="a duration in seconds")]
State = Literal["starting", "serving", "draining"]


class Rate(msgspec.Struct, frozen=True):
    """A second, over the last second, ten seconds and minute."""

    s1: float = 0.0
    s10: float = 0.0
    s60: float = 0.0


class Rates(msgspec.Struct, frozen=True):
    """Recipients a second, and `messages` and `octets` accepted a second."""

    accepted: Rate = Rate()
    relayed: Rate = Rate()
    delivered: Rate = Rate()
    failed: Rate = Rate()
    deferred: Rate = Rate()
    messages: Rate = Rate()
    octets: Rate = Rate()


class Quantiles(msgspec.Struct, frozen=True):
    """Of the last ten seconds; each is the upper end of a bucket, at most a fifth too high."""

    count: int = 0
    p50: Seconds = 0.0
    p90: Seconds = 0.0
    p99: Seconds = 0.0


class Latency(msgspec.Struct, frozen=True):
    """`accept`: from the end of a message's content until it is on stable storage. `deliver`: from then until a host or
    mailbox has it, of one recipient."""

    accept: Quantiles = Quantiles()
    deliver: Quantiles = Quantiles()


class Connections(msgspec.Struct, frozen=True):
    """Open now. `in`: of clients, by service; `out`: ours to other hosts."""

    into: dict[str, int] = msgspec.field(name="in", default_factory=dict[str, int])
    out: int = 0
    most_in: int = 0
    most_out: int = 0


class States(msgspec.Struct, frozen=True):
    """Queued deliveries by state, as of `sampled`."""

    ready: int = 0
    deferred: int = 0
    held: int = 0
    suspended: int = 0
    active: int = 0
    down: int = 0
    ending: int = 0


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """A next hop. `deliveries` is now; recipients, octets, ages and `oldest` are as of `sampled`. `by`: what keeps more
    from being sent there now (as the event `limited` has it, else "down" or "suspended"), for `wait` s where that is
    known, and `why` in words. `until`: end of the back-off or suspension. `rate`: recipients relayed a second, of the
    last ten. `reply`: what was last said of a message for it, at `reply_at`."""

    site: str
    state: str
    deliveries: int
    recipients: int
    octets: int
    oldest: Seconds
    next_due: Wall
    ages: list[int]
    by: str
    wait: Seconds
    why: str
    until: Wall
    failures: int
    rate: float
    reply: str
    reply_at: Wall


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A destination's controller. `open` connections are greeted, `workers` use a slot; `limit` is what may be open now
    (found by trying, in the state `window`), `connections` the operator's bound. Rates as configured ("50/1s", "" for
    none). `by`, `wait`: as a hop has them; `rest`: until when it is left alone. `said`: whose limits hold in place of
    the configured ones. `reply`: why it was last found to be unreachable, slow or full."""

    open: int
    workers: int
    limit: int
    window: str
    connections: int
    rate: str
    connection_rate: str
    by: str
    wait: Seconds
    why: str
    rest: Wall
    reply: str
    reply_at: Wall
    hops: int
    said: str


class Example(msgspec.Struct, frozen=True):
    """The newest of a class."""

    time: Wall
    id: str
    recipient: str
    next_hop: str
    host: str
    reply: str


class Failure(msgspec.Struct, frozen=True):
    """`count` in the last hour; `outcome`: failed | deferred | unreachable. Of very many at once some are counted as
    class "unsorted"."""

    kind: str = msgspec.field(name="class")
    outcome: str
    count: int
    last: Example


class Suspension(msgspec.Struct, frozen=True):
    """`kind`: destination, sender, account or client."""

    kind: str
    what: str
    until: Wall
    reason: str


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One of the newest in the audit trail."""

    action: str
    verb: str
    who: str
    at: Wall
    until: Wall
    filter: str
    reason: str
    messages: int
    recipients: int
    state: str
    can_be_undone: bool


class Trouble(msgspec.Struct, frozen=True):
    """As the event has it."""

    time: Wall
    where: str
    reason: str


class Clients(msgspec.Struct, frozen=True):
    """Of the monitor: `live`, `events` and `trace` are open now, `cut` were too slow since the start."""

    live: int = 0
    events: int = 0
    trace: int = 0
    cut: int = 0


class Sample(msgspec.Struct, frozen=True):
    """One second: what happened in it, and how much was queued at its end."""

    time: Wall = 0.0
    accepted: int = 0
    relayed: int = 0
    delivered: int = 0
    deferred: int = 0
    failed: int = 0
    accept_p50: Seconds = 0.0
    accept_p99: Seconds = 0.0
    deliver_p50: Seconds = 0.0
    deliver_p99: Seconds = 0.0
    queued: int = 0


class Series(msgspec.Struct, frozen=True):
    """The last samples as columns, the oldest first."""

    time: list[float]
    accepted: list[int]
    relayed: list[int]
    delivered: list[int]
    deferred: list[int]
    failed: list[int]
    accept_p50: list[float]
    accept_p99: list[float]
    deliver_p50: list[float]
    deliver_p99: list[float]
    queued: list[int]


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """All that is told but the series. `seq`: the newest event's number, from which /events can be asked on. `boot`
    changes with each start of the gateway. `ready`: it takes mail, else `reason` says why not. `dropped`: events that a
    reader (log, history, events) lost since the start."""

    time: Wall
    seq: int
    boot: int
    hostname: str
    version: str
    up: Seconds
    state: State
    ready: bool
    reason: str
    accepting: bool
    clients: Clients
    ages: Annotated[tuple[int, ...], Meta(description="minutes, the bounds of `hops.*.ages`")] = AGES
    queue: QueueStatistics
    rates: Rates
    latency: Latency
    connections: Connections
    hops: dict[str, Hop]
    hops_total: int
    sites: dict[str, Site]
    sites_total: int
    states: States
    sampled: Wall
    failures: list[Failure]
    suspensions: list[Suspension]
    suspensions_total: int
    actions: list[Action]
    trouble: list[Trouble]
    dropped: dict[str, int]


class Snapshot(Picture, frozen=True, kw_only=True):
    """All of it. `tick`: the number of this state."""

    kind: Literal["snapshot"]
    tick: int
    series: Series


_encode = msgspec.json.Encoder().encode
_builtins = msgspec.to_builtins


def patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What makes the one of the other (RFC 7396). Neither holds null."""
    changed: dict[str, Any] = {}
    for name, new in after.items():
        old = before.get(name)
        if old is new or old == new:
            continue
        if isinstance(new, dict) and isinstance(old, dict):
            changed[name] = patch(cast("dict[str, Any]", old), cast("dict[str, Any]", new))
        else:
            changed[name] = new
    for name in before:
        if name not in after:
            changed[name] = None
    return changed


def merge(state: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """What a client has after a delta."""
    merged = dict(state)
    for name, new in delta.items():
        if new is None:
            merged.pop(name, None)
        elif isinstance(new, dict):
            old = merged.get(name)
            merged[name] = merge(
                cast("dict[str, Any]", old) if isinstance(old, dict) else {}, cast("dict[str, Any]", new)
            )
        else:
            merged[name] = new
    return merged


class Feed:
    """`tick` 0 and empty until the first `advance`."""

    def __init__(self) -> None:
        self.tick = 0
        self._state: dict[str, Any] = {}
        self._snapshot = b""
        self._snapshot_of = -1
        self._samples: list[Sample] = []

    def advance(self, picture: Picture, sample: Sample | None = None) -> bytes:
        """The delta from the last picture to this one; `sample`: a second is over."""
        state: dict[str, Any] = _builtins(picture)
        changed = patch(self._state, state)
        self._state = state
        self.tick += 1
        if sample is not None:
            self._samples.append(sample)
            del self._samples[:-SERIES]
            changed["sample"] = sample
        return _encode({"kind": "delta", "tick": self.tick} | changed)

    def snapshot(self) -> bytes:
        """The whole picture at `tick`; made once for all who ask meanwhile."""
        if self._snapshot_of != self.tick:
            columns = {name: [getattr(one, name) for one in self._samples] for name in Sample.__struct_fields__}
            whole = {"kind": "snapshot", "tick": self.tick} | self._state | {"series": columns}
            self._snapshot, self._snapshot_of = _encode(whole), self.tick
        return self._snapshot
