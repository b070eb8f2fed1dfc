"""accept, claim, settle, recover: on a disk that forgets"""

from __future__ import annotations

import errno
import os

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from support.fake_files import FakeFiles, FakeHandle
from support.queues import SMALL, put, queue_on, unseal
from tripost.queue import events
from tripost.queue.errors import SpoolDamaged, SpoolError, SpoolFull, SpoolLocked, SpoolUnsure
from tripost.queue.events import Event
from tripost.queue.message import Deferred, Delivered, Failed, Outcome

OK = Delivered("relayed", "250 ok", "mx.example")
LATER = Deferred(451, "4.3.0", "not now", "mx.example")
DOWN = Deferred(451, "4.4.1", "no answer", destination=True)
NO = Failed(550, "5.1.1", "no such user", "mx.example")


async def _read(queue, lease) -> bytes:  # type: ignore[no-untyped-def]
    reader = await queue.open_body(lease)
    parts = []
    while part := await reader.read(16):
        parts.append(part)
    reader.close()
    return b"".join(parts)


@pytest.mark.parametrize("size", [0, 10, 64, 65, 5000])
async def test_content_comes_back_as_it_went_in(size: int) -> None:
    files = FakeFiles()
    content = bytes(n % 251 for n in range(size))
    async with queue_on(files) as queue:
        await put(queue, "A", "mx:a", content=content)
        (lease,) = await queue.claim("mx:a", 5)
        assert await _read(queue, lease) == content
        queue.release(lease)
    files.crash()
    async with queue_on(files) as queue:
        (lease,) = await queue.claim("mx:a", 5)
        assert await _read(queue, lease) == content
        await queue.settle(lease, {0: OK})
        assert files.names("spool/bodies") == []
        assert queue.statistics().queued == 0


async def test_waiters_share_one_sync() -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "first", "mx:a")
        before = files.syncs
        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(put, queue, f"m{n}", "mx:a")
        assert files.syncs - before <= 4  # one batch, and at most what a new segment costs
        assert queue.statistics().accepted == 51


async def test_each_hop_gives_its_own_recipients() -> None:
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "A", "mx:a", "mx:b", "mx:a")
        assert sorted(queue.ready()) == ["mx:a", "mx:b"]
        (a,) = await queue.claim("mx:a", 9)
        (b,) = await queue.claim("mx:b", 9)
        assert [one.id for one in a.recipients] == [0, 2]
        assert [one.id for one in b.recipients] == [1]
        await queue.settle(a, {0: OK, 2: LATER})
        await queue.settle(b, {1: OK})
        assert queue.statistics().queued == 1
        assert queue.ready() == []


async def test_deferred_comes_back_when_due_and_counts(autojump_clock: MockClock) -> None:
    seen: list[Event] = []
    async with queue_on(FakeFiles(), seen=seen) as queue:
        await put(queue, "A", "mx:a")
        start = trio.current_time()
        for attempt in range(1, 5):
            while not queue.ready():
                await queue.wait_ready()
            (lease,) = await queue.claim("mx:a", 1)
            assert lease.attempt == attempt
            await queue.settle(lease, {0: LATER})
        assert trio.current_time() - start == pytest.approx(300 + 600 + 1200, abs=1)
        delays = [one.delay for one in seen if isinstance(one, events.DeferredUntil)]
        assert delays == pytest.approx([300, 600, 1200, 2400])


async def test_a_dead_destination_is_probed_by_one_and_keeps_attempts(autojump_clock: MockClock) -> None:
    seen: list[Event] = []
    async with queue_on(FakeFiles(), seen=seen) as queue:
        for n in range(5):
            await put(queue, f"m{n}", "mx:a")
        leases = await queue.claim("mx:a", 2)
        for lease in leases:
            await queue.settle(lease, {0: DOWN})
        assert [one.failures for one in seen if isinstance(one, events.BackedOff)] == [1]
        assert queue.ready() == []
        await queue.wait_ready()
        assert trio.current_time() == pytest.approx(60)
        (probe,) = await queue.claim("mx:a", 5)
        assert probe.attempt == 1
        assert await queue.claim("mx:a", 5) == []
        await queue.settle(probe, {0: OK})
        assert len(await queue.claim("mx:a", 5)) == 4


async def test_what_waits_behind_a_dead_destination_expires(autojump_clock: MockClock) -> None:
    seen: list[Event] = []
    async with queue_on(FakeFiles(), seen=seen) as queue:
        await put(queue, "A", "mx:a")
        await put(queue, "B", "mx:a", sender="")
        with trio.fail_after(6 * 86400):
            while queue.statistics().queued > 1 or queue.ready() != ["local"]:
                for lease in await queue.claim("mx:a", 1):
                    await queue.settle(lease, {0: DOWN})
                await queue.wait_ready()
                queue.ready()
        assert trio.current_time() == pytest.approx(432_000, abs=2000)
        failed = {one.id: one.report for one in seen if isinstance(one, events.Bounced)}
        assert failed["B"] == ""
        assert failed["A"]
        assert "4.4.7" in next(one.reply for one in seen if isinstance(one, events.Bounced))
        assert queue.statistics().suppressed == 1


