"""several processes write, one reads: what each promises while others come and go"""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from support.fake_files import FakeFiles
from support.queues import (
    SMALL,
    Bell,
    inlet_on,
    kill,
    letter,
    new_board,
    put,
    queue_on,
    reporter,
    taken_in,
    unseal,
)
from tripost.queue import records
from tripost.queue.board import Board
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolDamaged, SpoolError, SpoolFull
from tripost.queue.events import Accepted, Event, Trouble
from tripost.queue.files import RealFiles
from tripost.queue.inlet import LOOK, Inlet
from tripost.queue.manager import Queue
from tripost.queue.message import Delivered
from tripost.queue.opening import Others, open_queue
from tripost.queue.verify import verify

LOG, BODIES = "spool/log", "spool/bodies"
SHORT = b"Subject: x\r\n\r\nhi\r\n"
LARGE = b"Subject: y\r\n\r\n" + b"x" * 3000


async def held(queue: Queue) -> list[str]:
    """Ids of all that is queued, once each."""
    rows = queue._ledger.rows
    found = [(await queue._store.read(rows.place[row])).envelope.id for row in rows.live()]
    assert len(found) == queue.statistics().messages
    return sorted(found)


async def deliver(queue: Queue, hop: str, most: int = 100) -> list[str]:
    leases = await queue.claim(hop, most)
    for lease in leases:
        await queue.settle(lease, {one.id: Delivered("relayed", "250 ok", "h") for one in lease.recipients})
    return [lease.envelope.id for lease in leases]


class World:
    """A disk, a board, and a bell."""

    def __init__(self) -> None:
        self.files = FakeFiles()
        for folder in (LOG, BODIES):
            self.files.make_folder(folder)
        self.board: Board = new_board()
        self.bell = Bell()
        self.others = Others(self.board, self.bell.wait)

    async def enter(self, stack: AsyncExitStack, writer: int = 1, **more: Any) -> Inlet:
        """An ingress process, until the stack's end."""
        more.setdefault("ring", self.bell.ring)
        return await stack.enter_async_context(inlet_on(self.files, self.board, writer, **more))


@pytest.fixture
def world() -> World:
    return World()


async def test_what_three_take_in_is_queued_once_and_outlives_them(world: World, autojump_clock: object) -> None:
    seen: list[Event] = []
    async with AsyncExitStack() as stack:
        inlets = [await world.enter(stack, n) for n in (1, 2, 3)]
        async with queue_on(world.files, seen=seen, others=world.others) as queue:
            async with trio.open_nursery() as nursery:
                for n in range(60):
                    content = LARGE if n % 10 == 0 else b"Subject: x\r\n\r\nhi\r\n"
                    nursery.start_soon(
                        lambda n=n, content=content: put(inlets[n % 3], f"m{n:02d}", "mx:a", content=content)
                    )
            for inlet in inlets:
                await taken_in(inlet)
            assert await held(queue) == [f"m{n:02d}" for n in range(60)]
            assert [one.id for one in seen if isinstance(one, Accepted)].count("m07") == 1
            assert len([one for one in seen if isinstance(one, Accepted)]) == 60
            assert len(await deliver(queue, "mx:a", 40)) == 40
            left = await held(queue)
            await trio.sleep(60)
            assert verify(world.files, "spool").damage == []
    async with queue_on(world.files) as queue:  # by one process now: nobody else is there
        assert await held(queue) == left
        await deliver(queue, "mx:a")
    async with queue_on(world.files) as queue:
        assert await held(queue) == []
        await trio.sleep(1)
        assert len(world.files.names(LOG)) <= 2
        assert world.files.names(BODIES) == []


