"""how much a mailbox holds: octets and messages, of all of its folders

Figures are kept per folder and believed as long as the folder has not been
changed by anybody else (its modification time), at most for BELIEVED seconds.

Promise  `known` costs a few stat calls and never reads a folder, so that RCPT
         may ask; `measure` reads what has changed. Both are blocking.
Why      File sizes are in the names that we and Dovecot give (S=): a mailbox of
         100,000 is counted without a stat for each.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict

import msgspec

from tripost.delivery.mailbox.uids import base_of, file_size

BELIEVED = 600.0  # seconds
MOST = 10_000  # mailboxes whose figures are kept


class Figure(msgspec.Struct):
    """Of one folder's new or cur, as it was when its modification time was `stamp`."""

    stamp: int
    octets: int = 0
    messages: int = 0


class _Box(msgspec.Struct):
    counted: float
    figures: dict[str, Figure]


class Usage:
    """Of the mailboxes below one folder; for one thread at a time, `known` for any."""

    def __init__(self) -> None:
        self._boxes: OrderedDict[str, _Box] = OrderedDict()

    def known(self, box: str) -> tuple[int, int] | None:
        """Octets and messages, None when they would have to be counted."""
        found = self._boxes.get(box)
        if found is None or time.monotonic() - found.counted > BELIEVED:
            return None
        for path, figure in found.figures.items():
            if _stamp(path) != figure.stamp:
                return None
        return _sum(found)

    def measure(self, box: str) -> tuple[int, int]:
        """Raises OSError."""
        found = self._boxes.pop(box, None)
        if found is None or time.monotonic() - found.counted > BELIEVED:
            found = _Box(time.monotonic(), {})
        figures: dict[str, Figure] = {}
        for path in _parts(box):
            stamp, old = _stamp(path), found.figures.get(path)
            figures[path] = old if old is not None and old.stamp == stamp else _count(path, stamp)
        found.figures = figures
        self._boxes[box] = found
        while len(self._boxes) > MOST:
            self._boxes.popitem(last=False)
        return _sum(found)

    def begin(self, box: str, path: str) -> bool:
        """Before we change `path`, which is in `box`: is its figure right?"""
        found = self._boxes.get(box)
        return found is not None and path in found.figures and found.figures[path].stamp == _stamp(path)

    def changed(self, box: str, path: str, octets: int, messages: int) -> None:
        """We changed it, and `begin` said yes."""
        found = self._boxes.get(box)
        if found is not None and path in found.figures:
            old = found.figures[path]
            # replaced, not altered: `known` may be reading in another thread
            found.figures[path] = Figure(_stamp(path), old.octets + octets, old.messages + messages)


def _sum(box: _Box) -> tuple[int, int]:
    figures = list(box.figures.values())
    return sum(one.octets for one in figures), sum(one.messages for one in figures)


def _stamp(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1


def _parts(box: str) -> list[str]:
    try:
        with os.scandir(box) as entries:
            folders = [one.path for one in entries if one.name.startswith(".") and one.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        folders = []
    return [os.path.join(folder, part) for folder in (box, *folders) for part in ("new", "cur")]


def _count(path: str, stamp: int) -> Figure:
    figure = Figure(stamp)
    try:
        entries = os.scandir(path)
    except FileNotFoundError:
        return figure
    with entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            size = file_size(base_of(entry.name))
            try:
                figure.octets += size if size is not None else entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
            figure.messages += 1
    return figure
