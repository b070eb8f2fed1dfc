"""the queue: accept, claim, settle

The one owner of what is queued: its log, its schedule, its leases.

Promise  After `accept` returned, every recipient ends in exactly one durable
         settlement. A DSN is in the same record as the settlement that causes
         it. Attempts and due times survive restarts.
States   a recipient is waiting (in the schedule), leased, or settled.
Fails    SpoolError/SpoolFull from `accept` and `settle`; a failed settle puts
         the lease's recipients back, so that they are tried again.
Why      Decisions are made in sync code between two awaits, so that the
         schedule is never half-changed.
"""

from __future__ import annotations

import os
import random as stdlib_random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import trio

from tripost.queue import events, records
from tripost.queue.body import Body, BodyReader
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolError
from tripost.queue.events import Bus
from tripost.queue.files import Files, Handle, RealFiles
from tripost.queue.log import Log, RunSync, segment_name, translate
from tripost.queue.message import Deferred, Delivered, Envelope, Failed, Outcome, Recipient
from tripost.queue.recovery import (
    ACCEPT, SETTLE, Acceptance, Entry, Later, Recovered, Settlement, read_acceptance, recover, settle_entry,
)
from tripost.queue.retry import Schedule, spread
from tripost.queue.schedule import Hop

Reporter = Callable[[Envelope, list[tuple[Recipient, Failed]], bytes], tuple[Envelope, bytes] | None]

HEADER_LIMIT = 50 * 1024  # of the original that a DSN may quote
RECORD_READ = 64 * 1024  # one read takes in most records whole
_encode = msgspec.msgpack.Encoder().encode


class QueueSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds and octets."""

    retry: Schedule = Schedule()
    expire: float = 432_000.0
    inline: int = 32_768
    segment_size: int = 64 << 20
    probe_first: float = 60.0
    probe_longest: float = 1800.0
    min_free: int = 1 << 30


class Lease(msgspec.Struct, frozen=True):
    """The right, and the duty, to try `recipients` of one message once; `attempt` is 1-based."""

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    attempt: int
    next_hop: str


class QueueStatistics(msgspec.Struct, frozen=True):
    """Recipients since this start, but for `messages`, `queued`, `leased`, `hops`, which are now.

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
    leased: int
    hops: int


class _Work:
    """One entry of the schedule: the recipients of one message that share next hop and due time."""

    __slots__ = ("entry", "recipients")

    def __init__(self, entry: Entry, recipients: tuple[int, ...]) -> None:
        self.entry = entry
        self.recipients = recipients


class Queue:
    """Made by `open_queue`."""

    def __init__(
        self,
        folder: str,
        settings: QueueSettings,
        *,
        clock: Clock,
        bus: Bus,
        reporter: Reporter,
        files: Files,
        run_sync: RunSync,
        random: Callable[[], float],
        log: Log,
        recovered: Recovered,
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._clock = clock
        self._bus = bus
        self._reporter = reporter
        self._files = files
        self._run_sync = run_sync
        self._random = random
        self._log = log
        self._entries = recovered.entries
        self._segments: dict[int, int] = dict.fromkeys(recovered.segments, 0)  # live messages in each
        self._readers: dict[int, Handle] = {}
        self._hops: dict[str, Hop[_Work]] = {}
        self._changed = trio.Event()
        self._leased: dict[str, int] = {}
        self._id_count = 0
        self._counts = dict.fromkeys(
            ("accepted", "relayed", "delivered", "discarded", "reported", "suppressed", "deferrals"), 0
        )
        for entry in self._entries.values():
            self._count_in(entry)
            self._schedule(entry)
        self._recovered = sum(len(entry.recipients) for entry in self._entries.values())

    # --- taking mail in ---

    def new_id(self) -> str:
        """Unique across restarts: microseconds, a counter and randomness, 18 characters of base 32."""
        self._id_count += 1
        number = (int(self._clock.now() * 1e6) << 36) | ((self._id_count & 0xFFF) << 24) | secrets.randbits(24)
        digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
        return "".join(digits[(number >> shift) & 31] for shift in range(85, -1, -5))

    def new_body(self) -> Body:
        """Content to be filled; its file, if it needs one, is named by `accept`'s id later."""
        return Body(self._files, self._bodies, f"b{self.new_id()}", self._settings.inline, self._run_sync)

    @property
    def _bodies(self) -> str:
        return os.path.join(self._folder, "bodies")
