"""which segment may go

Several writers take the numbers of their segments from one row. Ingress
processes write messages only; what becomes of them stands in the manager's
segments, which may have lower numbers than the messages' own. Pure.

Promise  a segment goes when none of its messages is queued, and only after every
         segment of which it says something: a void is said by the writer's next
         segment, so that a writer's go in order; a manager's segment speaks of
         what was there when the next one of the manager's began, so that it goes
         when all with lower numbers than that one have gone. No crash between two
         removals can bring back a message without its settlement.
         The highest of all stays: its number is how writers know which are new.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping


def next_to_go(
    live: Mapping[int, int], others: Mapping[int, int], growing: Collection[int], active: int
) -> int | None:
    """The segment that may be removed first; `live` in the order of the numbers, `active`: the manager's."""
    busy: set[int] = set()  # writers of which an older segment stays
    first = True
    for number, after in _pairs(live):
        writer = others.get(number)
        if after is None:
            return None
        if writer is None:
            if first and number < active and not live[number] and after not in others:
                return number
        elif not live[number] and number not in growing and writer not in busy:
            return number
        else:
            busy.add(writer)
        first = False
    return None


def _pairs(live: Mapping[int, int]) -> Iterator[tuple[int, int | None]]:
    """Each with the one that follows."""
    numbers = iter(live)
    one = next(numbers, None)
    while one is not None:
        after = next(numbers, None)
        yield one, after
        one = after


def in_the_way(live: Mapping[int, int], growing: Collection[int]) -> int | None:
    """A segment that an ingress process is writing and that is the oldest of all: it keeps the others."""
    oldest = next(iter(live), None)
    return oldest if oldest in growing else None
