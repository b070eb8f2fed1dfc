"""what became of messages, in SQLite

One row for each message and one for each attempt, in transactions of many.

Promise  a damaged database is put aside (`history.db.damaged`, the last one is
         kept) and a new one begun. A batch is in it whole or not at all.
Bounds   messages that ended more than `keep` s ago go; where the file would grow
         over `size`, those that ended first go earlier. What never ended goes
         `keep` s after it must have.
Why      WAL with synchronous=NORMAL: a sync per checkpoint, none per batch. A power
         cut loses the last seconds of it, and leaves a database that is whole;
         with OFF it might not be.
Fails    sqlite3.Error, OSError: the batch was not stored.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from urllib.parse import quote

from tripost.gateway.observe.history_rows import Rows
from tripost.gateway.observe.history_sql import ATTEMPTS, ENDS, INDEXES, LOGINS, MESSAGES, TABLES, statements

FILE = os.path.join("history", "history.db")  # in state
VERSION = 1  # of the tables
PAGE = 4096
CHECKPOINT = 4000  # pages of the write-ahead log
CACHE = 32 << 10  # KiB
FULL, ENOUGH = 0.9, 0.85  # of the size: it is cut from the one to the other
STEP = 500  # messages that go in one transaction
SLACK = 86_400.0  # seconds after expiry until a message that never ended counts as ended
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_THE_ENDED = "SELECT num FROM message WHERE ended > ? ORDER BY ended"
_ALL = "SELECT num FROM message WHERE num > ? ORDER BY num"
_SUFFIXES = ("", "-wal", "-shm")


def damage(wrong: BaseException) -> bool:
    """Is it the database itself that is broken?"""
    return getattr(wrong, "sqlite_errorcode", 0) & 0xFF in DAMAGED


class HistoryStore:
    """One writer, in one thread. `keep` and `expire` in seconds, `size` in octets."""

    def __init__(self, path: str, *, keep: float, size: int, expire: float) -> None:
        """Raises sqlite3.Error, OSError."""
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._path = path
        self._keep = keep
        self._expire = expire
        self._size = size
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, isolation_level=None)
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise sqlite3.DatabaseError(f"{self._path} has tables of version {version}")
            for setting in (
                f"page_size = {PAGE}",
                "journal_mode = WAL",
                "synchronous = NORMAL",
                f"wal_autocheckpoint = {CHECKPOINT}",
                f"journal_size_limit = {2 * CHECKPOINT * PAGE}",
                f"cache_size = -{CACHE}",
                f"max_page_count = {max(64, self._size // PAGE)}",
            ):
                db.execute(f"PRAGMA {setting}")
            db.executescript(f"BEGIN; {TABLES} {INDEXES} PRAGMA user_version = {VERSION}; COMMIT;")
        except BaseException:
            db.close()
            raise
        return db

    def write(self, lines: bytes) -> None:
        """Events as JSON, all of them or none. Raises sqlite3.Error."""
        db, rows = self._db, Rows(lines)
        db.execute("BEGIN")
        try:
            for what, values in (
                (MESSAGES, rows.messages),
                (ATTEMPTS, rows.attempts),
                (ENDS, rows.ends),
                (LOGINS, rows.logins),
            ):
                for statement, bound in statements(what, values):
                    db.execute(statement, bound)
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    @property
    def used(self) -> int:
        """Octets of the database that hold something."""
        return (self._pragma("page_count") - self._pragma("freelist_count")) * PAGE

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def forget_old(self, now: float) -> None:
        """Messages whose time here is over. Raises sqlite3.Error."""
        ended, begun = now - self._keep, now - self._keep - self._expire - SLACK
        while self._forget("SELECT num FROM message WHERE ended > 0 AND ended < ? ORDER BY ended", ended):
            pass
        while self._forget("SELECT num FROM message WHERE accepted < ? ORDER BY num", begun):
            pass
        old = "DELETE FROM attempt WHERE seq IN (SELECT seq FROM attempt WHERE seq < ? ORDER BY seq LIMIT ?)"
        while self._db.execute(old, (int(begun * 1e6), STEP)).rowcount == STEP:
            pass

    def shrink(self) -> None:
        """To its size, where it is near it: the ended go first, and of those the oldest. Raises sqlite3.Error."""
        if self.used <= FULL * self._size:
            return
        while self.used > ENOUGH * self._size:
            if not self._forget(_THE_ENDED, 0.0) and not self._forget(_ALL, 0.0):
                old = "DELETE FROM attempt WHERE seq IN (SELECT seq FROM attempt ORDER BY seq LIMIT ?)"
                if not self._db.execute(old, (STEP,)).rowcount:
                    return

    def _forget(self, chosen: str, bound: float) -> int:
        """How many messages went."""
        db = self._db
        some = f"({chosen} LIMIT {STEP})"
        db.execute("BEGIN")
        try:
            ids = f"(SELECT id FROM message WHERE num IN {some})"
            db.execute(f"DELETE FROM attempt WHERE id IN {ids}", (bound,))
            count = db.execute(f"DELETE FROM message WHERE num IN {some}", (bound,)).rowcount
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return count

    def sound(self) -> bool:
        """Looks at every page."""
        try:
            return bool(self._db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
        except sqlite3.DatabaseError:
            return False

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._db.close()


def put_aside(path: str) -> str:
    """Where the damaged database is now. Raises OSError."""
    aside = f"{path}.damaged"
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            os.replace(path + suffix, aside + suffix)
    return aside


def read_only(path: str) -> closing[sqlite3.Connection]:
    """Beside the writer, or without one. Raises sqlite3.Error."""
    db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, check_same_thread=False)
    db.row_factory = sqlite3.Row
    return closing(db)
