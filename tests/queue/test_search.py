"""queued mail is found by what is known of it, at any depth, and changed"""

from __future__ import annotations

import pytest

from support.fake_files import FakeFiles
from support.queues import put, queue_on
from tripost.queue.finding import Wanted
from tripost.queue.manager import Queue
from tripost.queue.message import Deferred, Envelope, Recipient
from tripost.queue.planning import Order

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
        assert (await queue.edit.act(Order(verb="hold", who="op"), Wanted(id="0B5"))).messages == 1
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
