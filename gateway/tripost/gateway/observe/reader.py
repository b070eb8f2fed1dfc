"""one reader of events: a bounded buffer, and a thread that may take its time

Promise  `offer` never waits. What does not fit, and what the thread could not
         store, is counted; whoever is stuck in a write is waited for by nobody,
         not even at the end.
Bounds   `most` octets of encoded events wait, or one batch; what is being written
         counts too.
Why      a thread of our own and not one of Trio's: a write to a pipe that nobody
         reads cannot be cancelled, and Trio's end would wait for it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tripost.queue.events import AnyEvent, Event

MOST = 8 << 20
_encode_lines = msgspec.json.Encoder().encode_lines
_decode_lines = msgspec.json.Decoder(AnyEvent).decode_lines
Kinds = dict[type[Event], list[Any]]


def by_kind(events: Iterable[Event]) -> Kinds:
    """Those of each kind, in their order."""
    found: defaultdict[type[Event], list[Any]] = defaultdict(list)
    for one in events:
        found[type(one)].append(one)
    return found


class Batch:
    """`count` events in their order, whose numbers follow on each other up to `last`; `lines` are they as JSON, encoded
    once for all readers.

    Octets, not events: those that wait for a quarter of a second, or lie in a ring, would be megabytes of small
    objects, and take the caches from everything else (a tenth of the CPU of a message)."""

    __slots__ = ("count", "last", "lines")

    def __init__(self, lines: bytes, count: int, last: int) -> None:
        self.lines, self.count, self.last = lines, count, last

    @classmethod
    def of(cls, events: Sequence[Event]) -> Batch:
        return cls(_encode_lines(events), len(events), events[-1].seq if events else 0)

    @property
    def first(self) -> int:
        return self.last - self.count + 1

    @property
    def events(self) -> list[Event]:
        """Decoded each time."""
        return list(_decode_lines(self.lines))


class ReaderStatistics(msgspec.Struct, frozen=True):
    """Events since the start; `waiting` in octets; `wrong`: why the last write failed, "" when it did not."""

    name: str
    taken: int
    dropped: int
    waiting: int
    wrong: str


class Reader:
    """`start`, `offer`, `close`; what a reader does with a batch is `consume`, in the thread."""

    tick: float | None = None  # seconds
    gather = 0.0  # seconds between two writes, where many batches come: `consume` has them all; 0: one by one

    def __init__(self, name: str, most: int = MOST) -> None:
        self.name = name
        self._most = most
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"tripost {name}", daemon=True)
        self._closing = threading.Event()
        # each number has one writer: the two threads share no lock
        self._put = self._full = 0  # octets, events
        self._done = self._lost = self._taken = 0
        self._began = float("-inf")  # the last write
        self.wrong = ""
        self.trouble = ""  # to be told once, by whoever takes it away

    # --- Trio's side ---

    def start(self) -> None:
        self._thread.start()

    def offer(self, batch: Batch) -> None:
        size = len(batch.lines)
        waiting = self._put - self._done
        if (waiting and waiting + size > self._most) or not self._thread.is_alive():
            self._full += batch.count
            return
        self._put += size
        self._queue.put(batch)

    def close(self, patience: float) -> None:
        """Take what waits, for so many seconds; then it is given up."""
        if self._thread.ident is None:
            return
        self._closing.set()
        self._queue.put(None)
        self._thread.join(patience)

    @property
    def waiting(self) -> int:
        return self._put - self._done

    @property
    def dropped(self) -> int:
        return self._full + self._lost

    @property
    def roomy(self) -> bool:
        """It can take much again."""
        return self.waiting <= self._most // 2 and not self.wrong

    def statistics(self) -> ReaderStatistics:
        return ReaderStatistics(self.name, self._taken, self.dropped, self.waiting, self.wrong)

    # --- the thread's side ---

    def _run(self) -> None:
        ended = False
        while not ended:
            try:
                batch = self._queue.get(timeout=self.tick)
            except queue.Empty:
                self.idle()
                continue
            batches, ended = self._gathered(batch)
            if not batches:
                break
            count, size = sum([one.count for one in batches]), sum([len(one.lines) for one in batches])
            try:
                self.consume(batches)
            except Exception as wrong:  # a reader must not end for one event, and nobody else for a reader
                self.wrong = getattr(wrong, "strerror", None) or str(wrong) or type(wrong).__name__
                self._lost += count
            else:
                self.wrong = ""
                self._taken += count
            self._done += size
        self.end()

    def _gathered(self, first: Batch | None) -> tuple[list[Batch], bool]:
        """Batches that are written at once, and whether they are the last."""
        found: list[Batch] = []
        one = first
        if one is not None and self.gather:
            self._closing.wait(max(0.0, self._began + self.gather - time.monotonic()))  # at once, where it was quiet
            self._began = time.monotonic()
        while one is not None:
            found.append(one)
            if not self.gather:
                return found, False
            try:
                one = self._queue.get_nowait()
            except queue.Empty:
                return found, False
        return found, True

    def consume(self, batches: Sequence[Batch]) -> None:
        """Raises whatever went wrong: the batches count as lost then."""
        raise NotImplementedError

    def idle(self) -> None:
        """Nothing came for `tick` s. Must not raise."""

    def end(self) -> None:
        """After the last batch. Must not raise."""
