"""the history's tables, and the statements that fill them

Each of these writes many rows at once: the sqlite3 module gives up Python's lock
once a statement, so that a statement per row would have it wait for the Trio
thread at every row. A row that is there already stays as it is.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

TABLES = """
CREATE TABLE IF NOT EXISTS message(
  num INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, accepted REAL NOT NULL, sender TEXT COLLATE NOCASE, client TEXT,
  account TEXT, size INTEGER, open INTEGER NOT NULL, ended REAL NOT NULL);
CREATE TABLE IF NOT EXISTS attempt(
  seq INTEGER PRIMARY KEY, time REAL NOT NULL, id TEXT NOT NULL, outcome TEXT NOT NULL, recipient_id INTEGER,
  recipient TEXT COLLATE NOCASE, next_hop TEXT, host TEXT, attempt INTEGER, reply TEXT, due REAL, report TEXT,
  transfer BLOB);
CREATE TABLE IF NOT EXISTS login(
  account TEXT PRIMARY KEY, time REAL NOT NULL, service TEXT, client TEXT) WITHOUT ROWID;
"""
# `num` and `seq` are the events' numbers, which grow with time: the tables are their own index by time
INDEXES = """
CREATE INDEX IF NOT EXISTS message_by_sender ON message(sender);
CREATE INDEX IF NOT EXISTS message_by_end ON message(ended) WHERE ended > 0;
CREATE INDEX IF NOT EXISTS attempt_by_id ON attempt(id);
CREATE INDEX IF NOT EXISTS attempt_by_recipient ON attempt(recipient);
CREATE INDEX IF NOT EXISTS attempt_by_destination ON attempt(next_hop);
"""
CHUNKS = (256, 64, 16, 4, 1)  # rows of a statement

# columns, statement; {} becomes a row of question marks for each row
MESSAGES = (9, "INSERT OR IGNORE INTO message VALUES {}")
ATTEMPTS = (13, "INSERT OR IGNORE INTO attempt VALUES {}")
ENDS = (
    3,
    """UPDATE message SET open = open - gone.column2,
  ended = CASE WHEN open <= gone.column2 THEN gone.column3 ELSE 0 END
FROM (VALUES {}) AS gone WHERE message.id = gone.column1""",
)
LOGINS = (
    4,
    """INSERT INTO login VALUES {} ON CONFLICT(account) DO UPDATE
SET time = excluded.time, service = excluded.service, client = excluded.client""",
)


@lru_cache
def statement(text: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return text.replace("{}", ", ".join([row] * rows))


def statements(what: tuple[int, str], values: list[Any]) -> list[tuple[str, list[Any]]]:
    """So many that all rows are written, each with what it binds."""
    columns, text = what
    found: list[tuple[str, list[Any]]] = []
    at, left = 0, len(values) // columns
    for rows in CHUNKS:
        while left >= rows:
            size = rows * columns
            found.append((statement(text, columns, rows), values[at : at + size]))
            at, left = at + size, left - rows
    return found
