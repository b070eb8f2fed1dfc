"""sets of numbers as IMAP writes them: 1:3,5,7:*

Promise  a set has at most `MOST_RANGES` ranges; what it costs to look at is in
         the messages that there are, not in the numbers that it names.
Source   RFC 9051 §9 (sequence-set), RFC 5182 ($).
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

import msgspec

MOST_RANGES = 20_000
MOST = 0xFFFFFFFF
_RANGE = re.compile(rb"([0-9]{1,10}|\*)(?::([0-9]{1,10}|\*))?\Z")


class NumberSet(msgspec.Struct, frozen=True):
    """`ranges` of (lowest, highest); 0 stands for *, the highest there is. `saved`: it is $, the last search's."""

    ranges: tuple[tuple[int, int], ...] = ()
    saved: bool = False


def parse_set(text: bytes) -> NumberSet | None:
    """None where it is no set."""
    if text == b"$":
        return NumberSet(saved=True)
    parts = text.split(b",")
    if len(parts) > MOST_RANGES:
        return None
    ranges: list[tuple[int, int]] = []
    for part in parts:
        found = _RANGE.match(part)
        if found is None:
            return None
        low, high = _number(found[1]), _number(found[2] or found[1])
        if low is None or high is None:
            return None
        ranges.append((low, high))
    return NumberSet(tuple(ranges))


def _number(text: bytes) -> int | None:
    if text == b"*":
        return 0
    number = int(text)
    return number if 0 < number <= MOST else None


def spans(wanted: NumberSet, highest: int) -> list[tuple[int, int]]:
    """Its ranges in order, without overlaps, each low ≤ high; * is `highest`."""
    found: list[tuple[int, int]] = []
    for one in sorted(_ordered(low or highest, high or highest) for low, high in wanted.ranges):
        if found and one[0] <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], one[1])
        else:
            found.append(one)
    return found


def _ordered(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one <= other else (other, one)


def places(numbers: Sequence[int], wanted: list[tuple[int, int]]) -> list[int]:
    """Where in the growing `numbers` those of the spans `wanted` are."""
    found: list[int] = []
    for low, high in wanted:
        found.extend(range(bisect_left(numbers, low), bisect_right(numbers, high)))
    return found


def compact(numbers: Iterable[int]) -> str:
    """Growing numbers as a set: 1:3,5."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = ranges[-1][0], number
        else:
            ranges.append((number, number))
    return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in ranges)
