"""what operators say of next hops, and what is known of them, outlives restarts and segments"""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from support.fake_files import FakeFiles
from support.queues import EXPIRE, SMALL, put, queue_on, unseal
from tripost.queue.errors import SpoolFull
from tripost.queue.message import Deferred, Delivered
from tripost.queue.notes import MOST, Notes

DOWN = {0: Deferred(451, "4.4.1", "no answer", destination=True)}


async def turn_over(queue: object, count: int) -> None:
    """Fill and empty segments."""
    for n in range(count):
        await put(queue, f"f{n}", "mx:other", content=b"x" * 60)  # type: ignore[arg-type]
        (lease,) = await queue.claim("mx:other", 1)  # type: ignore[attr-defined]
        await queue.settle(lease, {0: Delivered("relayed")})  # type: ignore[attr-defined]


@pytest.mark.parametrize("sealed", [True, False])
async def test_a_suspension_outlives_its_segment_and_a_restart(autojump_clock: MockClock, sealed: bool) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await queue.suspend("mx:a", reason="their wish")
        await turn_over(queue, 60)
        await trio.sleep(1)
        assert "0000000001.seg" not in files.names("spool/log")
    if not sealed:
        unseal(files)
    files.crash()
    async with queue_on(files) as queue:
        await put(queue, "m", "mx:a")  # comes after it
        assert not queue.claimable("mx:a")
        assert await queue.claim("mx:a", 1) == []
        assert queue.suspensions["mx:a"].reason == "their wish"
        assert await queue.resume("mx:a")
        assert not await queue.resume("mx:a")
        assert queue.next_ready() == "mx:a"
    files.crash()
    async with queue_on(files) as queue:
        assert queue.suspensions == {}
        assert len(await queue.claim("mx:a", 1)) == 1


async def test_a_suspension_ends_by_itself(autojump_clock: MockClock) -> None:
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "m", "mx:a")
        await queue.suspend("mx:a", until=queue._clock.now() + 100)
        while queue.next_ready() is not None:
            pass
        before = trio.current_time()
        await queue.wait_ready()
        assert trio.current_time() == pytest.approx(before + 100, abs=1)
        assert queue.next_ready() == "mx:a"


async def test_a_dead_next_hop_is_not_stormed_after_a_restart(autojump_clock: MockClock) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        for n in range(3):
            await put(queue, f"m{n}", "mx:a")
        (lease,) = await queue.claim("mx:a", 1)
        await queue.settle(lease, DOWN)
        await trio.sleep(2)  # notes are written
    files.crash()
    async with queue_on(files) as queue:
        assert not queue.claimable("mx:a")
        await trio.sleep(70)
        queue.next_ready()
        assert len(await queue.claim("mx:a", 3)) == 1  # the probe


async def test_what_is_suspended_expires_with_the_reason(autojump_clock: MockClock) -> None:
    seen: list[object] = []
    async with queue_on(FakeFiles(), seen=seen) as queue:  # type: ignore[arg-type]
        await put(queue, "m", "mx:a")
        await queue.suspend("mx:a", reason="lawyers")
        await trio.sleep(EXPIRE - 100)
        assert queue.statistics().reported == 0
        await trio.sleep(300)
        assert queue.statistics().reported == 1
        assert any("suspended: lawyers" in getattr(one, "reply", "") for one in seen)


async def test_watermarks_refuse_and_serve_again(autojump_clock: MockClock) -> None:
    files = FakeFiles()
    async with queue_on(files, replace(SMALL, most_messages=2, most_octets=60)) as queue:
        await put(queue, "a", "mx:a", "mx:b", content=b"x" * 40)
        with pytest.raises(SpoolFull, match="bytes"):
            await put(queue, "b", "mx:a", content=b"x" * 21)
        await put(queue, "c", "mx:a", content=b"x" * 20)
        with pytest.raises(SpoolFull, match="messages"):
            await put(queue, "d", "mx:a", content=b"")
        assert queue.statistics().octets == 60
    files.crash()
    async with queue_on(files, replace(SMALL, most_octets=60)) as queue:
        assert queue.statistics().octets == 60
        for hop in ("mx:a", "mx:a", "mx:b"):
            (lease,) = await queue.claim(hop, 1)
            await queue.settle(lease, {one.id: Delivered("relayed") for one in lease.recipients})
        assert queue.statistics().octets == 0
        await put(queue, "e", "mx:a", content=b"x" * 60)


def test_notes_are_bounded() -> None:
    notes = Notes()
    assert all(notes.put(f"n{n}", b"x") for n in range(MOST))
    assert not notes.put("one more", b"x")
    assert notes.put("n0", b"y")
    notes.apply(notes.take())
    assert not notes.pending
    assert notes.put("n1", b"")
    notes.apply(notes.take())
    assert notes.put("one more", b"x")
    assert not notes.put("too long", b"x" * 5000)