async def test_the_manager_is_away_for_a_while(world: World, autojump_clock: object) -> None:
    async with AsyncExitStack() as stack:
        one, two = await world.enter(stack, 1), await world.enter(stack, 2)
        async with queue_on(world.files, others=world.others) as queue:
            await put(one, "before", "mx:a")
            await taken_in(one)
            assert await deliver(queue, "mx:a") == ["before"]
        for n in range(30):
            await put(
                (one, two)[n % 2], f"away{n:02d}", "mx:a", content=LARGE if n == 7 else b"Subject: x\r\n\r\nhi\r\n"
            )
        half = two.new_body()
        await half.write(LARGE)  # its file stands in the folder, and no record names it yet
        seen: list[Event] = []
        async with queue_on(world.files, seen=seen, others=world.others) as queue:
            await taken_in(one)
            await taken_in(two)
            assert await held(queue) == [f"away{n:02d}" for n in range(30)]
            told = [event.id for event in seen if isinstance(event, Accepted)]
            assert sorted(told) == [f"away{n:02d}" for n in range(30)]  # it is news to everybody
            assert queue.statistics().recovered == 0
            await put(one, "after", "mx:a")
            await two.accept(letter("half", "mx:a", size=len(LARGE)), half)
            await taken_in(one)
            await taken_in(two)
            assert await held(queue) == ["after", *[f"away{n:02d}" for n in range(30)], "half"]
            assert len(await deliver(queue, "mx:a")) == 32
    async with queue_on(world.files) as queue:
        assert await held(queue) == []


async def test_a_writer_dies_while_the_manager_is_away(world: World, autojump_clock: object) -> None:
    async with AsyncExitStack() as stack:
        inlet = await world.enter(stack)
        async with queue_on(world.files, others=world.others) as queue:
            await put(inlet, "before", "mx:a")
            await taken_in(inlet)
        await put(inlet, "large", "mx:a", content=LARGE)
        await put(inlet, "small", "mx:a")
        kill(inlet, world.board)
        again = await world.enter(stack, run=88)
        await put(again, "next", "mx:a", content=LARGE)
        for _ in range(2):
            async with queue_on(world.files, others=world.others) as queue:
                await trio.sleep(2)
                assert await held(queue) == ["before", "large", "next", "small"]
        async with queue_on(world.files, others=world.others) as queue:
            leases = await queue.claim("mx:a", 9)
            contents = {}
            for lease in leases:
                reader = await queue.open_body(lease)
                contents[lease.envelope.id] = await reader.read(1 << 20)
                reader.close()
                await queue.settle(lease, {0: Delivered("relayed", "250 ok", "h")})
            assert contents["large"] == contents["next"] == LARGE
    async with queue_on(world.files) as queue:
        assert await held(queue) == []
        assert world.files.names(BODIES) == []


async def test_what_was_not_synced_is_not_read(world: World, autojump_clock: object) -> None:
    async with AsyncExitStack() as stack:
        inlet = await world.enter(stack)
        seen: list[Event] = []
        async with queue_on(world.files, seen=seen, others=world.others) as queue:
            await put(inlet, "good", "mx:a")
            world.files.fail["sync"] = errno.EIO
            with pytest.raises(SpoolError):
                await put(inlet, "refused", "mx:a")
            await put(inlet, "next", "mx:a")
            await taken_in(inlet)
            assert await held(queue) == ["good", "next"]
        async with queue_on(world.files, others=world.others) as queue:
            assert await held(queue) == ["good", "next"]
        world.files.fail_for_good |= {"write": errno.EIO, "create": errno.EIO}
        with pytest.raises(SpoolError):
            await put(inlet, "no reply", "mx:a")
        assert not inlet.accepting
        world.files.fail_for_good.clear()
        await trio.sleep(5)
        assert inlet.accepting
        await put(inlet, "again", "mx:a")
    async with queue_on(world.files) as queue:
        assert await held(queue) == ["again", "good", "next"]
    assert [one for one in seen if isinstance(one, Trouble)] == []


