"""the machine stops at every single I/O boundary; what was promised is there, and nothing else

Each life runs once to count its boundaries and then once for each of them and
for each way in which a disk may keep what was not synced; every other one with a
syncer, as Linux has one, or without.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator

import pytest
import trio
from trio.testing import MockClock

from support.fake_files import Crash, FakeFiles
from support.life import (
    EAGER,
    Accept,
    Act,
    Die,
    Life,
    Release,
    Reopen,
    Sleep,
    Step,
    Suspend,
    Undo,
    Work,
    between,
    queued,
)
from support.queues import queue_on
from tripost.queue.errors import SpoolError

POINTS: dict[tuple[str, str], int] = {}  # (how, life) → crashes tried
SECTOR = 512
REACH = 12  # boundaries after a failure at which the machine stops
BIG = 700  # more than what is kept inline
A, B = "mx:a", "mx:b"

LIVES: dict[str, list[Step]] = {
    "accept and deliver": [Accept((A,)), Accept((A,), BIG), Work(A, ("ok",)), Work(A, ("ok",))],
    "accept in one segment, settle in the next, drop the first": [
        *[Accept((A,), 40) for _ in range(8)],
        *[Work(A, ("ok",)) for _ in range(8)],
        Sleep(1),
        Accept((A,)),
    ],
    "several at once": [Accept((A,), 40, waiters=9), Work(A, ("ok",), 5), Accept((A,), BIG, waiters=3)],
    "a failure and its report are one": [Accept((A, A, B), BIG), Work(A, ("no", "ok")), Work("local", ("later",))],
    "recipients come apart": [
        Accept((A, A, A, B)),
        Work(A, ("ok", "later", "no")),
        Sleep(400),
        Work(A, ("later",)),
        Work(B, ("down",)),
        Sleep(30),
        Work(B, ("ok",)),
    ],
    "attempts are counted on": [
        Accept((A,)),
        Work(A, ("later",)),
        Sleep(400),
        Work(A, ("later",)),
        Sleep(1000),
        Work(A, ("later",)),
        Release(A),
    ],
    "hold and release": [
        Accept((A,)),
        Accept((B,), BIG),
        Act("hold", 0),
        Act("hold", 1),
        Work(A, ("ok",)),
        Act("release", 0),
        Work(A, ("ok",)),
    ],
    "deferred, held, and tried at once": [
        Accept((A, B), 20),
        Accept((A, A, B), 20),
        Work(A, ("later",), 1),
        Work(A, ("later", "ok"), 1),
        Accept((A,), 20, release=500),
        Act("hold", 0),
        Act("retry", 0),
        Work(A, ("later",), 3),
        Act("release", 0),
        *[Accept((B,), 400, waiters=2) for _ in range(2)],
        Sleep(11),
        Act("retry", 0),
        Work(A, ("ok",), 9),
    ],
    "bounced and deleted, but for what was taken back": [
        Accept((A, A), 30, null=True),
        Accept((A,), 30),
        Accept((B,), BIG),
        Act("bounce", 1),
        Act("delete", 0),
        Undo(),
        Work(A, ("later", "ok"), 3),
        Act("delete", 2),
        Act("bounce", 0, part=True),
        Sleep(110),
        *[Accept((B,), 400, waiters=2) for _ in range(2)],
        Work("local", ("ok",), 3),
        Work(B, ("ok",), 9),
        Sleep(11),
    ],
    "sent another way, later and sooner": [
        Accept((A, B), 30),
        Accept((A,), 30),
        Act("reroute", 0, B),
        Act("reroute", 1, "mx:c"),
        Act("priority", 0, "3", part=True),
        *[Accept((B,), 400, waiters=3) for _ in range(2)],
        Work(B, ("later", "down"), 2),
        Undo(),
        Sleep(120),
        Act("retry", 0),
        Work("mx:c", ("later",), 2),
        Work(B, ("ok",), 9),
        Sleep(11),
        Work(A, ("ok",), 9),
    ],
    "suspended in one segment, resumed in another": [
        Accept((A,)),
        Suspend(A),
        Suspend(B),
        Work(A, ("ok",)),
        *[Accept((B,), 400, waiters=3) for _ in range(3)],
        Suspend(B, False),
        Work(B, ("ok",), 9),
        Sleep(11),
        Suspend(A, False),
        Work(A, ("ok",)),
    ],
    "compaction at every step of a delivery": [
        *[Accept((A, B), n * 20) for n in range(4)],
        *[Accept((B,), 400, waiters=4) for _ in range(2)],
        Work(A, ("later",), 2),
        Sleep(11),
        Work(A, ("ok",)),
        Work(B, ("no",), 3),
        Sleep(11),
        Act("hold", 0),
        Sleep(11),
        Work(B, ("ok",), 9),
        Sleep(11),
    ],
    "taken in by two others": [
        Accept((B,), 30),
        Accept((A,), 30, writer=1),
        Accept((A, B), BIG, writer=2),
        Accept((A,), 30, waiters=3, writer=1),
        Work(A, ("ok", "later"), 3),
        Accept((B,), 30),
        Die(1),
        Sleep(2),
        Work(B, ("no",), 2),
    ],
    "the manager is away, and one of the others dies": [
        Accept((A,), 30, writer=1),
        Work(A, ("later",)),
        Reopen((Accept((A,), 300, waiters=3, writer=1), Accept((B,), BIG, writer=2), Accept((B,), 30, writer=1))),
        Die(1),
        Work(A, ("ok",), 2),
        Reopen((Accept((A,), 30, writer=2),)),
        Work(B, ("ok",), 9),
        Work(A, ("ok",), 9),
    ],
    "others' segments are settled in older ones, compacted and dropped": [
        Accept((A,), 400, waiters=3, writer=1),
        Accept((B,), 30, writer=2),
        Accept((A,), 400, waiters=4, writer=1),
        Work(A, ("ok",), 3),
        Accept((A,), 700, waiters=2),
        Accept((A,), 400, waiters=2, writer=1),
        Work(A, ("ok", "later"), 3),
        Sleep(25),
        Work(A, ("no",), 9),
        Accept((B,), 400, writer=2),
        Sleep(11),
        Work(B, ("ok",), 9),
        Work("local", ("ok",), 9),
        Sleep(11),
    ],
    "held, deferred and apart, then compacted twice": [
        Accept((A, A), 30, null=True),
        Accept((B, A), BIG),
        Accept((A,), 30, priority=3),
        Work(A, ("later", "ok"), 1),
        Act("hold", 1),
        *[Accept((B,), 500, waiters=3) for _ in range(3)],
        Sleep(11),
        Work(B, ("ok",), 20),
        Sleep(25),
        Act("release", 1),
        Work(A, ("ok",), 5),
        Sleep(11),
    ],
}


def torn(seed: int) -> Callable[[bytes, bytes], bytes]:
    """Any of the sectors that were written and not synced have come through, in any order."""
    chance = random.Random(seed)

    def keep(durable: bytes, now: bytes) -> bytes:
        size = chance.choice([len(durable), len(now), max(len(durable), len(now) // 2)])
        parts: list[bytes] = []
        for at in range(0, max(len(durable), len(now)), SECTOR):
            old, new = durable[at : at + SECTOR], now[at : at + SECTOR]
            parts.append((chance.choice([old, new])).ljust(SECTOR, b"\0"))
        return b"".join(parts)[:size]

    return keep


def ways(seed: int) -> Iterator[tuple[Callable[[bytes, bytes], bytes], bool]]:
    for entries in (False, True):
        yield (lambda durable, now: durable), entries
        yield (lambda durable, now: now), entries
        yield (lambda durable, now: durable + now[len(durable) :][: (len(now) - len(durable)) // 2]), entries
        yield torn(seed), entries
        yield torn(seed + 1), entries


def run(files: FakeFiles, steps: list[Step]) -> Life:
    """The life until its end or the crash."""
    life = Life()
    try:
        trio.run(life.live, files, steps, clock=MockClock(autojump_threshold=0))
    except BaseException as wrong:
        if not is_crash(wrong):
            raise
    return life


def is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(is_crash(one) for one in error.exceptions)
    return isinstance(error, (Crash, SpoolError, trio.Cancelled))


async def _survives(files: FakeFiles, life: Life) -> bool:
    async with queue_on(files, EAGER) as queue:
        found = await queued(queue)
    return between(found, life)


def survives(files: FakeFiles, life: Life) -> bool:
    return trio.run(_survives, files, life, clock=MockClock(autojump_threshold=0))


def boundaries(steps: list[Step]) -> int:
    """Of the longer of its two ways."""
    return max(_boundaries(steps, apart=True), _boundaries(steps, apart=False))


def _boundaries(steps: list[Step], *, apart: bool) -> int:
    files = FakeFiles(apart=apart)
    run(files, steps)
    return files.boundaries


def holds(files: FakeFiles, steps: list[Step], keep: Callable[[bytes, bytes], bytes], entries: bool) -> str:
    """Live, stop, open twice: "" or what went wrong."""
    life = run(files, steps)
    files.crash(keep, entries=entries)
    files.lies = frozenset()
    try:
        good = survives(files, life) and survives(files, life)
    except Exception as error:
        return f"in step {life.steps}: {error!r}"
    return "" if good else f"in step {life.steps}"


def crashes(name: str, lies: frozenset[str] = frozenset()) -> tuple[int, list[str]]:
    """Every boundary of a life, each way: (points tried, what went wrong)."""
    steps, tried, wrong = LIVES[name], 0, list[str]()
    for stop in range(boundaries(steps) + 1):
        for way, (keep, entries) in enumerate(ways(stop)):
            files = FakeFiles(apart=way % 2 == 0)
            files.stop_at, files.lies = stop, lies
            told = holds(files, steps, keep, entries)
            tried += 1
            if told:
                wrong.append(f"stopped at {stop}, way {way}, {told}")
    return tried, wrong


@pytest.mark.parametrize("name", LIVES)
def test_stop_at_every_boundary(name: str) -> None:
    tried, wrong = crashes(name)
    POINTS["stop", name] = tried
    print(f"{tried} crash points in '{name}'")
    assert wrong == []
    assert tried > 100


@pytest.mark.parametrize("lie", ["sync", "sync_folder", "late"])
def test_a_disk_that_lies_is_found_out(lie: str) -> None:
    _, wrong = crashes("accept and deliver", frozenset({lie}))
    assert wrong


def errors_then_crashes(name: str, number: int) -> tuple[int, list[str]]:
    """The disk fails once at every boundary, and the machine stops at each of those that follow."""
    steps, tried, wrong = LIVES[name], 0, list[str]()
    for fails in range(boundaries(steps)):
        files = FakeFiles(apart=fails % 2 == 0)
        files.fail_at[fails] = number
        run(files, steps)
        for stop in [*range(fails + 1, min(files.boundaries, fails + REACH)), -1]:
            keep, entries = list(ways(fails + stop))[stop % 8]
            again = FakeFiles(apart=fails % 2 == 0)
            again.fail_at[fails], again.stop_at = number, stop
            told = holds(again, steps, keep, entries)
            tried += 1
            if told:
                wrong.append(f"failed at {fails}, stopped at {stop}, {told}")
    return tried, wrong


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("name", LIVES)
def test_fail_and_stop_at_every_boundary(name: str, number: int) -> None:
    tried, wrong = errors_then_crashes(name, number)
    POINTS[f"errno {number}", name] = tried
    print(f"{tried} points of failure and crash in '{name}'")
    assert wrong == []


def test_how_many_points_that_were() -> None:
    print(f"{sum(POINTS.values())} crash points in {len(POINTS)} lives")
    assert len(POINTS) < 3 * len(LIVES) or sum(POINTS.values()) >= 10_000
