"""queued mail is found by what is known of it, at any depth, and changed"""

from __future__ import annotations

import pytest
import trio

from support.fake_files import FakeFiles
from support.life import queued
from support.queues import letter, put, queue_on
from tripost.queue.clock import Clock
from tripost.queue.finding import Wanted
from tripost.queue.manager import Queue
from tripost.queue.message import Deferred, Delivered, Envelope, Recipient

NOW = 1_800_000_000.0
LATER = Deferred(451, "4.3.0", "greylisted, come back", "mx.example")
DOWN = Deferred(451, "4.4.1", "no answer", destination=True)


async def enter(queue: Queue, id: str, sender: str, *to: tuple[str, str], size: int = 10, account: str = "") -> None:
    body = queue.new_body()
    content = b"Subject: hello\r\n\r\nsecret@far.example" + b"x" * size + b"\r\n"
    await body.write(content)
    people = tuple(Recipient(n, address, hop) for n, (address, hop) in enumerate(to))
    await queue.accept(Envelope(id, sender, people, NOW, NOW + 432_000, len(content), account=account), body)


async def found(queue: Queue, **wanted: object) -> dict[str, list[str]]:
    """Id → recipients."""
    rows = queue.search.find(Wanted(**wanted))  # type: ignore[arg-type]
    return {one.id: [each.recipient for each in one.deliveries] async for one in rows}


