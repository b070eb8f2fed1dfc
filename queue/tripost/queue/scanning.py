"""looking at every queued delivery

An explicit scan that lets others run: a backlog of millions takes seconds.

Why      between pieces it sleeps. A task that only lets other tasks run keeps
         the interpreter's lock from the threads that write to the disk, for
         5 ms each time that one of them wants it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator

import trio

from tripost.queue.rows import GONE, Rows

SCAN = 20_000  # rows without a pause
PIECE = 4_000  # where more is done to each, some milliseconds
PAUSE = 0.001  # seconds between pieces


async def breathe() -> None:
    """Between two pieces."""
    await trio.sleep(PAUSE)


def pieces(rows: Rows, size: int = PIECE) -> Iterator[tuple[int, int]]:
    """Numbers of rows, from and to before; whoever goes through them lets other tasks run after each."""
    return ((start, min(start + size, len(rows))) for start in range(0, len(rows), size))


async def scan(rows: Rows, wanted: Callable[[int], bool]) -> AsyncGenerator[int, None]:
    """The queued deliveries whose message's place is wanted."""
    for start in range(0, len(rows), SCAN):
        for row, place in enumerate(rows.place[start : start + SCAN], start):
            if wanted(place) and not rows.flags[row] & GONE:
                yield row
        await breathe()
