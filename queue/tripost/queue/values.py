"""what the queue's users hold: settings, leases, figures"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tripost.queue.entries import Acceptance
from tripost.queue.message import Envelope, News, Recipient
from tripost.queue.retry import Schedule

# (message, what is to be told, its header or, for RET=FULL, all of it) → the DSN and its content, or None for none
Reporter = Callable[[Envelope, list[News], bytes], tuple[Envelope, bytes] | None]

Probes = tuple[float, float]  # seconds: the first and the longest pause of what cannot be spoken to


class QueueSettings(msgspec.Struct, kw_only=True):
    """Seconds and octets. Whoever made it may change `retry`, `expire`, `warn`, `ret` and `most_original` while the
    queue is open: they are looked at anew for every attempt."""

    retry: Schedule = Schedule()
    expire: float = 432_000.0
    warn: float = 0.0  # after so long the sender is told once that it is not delivered yet; 0: never
    ret: str = "HDRS"  # what a report quotes where the sender did not say
    most_original: int = 50 << 10  # octets of the original that a report may quote
    inline: int = 131_072
    segment_size: int = 64 << 20
    probe_first: float = 60.0
    probe_longest: float = 1800.0
    min_free: int = 1 << 30
    min_free_inodes: int = 10_000
    most_messages: int = 0  # 0 for no limit
    most_octets: int = 0
    unannounced: int = 256 << 20  # octets that an ingress process may be ahead of the manager
    compact_ratio: float = 2.0  # the log may hold this many times what is queued…
    compact_slack: int = 4  # …and so many segments more


class Lease(msgspec.Struct, frozen=True, eq=False):
    """The right, and the duty, to try `recipients` of one message once; `attempt` is 1-based.

    `row` and `message` are the queue's own: which queued delivery this is, and what was stored.
    """

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    attempt: int
    next_hop: str
    row: int
    message: Acceptance
    warned: bool = False  # the sender was told that it is late


class QueueStatistics(msgspec.Struct, frozen=True):
    """Recipients since this start, but for `messages`, `queued`, `octets`, `leased`, `hops`, which are now.

    accepted + recovered = relayed + delivered + discarded + deleted + reported + suppressed + queued.
    """

    recovered: int
    accepted: int
    relayed: int
    delivered: int
    discarded: int
    deleted: int
    reported: int
    suppressed: int
    deferrals: int
    messages: int
    queued: int
    octets: int
    leased: int
    hops: int


class Counts(msgspec.Struct):
    """The counters behind `QueueStatistics`; plain integers, because the hot path raises them."""

    accepted: int = 0
    relayed: int = 0
    delivered: int = 0
    discarded: int = 0
    deleted: int = 0
    reported: int = 0
    suppressed: int = 0
    deferrals: int = 0
