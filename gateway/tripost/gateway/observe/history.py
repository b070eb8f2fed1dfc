"""the history of a gateway: fed by the events, asked by operators

A reader of events (see `reader`) whose thread keeps a `HistoryStore`, and the
questions that the control socket asks it, each in a thread with a connection of
its own.

Promise  mail never waits for it. A database that cannot be opened, that is full,
         on a full disk or damaged costs history, which is counted and told; it
         is tried again with every batch, and opened again after `AGAIN` s.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from functools import partial
from typing import TypeVar

import trio

from tripost.gateway.observe.history_store import FILE, HistoryStore, damage, put_aside, read_only
from tripost.gateway.observe.past import About, Past, past_of
from tripost.gateway.observe.reader import Batch, Reader
from tripost.gateway.settings import Config

T = TypeVar("T")
AGAIN = 10.0  # seconds until a database that could not be opened is tried again
TIDY_EVERY = 60.0  # seconds
GATHER = 0.25  # seconds of events in one transaction
ASKERS = 4


class History(Reader):
    """`now`: wall-clock seconds."""

    def __init__(self, config: Config) -> None:
        super().__init__("history")
        self.path = os.path.join(config.state, FILE)
        self.off = config.history.keep <= 0
        self._keep, self._size, self._expire = config.history.keep, config.history.size, config.retry.expire
        self._store: HistoryStore | None = None
        self._opened_at = self._tidied_at = float("-inf")
        self._suspect = False
        self._askers = trio.CapacityLimiter(ASKERS)

    # --- the thread's side ---

    tick = TIDY_EVERY
    gather = GATHER

    def consume(self, batches: Sequence[Batch]) -> None:
        store = self._ready()
        try:
            store.write(b"".join([one.lines for one in batches]))
            store.shrink()
            self._tidy(store)
        except sqlite3.Error as wrong:
            if damage(wrong):
                self._put_aside(str(wrong))
            raise

    def idle(self) -> None:
        try:
            store = self._ready()
            self._tidy(store)
            if self._suspect and not store.sound():
                self._put_aside("a check found it")
        except (sqlite3.Error, OSError) as wrong:
            self.wrong = str(wrong)
        else:
            self.wrong = ""
        self._suspect = False

    def _ready(self) -> HistoryStore:
        """Raises sqlite3.Error, OSError."""
        if self._store is None:
            now = time.monotonic()
            if now - self._opened_at < AGAIN:
                raise OSError(self.wrong or "it could not be opened")
            self._opened_at = now
            try:
                self._store = self._open()
            except sqlite3.Error as wrong:
                if not damage(wrong):
                    raise
                self._put_aside(str(wrong))
                self._store = self._open()
        return self._store

    def _open(self) -> HistoryStore:
        return HistoryStore(self.path, keep=self._keep, size=self._size, expire=self._expire)

    def _put_aside(self, why: str) -> None:
        """Raises OSError."""
        store, self._store, self._opened_at = self._store, None, float("-inf")
        if store is not None:
            store.close()
        self.trouble = f"{self.path} is damaged ({why}): kept as {put_aside(self.path)}, a new one is begun"

    def _tidy(self, store: HistoryStore) -> None:
        now = time.monotonic()
        if now - self._tidied_at >= TIDY_EVERY:
            self._tidied_at = now
            store.forget_old(time.time())

    def end(self) -> None:
        if self._store is not None:
            self._store.close()

    # --- questions ---

    async def ask(self, about: About) -> AsyncGenerator[Past, None]:
        """What became of messages, the newest first. Raises sqlite3.Error. A disk that hangs keeps only a thread: who
        is cancelled goes, and the thread closes the database when it can."""
        rows, busy = _rows(self.path, about), True
        try:
            while (row := await self._in_thread(partial(next, rows, None))) is not None:
                busy = False
                yield row
                busy = True
            busy = False
        except sqlite3.Error as wrong:
            busy, self._suspect = False, self._suspect or damage(wrong)
            raise
        finally:
            if not busy:
                rows.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._askers, abandon_on_cancel=True)


def _rows(path: str, about: About) -> Generator[Past]:
    with read_only(path) as db:
        yield from past_of(db, about)