async def stocked(queue: Queue) -> None:
    await enter(queue, "0A1", "fred@truc.fr", ("ann@far.example", "mx:far.example"), ("bob@x.example", "mx:x.example"))
    await enter(queue, "0A2", "Fred+list@TRUC.fr", ("Ann@FAR.example", "mx:far.example"), size=3000)
    await enter(queue, "0B3", "", ("marc@machin.com", "local"), account="marc@machin.com")
    await enter(queue, "0B4", "a[1]@truc.fr", ("é@far.example", "mx:far.example"))
    await put(queue, "0B5", "mx:held")


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({}, "0A1 0A2 0B3 0B4 0B5"),
        ({"id": "0a1"}, "0A1"),
        ({"id": "0B*"}, "0B3 0B4 0B5"),
        ({"sender": "fred@truc.fr"}, "0A1 0B5"),
        ({"sender": "fred*@truc.fr"}, "0A1 0A2 0B5"),
        ({"sender": "<>"}, "0B3"),
        ({"sender": "a[1]@truc.fr"}, "0B4"),
        ({"recipient": "ann@far.example"}, "0A1 0A2"),
        ({"recipient": "secret@far.example"}, ""),  # in contents only
        ({"recipient": "é@far.example"}, "0B4"),
        ({"recipient": "?nn@*"}, "0A1 0A2"),
        ({"domain": "far.example"}, "0A1 0A2 0B4"),
        ({"domain": "*.example", "sender": "fred@*"}, "0A1 0B5"),
        ({"next_hop": "far.example"}, "0A1 0A2 0B4"),
        ({"next_hop": "mx:x*"}, "0A1"),
        ({"account": "marc@machin.com"}, "0B3"),
        ({"larger": 3000}, "0A2"),
        ({"attempts": 1}, "0B4"),
        ({"error": "GREYLISTED"}, "0B4"),
        ({"states": ("deferred",)}, "0B4"),
        ({"states": ("held", "suspended")}, "0B3 0B5"),
        ({"states": ("ready",)}, "0A1 0A2"),
        ({"older": 50}, "0A1 0A2 0B3 0B4 0B5"),
        ({"younger": 50}, ""),
        ({"domain": "far.example", "states": ("deferred",)}, "0B4"),
    ],
)
async def test_find(wanted: dict[str, object], ids: str, autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        await stocked(queue)
        for lease in await queue.claim("mx:far.example", 5):
            await (queue.settle(lease, {0: LATER}) if lease.envelope.id == "0B4" else _give_back(queue, lease))
        await queue.suspend("local")
        (message,) = [one async for one in queue.search.find(Wanted(id="0B5"))]
        assert await queue.edit.hold([message.place], True) == 1
        queue._clock._offset += 100
        assert " ".join(sorted(await found(queue, **wanted))) == ids


async def _give_back(queue: Queue, lease: object) -> None:
    queue.release(lease)  # type: ignore[arg-type]


async def test_only_the_recipients_that_are_wanted_are_told() -> None:
    async with queue_on(FakeFiles()) as queue:
        await stocked(queue)
        assert await found(queue, domain="x.example", sender="fred@truc.fr") == {
            "0A1": ["bob@x.example"],
            "0B5": ["u0@x.example"],
        }
        with pytest.raises(ValueError, match="no state 'lost'"):
            await found(queue, states=("lost",))


async def test_after_a_restart_and_over_many_segments() -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        for n in range(60):
            await put(queue, f"M{n:02}", f"mx:d{n % 3}", content=b"Subject: x\r\n\r\n" + b"y" * (n * 30))
    async with queue_on(files) as queue:
        assert len(await found(queue)) == 60
        assert list(await found(queue, id="M4*")) == [f"M4{n}" for n in range(10)]
        hops = await queue.search.summary()
        assert [(one.next_hop, one.deliveries, one.state, sum(one.ages)) for one in hops] == [
            (f"mx:d{n}", 20, "ready", 20) for n in range(3)
        ]


async def test_what_is_down_is_told(autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        await stocked(queue)
        (lease,) = await queue.claim("mx:x.example", 1)
        assert list(await found(queue, states=("active",))) == ["0A1"]
        await queue.settle(lease, {1: DOWN})
        assert await found(queue, states=("down",)) == {"0A1": ["bob@x.example"]}
        (hop,) = [one for one in await queue.search.summary() if one.next_hop == "mx:x.example"]
        assert hop.state == "down"


async def test_retry_now(autojump_clock: object) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        for n in range(5):
            await put(queue, f"M{n}", "mx:a")
        for lease in await queue.claim("mx:a", 5):
            await queue.settle(lease, {0: LATER})
        places = [one.place async for one in queue.search.find(Wanted(id="M[13]"))]
        assert places == []  # brackets are no wild cards
        places = [one.place async for one in queue.search.find(Wanted()) if one.id in ("M1", "M3")]
        assert await queue.claim("mx:a", 5) == []
        assert await queue.edit.retry(places) == 2
        assert await queue.edit.retry(places) == 0
        leases = await queue.claim("mx:a", 5)
        assert [one.envelope.id for one in leases] == ["M1", "M3"]
        assert [one.attempt for one in leases] == [2, 2]
        for one in leases:
            queue.release(one)
    files.crash()
    async with queue_on(files) as queue:
        assert sorted(one.envelope.id for one in await queue.claim("mx:a", 9)) == ["M1", "M3"]
        told = [one async for one in queue.search.find(Wanted(error="come back"))]
        assert len(told) == 5


@pytest.mark.parametrize("later", range(8))
async def test_a_hold_reaches_what_comes_apart_meanwhile(later: int, autojump_clock: object) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "M", "mx:a", "mx:a")
        (lease,) = await queue.claim("mx:a", 1)
        places = [one.place async for one in queue.search.find(Wanted())]

        async def settle() -> None:
            for _ in range(later):
                await trio.lowlevel.checkpoint()
            await queue.settle(lease, {0: DOWN, 1: LATER})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(settle)
            nursery.start_soon(queue.edit.hold, places, True)
        assert await found(queue, states=("held",)) == {"M": ["u0@x.example", "u1@x.example"]}


async def test_what_a_lease_leaves_of_a_held_message_is_held(autojump_clock: object) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "M", "mx:a", "mx:a")
        (lease,) = await queue.claim("mx:a", 1)
        places = [one.place async for one in queue.search.find(Wanted())]
        assert await queue.edit.hold(places, True) == 1
        await queue.settle(lease, {0: DOWN, 1: LATER})  # two recipients, two due times: two rows from now on
        states = {(each.state, each.attempts) async for one in queue.search.find(Wanted()) for each in one.deliveries}
        assert states == {("held", 0), ("held", 1)}
        assert await queue.edit.hold(places, False) == 1
        assert await found(queue, states=("held",)) == {}


@pytest.mark.parametrize("later", range(8))
async def test_nothing_is_claimed_while_it_is_hurried(later: int, autojump_clock: object) -> None:
    """Its time comes, and somebody wants it, just while the record is written that says that its time has come."""
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "M", "mx:a")
        (lease,) = await queue.claim("mx:a", 1)
        await queue.settle(lease, {0: LATER})
        places = [one.place async for one in queue.search.find(Wanted())]

        async def claim() -> None:
            for _ in range(later):
                await trio.lowlevel.checkpoint()
            queue._clock._offset += 86_400
            queue.ready()
            for one in await queue.claim("mx:a", 1):
                await queue.settle(one, {0: Delivered("relayed")})
                body = queue.new_body()  # takes the row that came free
                await body.write(b"Subject: y\r\n\r\n")
                await queue.accept(letter("N", "mx:a", accepted=queue._clock.now() - 9, size=14), body)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(queue.edit.retry, places)
            nursery.start_soon(claim)
        now, before = queue._clock.now(), await queued(queue)
    async with queue_on(files, clock=Clock(lambda: now)) as queue:
        assert (await queued(queue)).queued == before.queued