async def test_failure_and_report_are_one_record() -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "A", "mx:a", content=b"Subject: told\r\n\r\n" + b"x" * 100)
        (lease,) = await queue.claim("mx:a", 1)
        before = files.syncs
        await queue.settle(lease, {0: NO})
        assert files.syncs - before == 1
    files.crash()
    async with queue_on(files) as queue:
        (report,) = await queue.claim("local", 1)
        assert report.envelope.sender == ""
        assert b"Subject: told" in await _read(queue, report)
        await queue.settle(report, {0: NO})  # never a report about a report
        assert queue.statistics().queued == 0
        assert queue.statistics().suppressed == 1


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, SpoolFull), (errno.EIO, SpoolError)])
@pytest.mark.parametrize("boundary", ["write", "sync"])
async def test_a_failing_disk_refuses_then_serves_again(number: int, kind: type[SpoolError], boundary: str) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "A", "mx:a")
        files.fail[boundary] = number
        with pytest.raises(kind):
            await put(queue, "B", "mx:a")
        await put(queue, "C", "mx:a")
    # what the failed sync covered may be on the disk after all: the void says that nobody was promised it
    files.crash(lambda durable, now: now)
    async with queue_on(files) as queue:
        assert [one.envelope.id for one in await queue.claim("mx:a", 9)] == ["A", "C"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("boundary", ["write", "sync", "synced"])
async def test_a_settlement_is_written_again_until_the_disk_takes_it(
    number: int, boundary: str, autojump_clock: MockClock
) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "A", "mx:a")
        (lease,) = await queue.claim("mx:a", 1)
        files.fail[boundary] = number
        await queue.settle(lease, {0: OK})
        assert queue.statistics().leased == queue.statistics().queued == 0
    async with queue_on(files) as queue:
        assert queue.statistics().queued == 0


async def test_a_disk_that_takes_not_even_a_void_leaves_clients_without_a_reply(autojump_clock: MockClock) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "A", "mx:a")
        files.fail_for_good = {"sync": errno.EIO}
        with pytest.raises(SpoolUnsure):
            await put(queue, "B", "mx:a")
        assert not queue.accepting
        with pytest.raises(SpoolError, match="no new segment"):
            await put(queue, "C", "mx:a")
        (lease,) = await queue.claim("mx:a", 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.settle, lease, {0: OK})
            await trio.sleep(5)
            assert queue.statistics().leased == 1
            files.fail_for_good = {}
        assert queue.accepting
        await put(queue, "D", "mx:a")
    files.crash(lambda durable, now: now)
    async with queue_on(files) as queue:
        assert [one.envelope.id for one in await queue.claim("mx:a", 9)] == ["D"]


async def test_min_free_refuses_mail_but_not_settlements() -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "A", "mx:a")
        files.room = -1
        with pytest.raises(SpoolFull):
            await put(queue, "B", "mx:a")
        (lease,) = await queue.claim("mx:a", 1)
        await queue.settle(lease, {0: OK})


async def test_a_second_queue_on_the_folder_is_refused() -> None:
    files = FakeFiles()
    async with queue_on(files):
        with pytest.raises(SpoolLocked):
            async with queue_on(files):
                pass


async def test_empty_segments_go() -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        for n in range(40):
            await put(queue, f"m{n}", "mx:a")
        assert len(files.names("spool/log")) > 1
        for lease in await queue.claim("mx:a", 99):
            await queue.settle(lease, {0: OK})
        assert "0000000001.seg" not in files.names("spool/log")
    files.crash()
    async with queue_on(files) as queue:
        assert queue.statistics().queued == 0


@pytest.mark.parametrize("sealed", [True, False])
async def test_a_damaged_record_is_reported_and_the_rest_found(sealed: bool) -> None:
    files, seen = FakeFiles(), list[Event]()
    async with queue_on(files) as queue:
        for n in range(3):
            await put(queue, f"m{n}", "mx:a")
    name = os.path.join("spool/log", files.names("spool/log")[0])
    at = files.content(name).find(b"m1")
    files.content(name)[at] ^= 0xFF
    if not sealed:
        unseal(files)
    async with queue_on(files, seen=seen) as queue:
        assert {one.envelope.id for one in await queue.claim("mx:a", 9)} == {"m0", "m2"}
    where = "spool" if sealed else "recovery"  # a sealed segment's bodies are not read at the start
    assert [one.where for one in seen if isinstance(one, events.Trouble)] == [where]


