"""the machine stops at every single I/O boundary; what was promised is there"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from support.fake_files import Crash, FakeFiles
from support.queues import put, queue_on
from tripost.queue.errors import SpoolError
from tripost.queue.message import Deferred, Delivered, Failed

KEEPS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "synced only": lambda durable, now: durable,
    "all written": lambda durable, now: now,
    "half written": lambda durable, now: durable + now[len(durable) :][: (len(now) - len(durable)) // 2],
}


class Promises:
    """What the outside world was told: ids accepted, (id, recipient) ended."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.ended: set[str] = set()
        self.maybe: set[str] = set()


async def _life(files: FakeFiles, told: Promises) -> None:
    async with queue_on(files) as queue:
        for n, content in enumerate([b"small\r\n", b"L" * 500, b"tiny\r\n", b"M" * 900]):
            await put(queue, f"m{n}", "mx:a", content=content)
            told.accepted.add(f"m{n}")
        outcomes = [
            Delivered("relayed"),
            Failed(550, "5.1.1", "no"),
            Deferred(451, "4.3.0", "wait"),
            Delivered("relayed"),
        ]
        for lease, outcome in zip(await queue.claim("mx:a", 9), outcomes, strict=True):
            if not isinstance(outcome, Deferred):
                told.maybe.add(lease.envelope.id)
            await queue.settle(lease, {0: outcome})
            if not isinstance(outcome, Deferred):
                told.ended.add(lease.envelope.id)


async def _survivors(files: FakeFiles) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    async with queue_on(files) as queue:
        rows = queue._ledger.rows
        for row in list(rows.live()):
            lease = await queue.lease_of(row)
            reader = await queue.open_body(lease)
            found[lease.envelope.id] = await reader.read(9999)
            reader.close()
    return found


def _boundaries() -> int:
    files = FakeFiles()
    trio.run(_life, files, Promises())
    return files.boundaries


@pytest.mark.parametrize("keep", KEEPS)
def test_stop_at_every_boundary(keep: str) -> None:
    total = _boundaries()
    assert total > 30
    for stop in range(total):
        files, told = FakeFiles(), Promises()
        files.stop_at = stop
        with pytest.raises(BaseException) as info:  # noqa: PT011 - Crash, inside of as many groups as nurseries
            trio.run(_life, files, told)
        assert _is_crash(info.value), info.value
        files.crash(KEEPS[keep])
        found = trio.run(_survivors, files)
        missing = told.accepted - told.maybe - set(found)
        assert not missing, (stop, missing)
        assert not told.ended & set(found), (stop, found.keys())
        if "m1" in told.ended:
            assert "Rm1-0" in found, stop  # its failure is reported
        for id, content in found.items():
            if id.startswith("m"):
                assert content in (b"small\r\n", b"L" * 500, b"tiny\r\n", b"M" * 900)
        assert trio.run(_survivors, files) == found  # a second start finds the same


def _is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_crash(one) for one in error.exceptions)
    return isinstance(error, (Crash, SpoolError, trio.Cancelled))
