"""what the queue's users hold: settings, leases, figures"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tripost.queue.entries import Acceptance
from tripost.queue.message import Envelope, Failed, Recipient
from tripost.queue.retry import Schedule

# (failed message, its failures, its header's octets) → the DSN and its content, or None when none is to be sent
Reporter = Callable[[Envelope, list[tuple[Recipient, Failed]], bytes], tuple[Envelope, bytes] | None]


class QueueSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds and octets."""

    retry: Schedule = Schedule()
    expire: float = 432_000.0
    inline: int = 32_768
    segment_size: int = 64 << 20
    probe_first: float = 60.0
    probe_longest: float = 1800.0
    min_free: int = 1 << 30
    min_free_inodes: int = 10_000
    most_messages: int = 0  # 0 for no limit
    most_octets: int = 0
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


class QueueStatistics(msgspec.Struct, frozen=True):
    """Recipients since this start, but for `messages`, `queued`, `octets`, `leased`, `hops`, which are now.

    accepted + recovered = relayed + delivered + discarded + reported + suppressed + queued.
    """

    recovered: int
    accepted: int
    relayed: int
    delivered: int
    discarded: int
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
    reported: int = 0
    suppressed: int = 0
    deferrals: int = 0