async def test_a_writer_that_dies_leaves_its_segment_to_the_manager(world: World, autojump_clock: object) -> None:
    async with queue_on(world.files, others=world.others) as queue:
        async with AsyncExitStack() as stack:
            inlet = await world.enter(stack)
            await put(inlet, "told", "mx:a")
            handle = inlet._writer._handle
            assert handle is not None
            data, _, _ = records.encode_many(inlet._writer._key, inlet._writer.end, [(2, b"torn")])
            handle.write_at(inlet._writer.end, data[:-5])
            kill(inlet, world.board)
            await trio.sleep(2)
            assert await held(queue) == ["told"]
            assert world.files.content(f"{LOG}/0000000001.seg")[-16:].startswith(b"TPINDEX")
        async with AsyncExitStack() as stack:
            inlet = await world.enter(stack, run=77)  # the next one in its place
            await put(inlet, "second", "mx:a")
            await taken_in(inlet)
            assert await held(queue) == ["second", "told"]
    unseal(world.files)
    async with queue_on(world.files) as queue:
        assert await held(queue) == ["second", "told"]


async def test_a_killed_writers_last_batch_may_count_and_is_durable_first(world: World, autojump_clock: object) -> None:
    async with queue_on(world.files, others=world.others) as queue, AsyncExitStack() as stack:
        inlet = await world.enter(stack)
        await put(inlet, "told", "mx:a")
        board = world.board
        board.publish = lambda *_: None  # type: ignore[method-assign]  # it is killed before it can say so
        await put(inlet, "unheard", "mx:a")
        await trio.sleep(2)
        assert await held(queue) == ["told"]
        kill(inlet, board)
        await trio.sleep(2)
        assert await held(queue) == ["told", "unheard"]
    world.files.crash()
    async with queue_on(world.files) as queue:
        assert await held(queue) == ["told", "unheard"]


async def test_bounds(world: World, autojump_clock: object) -> None:
    settings = replace(SMALL, unannounced=3000, most_messages=20, most_octets=100_000)
    async with AsyncExitStack() as stack:
        inlet = await world.enter(stack, settings=settings)
        taken = 0
        while inlet.ahead <= 3000:
            await put(inlet, f"m{taken}", "mx:a", content=b"x" * 50)
            taken += 1
        with pytest.raises(SpoolFull, match="unannounced"):
            await put(inlet, "too many", "mx:a")
        assert 10 < taken < 30
        assert 3000 < inlet.ahead < 3300
        async with queue_on(world.files, others=world.others) as queue:
            await taken_in(inlet)
            assert queue.statistics().messages == taken
            await trio.sleep(2)
            if taken >= 20:
                with pytest.raises(SpoolFull, match="as many as"):
                    inlet.check_room(0)
            await deliver(queue, "mx:a")
            await trio.sleep(2)
            inlet.check_room(0)
            with pytest.raises(SpoolFull, match="bytes"):
                inlet.check_room(100_001)
        world.files.room = 10
        tight = await world.enter(stack, 2, settings=replace(settings, min_free=1000))
        with pytest.raises(SpoolFull, match="min_free"):
            await put(tight, "no room", "mx:a")


async def test_a_quiet_writer_does_not_keep_what_others_have_done_with(world: World, autojump_clock: object) -> None:
    settings = replace(SMALL, compact_slack=2)
    async with AsyncExitStack() as stack:
        quiet = await world.enter(stack, 1)
        async with queue_on(world.files, settings, others=world.others) as queue:
            await put(quiet, "first", "mx:a")
            await taken_in(quiet)
            await deliver(queue, "mx:a")
            for n in range(100):
                await put(queue, f"m{n}", "mx:a", content=b"x" * 60)
                await deliver(queue, "mx:a")
            await trio.sleep(1)
            assert len(world.files.names(LOG)) > 8
            await trio.sleep(30 + LOOK)
            assert len(world.files.names(LOG)) <= 4
            await put(quiet, "second", "mx:a")
            await taken_in(quiet)
            assert await held(queue) == ["second"]
    async with queue_on(world.files) as queue:
        assert await held(queue) == ["second"]


