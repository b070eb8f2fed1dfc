"""looking at every queued delivery

An explicit scan that lets other tasks run: a backlog of millions takes seconds.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator

import trio

from tripost.queue.rows import GONE, Rows

SCAN = 20_000  # rows without a pause
PIECE = 5_000  # where more is done to each


def pieces(rows: Rows) -> Iterator[tuple[int, int]]:
    """Numbers of rows, from and to before; whoever goes through them lets other tasks run after each."""
    return ((start, min(start + PIECE, len(rows))) for start in range(0, len(rows), PIECE))


async def scan(rows: Rows, wanted: Callable[[int], bool]) -> AsyncGenerator[int, None]:
    """The queued deliveries whose message's place is wanted."""
    for start in range(0, len(rows), SCAN):
        for row, place in enumerate(rows.place[start : start + SCAN], start):
            if wanted(place) and not rows.flags[row] & GONE:
                yield row
        await trio.lowlevel.checkpoint()
