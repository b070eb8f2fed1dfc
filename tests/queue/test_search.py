"""queued mail is found by what is known of it, at any depth, and changed"""

from __future__ import annotations

import pytest

from support.fake_files import FakeFiles
from support.queues import put, queue_on
from tripost.queue import records
from tripost.queue.entries import Acceptance, encode
from tripost.queue.finding import Wanted
from tripost.queue.looking import Places
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
        ({"error": "kind-of"}, "0B4"),
        ({"error": "kind"}, ""),
        ({"site": "site of mx:x*"}, "0A1"),
        ({"header": "subject:  HEL"}, "0A1 0A2 0B3 0B4"),
        ({"header": "Subject: x"}, "0B5"),
        ({"header": "From: hello"}, ""),
        ({"header": "Subject: hello", "sender": "<>"}, "0B3"),
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
        queue.search.site_of = lambda next_hop: f"site of {next_hop}"
        queue.search.class_of = lambda reply: "kind-of"
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
        with pytest.raises(ValueError, match="is written as"):
            await found(queue, header="Subject")


@pytest.mark.parametrize(
    ("header", "head", "fits"),
    [
        ("Subject: a letter", b"From: x\r\nSubject: this is\r\n\ta  Letter to you", True),
        ("Subject: a letter", b"X-Subject: a letter\r\nFrom: Subject: a letter", False),
        ("subject:", b"Subject: ", True),
        ("Subject: gr\u00fc\u00dfe", "Subject: Gr\u00fc\u00dfe".encode(), True),
        ("Subject: x", b"\xff\xfe: x\r\nno field", False),
    ],
)
def test_header_fields(header: str, head: bytes, fits: bool) -> None:
    assert Wanted(header=header).fits_header(head) == fits


def test_only_envelopes_are_looked_at() -> None:
    """Of a record with an inline content; but of one whose content is a file, or that has something behind, all."""
    key = bytes(16)
    people = tuple(Recipient(n, f"user{n}@x.example", "mx:x.example") for n in range(3))
    for size in (10, 300, 70_000):
        envelope = Envelope("ID", "s@x.example", people, NOW, NOW, size)
        for body, file, hit in ((b"needle" + b"x" * (size - 6), "", False), (b"", "needle.body", True)):
            record = records.encode(key, 32, 2, encode(Acceptance(envelope, body, file, 0xA000 if file else 0)))
            handle = FakeHandle(b"\0" * 32 + record)
            places = Places()
            places.add(32, 0, size)
            places.sort()
            for needle, wanted in ((b"user2@", True), (b"needle", hit), (b"", True), (b"nothing", False)):
                at, found = places.look(needle, 0, key, handle)  # type: ignore[arg-type]  # it can read
                assert (at, len(found)) == (1, int(wanted)), (size, file, needle)


class FakeHandle:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_at(self, at: int, size: int) -> bytes:
        return self._data[at : at + size]


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