async def test_a_place_means_one_message_for_ever(world: World, autojump_clock: object) -> None:
    """A settlement outlives the segment that it speaks of: that number is not given again."""
    numbers: set[int] = set()
    async with queue_on(world.files, others=world.others) as queue:
        for run in range(1, 12):
            async with AsyncExitStack() as stack:
                inlet = await world.enter(stack, run=run)
                await put(inlet, f"m{run}", "mx:a")
                await taken_in(inlet)
                assert inlet._writer.number not in numbers
                numbers.add(inlet._writer.number)
                assert await deliver(queue, "mx:a") == [f"m{run}"]
                kill(inlet, world.board)
            await trio.sleep(2)
    async with queue_on(world.files) as queue:
        assert await held(queue) == []
    assert len(world.files.names(LOG)) < 4


async def test_damage_between_records_is_told_and_the_rest_is_found(world: World, autojump_clock: object) -> None:
    seen: list[Event] = []
    async with AsyncExitStack() as stack:
        inlet, second = await world.enter(stack), await world.enter(stack, 2, ring=lambda: None)
        for n in range(5):
            await put(inlet, f"m{n}", "mx:a")
        content = world.files.content(f"{LOG}/0000000001.seg")
        at = content.find(b"m2")
        content[at] ^= 1
        async with queue_on(world.files, seen=seen, others=world.others) as queue:
            await trio.sleep(2)
            assert await held(queue) == ["m0", "m1", "m3", "m4"]
            await put(second, "m5", "mx:a")
            await put(second, "m6", "mx:a")
            content = world.files.content(f"{LOG}/0000000002.seg")
            content[content.find(b"m5")] ^= 1  # before the manager has looked
            await trio.sleep(2)
            assert await held(queue) == ["m0", "m1", "m3", "m4", "m6"]
    assert len([one for one in seen if isinstance(one, Trouble)]) == 2


# --- the format ---


def test_a_spool_of_version_3_opens_and_goes_on(tmp_path: pathlib.Path) -> None:
    old = pathlib.Path(__file__).with_name("spools") / "version3"
    shutil.copytree(old, tmp_path / "spool")
    wanted = ["R" + "apart-1", "apart", *[f"many{n:02d}" for n in range(20)], "large"]

    async def go(ids: list[str]) -> None:
        settings = replace(SMALL, min_free_inodes=0)
        clock = Clock(lambda: 1_800_000_000.0)
        folder = str(tmp_path / "spool")
        async with open_queue(folder, settings, clock=clock, bus=Bus(), reporter=reporter) as queue:
            assert await held(queue) == sorted(ids)
            assert list(queue.suspensions) == ["mx:d"]
            await put(queue, f"new{len(ids)}", "mx:a")

    assert verify(RealFiles(), str(tmp_path / "spool")).damage == []
    ids = sorted(set(wanted) - {"apart"})
    trio.run(go, ids)
    trio.run(go, [*ids, f"new{len(ids)}"])
    heads = [path.read_bytes()[:8] for path in sorted((tmp_path / "spool" / "log").iterdir())]
    assert heads[0] == b"TPOST\0\x003"
    assert heads[-1] == b"TPOST\0\x004"
    assert verify(RealFiles(), str(tmp_path / "spool")).damage == []
    assert os.listdir(tmp_path / "spool" / "bodies") != []


async def test_a_newer_version_is_refused(world: World, autojump_clock: object) -> None:
    async with queue_on(world.files) as queue:
        await put(queue, "m", "mx:a")
    world.files.content(f"{LOG}/0000000001.seg")[7:8] = b"5"
    with pytest.raises(SpoolDamaged, match="version"):
        async with queue_on(world.files):
            pass


async def test_verify_knows_that_settlements_stand_in_older_segments(world: World, autojump_clock: object) -> None:
    async with queue_on(world.files, others=world.others) as queue, AsyncExitStack() as stack:
        await put(queue, "own", "mx:b")
        inlet = await world.enter(stack)
        await put(inlet, "large", "mx:a", content=LARGE)
        await put(inlet, "kept", "mx:c", content=LARGE)
        await taken_in(inlet)
        await deliver(queue, "mx:a")
        for report in (verify(world.files, "spool"), verify(world.files, "spool", offline=False)):
            assert report.damage == []
            assert (report.messages, report.bodies) == (3, 1)
    report = verify(world.files, "spool", offline=True)
    assert (report.damage, report.left_over) == ([], 0)
