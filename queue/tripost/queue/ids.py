"""names for messages

Promise  unique across restarts and, as texts, in the order of time: microseconds, a
         counter and a random part of this start, 18 characters of base 32.
Why      digits without I, L, O and U, so that an id can be read out on the telephone;
         looked up in pairs, because every message needs one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
RUN_BITS = 24
MARK = 4  # characters at the end of each that all ids of a run, and of few others, have in common


class Ids:
    """Call it for the next one; `now` gives wall-clock seconds, `run` the random part where it is known already."""

    def __init__(self, now: Callable[[], float], run: int | None = None) -> None:
        self._now = now
        self._count = 0
        self._run = new_run() if run is None else run

    def __call__(self) -> str:
        self._count += 1
        two = _PAIRS
        high = int(self._now() * 1e6) << 6 | (self._count >> 6 & 0x3F)
        low = (self._count & 0x3F) << RUN_BITS | self._run
        return (
            f"{two[high >> 50 & 1023]}{two[high >> 40 & 1023]}{two[high >> 30 & 1023]}{two[high >> 20 & 1023]}"
            f"{two[high >> 10 & 1023]}{two[high & 1023]}{two[low >> 20]}{two[low >> 10 & 1023]}{two[low & 1023]}"
        )


def new_run() -> int:
    """The random part of a start's ids; never 0."""
    return secrets.randbelow((1 << RUN_BITS) - 1) + 1


def mark_of(run: int) -> str:
    """The end of a run's ids."""
    return _PAIRS[run >> 10 & 1023] + _PAIRS[run & 1023]