async def test_copies_of_records_in_a_body_behind_a_damaged_one_yield_nothing() -> None:
    files, seen = FakeFiles(), list[Event]()
    async with queue_on(files) as queue:
        await put(queue, "m0", "mx:a")
        segment = bytes(files.content("spool/log/0000000001.seg"))
        big = replace(SMALL, inline=1 << 20, segment_size=1 << 20)
    async with queue_on(files, big) as queue:
        whole = segment + bytes(7) + segment  # with and without alignment
        await put(queue, "m1", "mx:a", content=whole)
        own = bytes(files.content("spool/log/0000000002.seg"))[:4096]
        await put(queue, "m2", "mx:a", content=own + own[32:])
        await put(queue, "m3", "mx:a")
    content = files.content("spool/log/0000000002.seg")
    for id in (b"m1", b"m2"):  # the headers of the records around the copies
        content[content.find(b"\xa2" + id) - 8] ^= 0xFF
    unseal(files)
    async with queue_on(files, big, seen=seen) as queue:
        assert sorted(one.envelope.id for one in await queue.claim("mx:a", 9)) == ["m0", "m3"]
    (trouble,) = [one for one in seen if isinstance(one, events.Trouble)]
    assert trouble.where == "recovery"


async def test_an_older_format_is_refused() -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "m0", "mx:a")
    files.content("spool/log/0000000001.seg")[7:8] = b"1"
    with pytest.raises(SpoolDamaged, match="version"):
        async with queue_on(files):
            pass


async def test_a_record_that_cannot_be_read_any_more_is_kept_and_told(autojump_clock: MockClock) -> None:
    files, seen = FakeFiles(), list[Event]()
    async with queue_on(files, seen=seen) as queue:
        await put(queue, "A", "mx:a")
        [lease] = await queue.claim("mx:a", 1)  # from memory, the first time
        queue.release(lease)
        name = os.path.join("spool/log", files.names("spool/log")[0])
        files.content(name)[60] ^= 0xFF
        assert await queue.claim("mx:a", 1) == []
        files.content(name)[60] ^= 0xFF
        await queue.wait_ready()
        assert len(await queue.claim("mx:a", 1)) == 1
    assert [one.where for one in seen if isinstance(one, events.Trouble)] == ["spool"]


async def test_what_came_just_now_is_read_from_memory_once_and_not_much_of_it_is_kept(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tripost.queue.store.RECENT", 8000)
    files, reads = FakeFiles(), list[int]()
    read_now = FakeHandle.read_now

    def counted(handle: FakeHandle, offset: int, size: int) -> bytes | None:
        reads.append(offset)
        return read_now(handle, offset, size)

    monkeypatch.setattr(FakeHandle, "read_now", counted)
    async with queue_on(files) as queue:
        for number in range(20):
            await put(queue, f"M{number}", "mx:a", content=b"x" * 50)
        leases = await queue.claim("mx:a", 20)
        assert [one.envelope.id for one in leases] == [f"M{n}" for n in range(20)]
        assert [one.message.body for one in leases] == [b"x" * 50] * 20
        from_disk = len(reads)
        assert 12 <= from_disk < 20  # some 7 of 1,074 octets are kept
        for lease in leases:
            queue.release(lease)
        assert len(await queue.claim("mx:a", 20)) == 20
        assert len(reads) == from_disk + 20


async def test_a_body_that_is_not_accepted_leaves_nothing() -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        body = queue.new_body()
        await body.write(b"x" * 1000)
        await body.discard()
        await body.discard()
        lost = queue.new_body()
        await lost.write(b"x" * 1000)
        await lost.finish()
    assert len(files.names("spool/bodies")) == 1
    files.crash()
    async with queue_on(files):
        assert files.names("spool/bodies") == []


def test_outcome_is_one_of_three() -> None:
    outcomes: list[Outcome] = [OK, LATER, NO]
    assert len({type(one) for one in outcomes}) == 3


async def test_the_books_balance_and_hops_are_forgotten(autojump_clock: MockClock) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        for n in range(20):
            await put(queue, f"m{n}", f"mx:{n}", f"mx:{n}", sender="" if n % 2 else "fred@truc.fr")
    async with queue_on(files) as queue:
        await put(queue, "new", "mx:new")
        for hop in queue.ready():
            for lease in await queue.claim(hop, 9):
                outcomes: list[Outcome] = [OK, NO, LATER, Delivered("discarded"), Delivered("delivered")]
                number = int(lease.envelope.id.removeprefix("m").replace("new", "0"))
                await queue.settle(lease, {one.id: outcomes[(number + one.id) % 5] for one in lease.recipients})
        s = queue.statistics()
        ended = s.relayed + s.delivered + s.discarded + s.reported + s.suppressed
        assert s.accepted + s.recovered == ended + s.queued
        assert s.recovered == 40
        assert min(s.relayed, s.delivered, s.discarded, s.reported, s.suppressed, s.queued) > 0
        assert s.hops == len({queue._schedule.name(queue._ledger.rows.hop[row]) for row in queue._ledger.rows.live()})
        assert s.leased == 0
