"""an operator's actions on queued mail: what they change, what they leave alone, and how they are taken back"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from support.fake_files import FakeFiles
from support.life import queued
from support.queues import letter, put, queue_on
from tripost.queue import actions, edit, ending
from tripost.queue.clock import Clock
from tripost.queue.edit import Done
from tripost.queue.errors import SpoolFull
from tripost.queue.events import Deleted, Event
from tripost.queue.finding import Wanted
from tripost.queue.manager import Queue
from tripost.queue.message import Deferred, Delivered, Recipient
from tripost.queue.planning import Order, TooMany
from tripost.queue.scanning import pieces

LATER = Deferred(451, "4.3.0", "greylisted, come back", "mx.example")
DOWN = Deferred(451, "4.4.1", "no answer", destination=True)


async def act(queue: Queue, verb: str, to: str = "", who: str = "op", grace: float = 100.0, **wanted: object) -> Done:
    order = Order(verb=verb, who=who, to=to, way=lambda *_: to, grace=grace, reason="why not")
    return await queue.edit.act(order, Wanted(**wanted))  # type: ignore[arg-type]


async def states(queue: Queue, **wanted: object) -> dict[str, list[str]]:
    """Id → state of each recipient."""
    rows = queue.search.find(Wanted(**wanted))  # type: ignore[arg-type]
    return {one.id: [each.state for each in one.deliveries] async for one in rows}


async def test_retry_now(autojump_clock: object) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        for n in range(5):
            await put(queue, f"M{n}", "mx:a")
        for lease in await queue.claim("mx:a", 5):
            await queue.settle(lease, {0: LATER})
        assert await queue.claim("mx:a", 5) == []
        assert (await act(queue, "retry", id="M[13]")).messages == 0  # brackets are no wild cards
        assert (await act(queue, "retry", id="M1")).recipients == 1
        assert (await act(queue, "retry", id="M3")).recipients == 1
        assert (await act(queue, "retry", id="M3")).id == ""
        leases = await queue.claim("mx:a", 5)
        assert [one.envelope.id for one in leases] == ["M1", "M3"]
        assert [one.attempt for one in leases] == [2, 2]
        for one in leases:
            queue.release(one)
        now = queue._clock.now()
    files.crash()
    async with queue_on(files, clock=Clock(lambda: now)) as queue:
        assert sorted(one.envelope.id for one in await queue.claim("mx:a", 9)) == ["M1", "M3"]
        told = [one async for one in queue.search.find(Wanted(error="come back"))]
        assert len(told) == 5


@pytest.mark.parametrize("verb", ["hold", "bounce", "priority"])
@pytest.mark.parametrize("later", range(12))
async def test_an_action_reaches_what_comes_apart_meanwhile(later: int, verb: str, autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "M", "mx:a", "mx:a")
        (lease,) = await queue.claim("mx:a", 1)

        async def settle() -> None:
            for _ in range(later):
                await trio.lowlevel.checkpoint()
            await queue.settle(lease, {0: DOWN, 1: LATER})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(settle)
            done = await act(queue, verb, "4")
        assert (done.messages, done.recipients, done.skipped) == (1, 2, 0)
        model = (await queued(queue)).queued["M"]
        assert [(one.held, one.doomed, one.priority) for one in model.values()] == [
            (verb == "hold", verb == "bounce", 4 if verb == "priority" else 0)
        ] * 2


async def test_what_a_lease_leaves_of_a_held_message_is_held(autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "M", "mx:a", "mx:a")
        (lease,) = await queue.claim("mx:a", 1)
        assert (await act(queue, "hold", id="M")).messages == 1
        await queue.settle(lease, {0: DOWN, 1: LATER})  # two recipients, two due times: two rows from now on
        assert await states(queue) == {"M": ["held", "held"]}
        assert (await act(queue, "release", id="M")).messages == 1
        assert await states(queue, states=("held",)) == {}


@pytest.mark.parametrize("later", range(12))
async def test_nothing_is_claimed_while_it_is_hurried(later: int, autojump_clock: object) -> None:
    """Its time comes, and somebody wants it, just while the record is written that says that its time has come."""
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "M", "mx:a")
        (lease,) = await queue.claim("mx:a", 1)
        await queue.settle(lease, {0: LATER})

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
            nursery.start_soon(act, queue, "retry")
            nursery.start_soon(claim)
        now, before = queue._clock.now(), await queued(queue)
    async with queue_on(files, clock=Clock(lambda: now)) as queue:
        assert (await queued(queue)).queued == before.queued


async def test_only_the_recipients_that_are_meant(autojump_clock: object) -> None:
    """Of one delivery with three recipients one is deleted, one goes another way, and one is tried as before."""
    seen: list[Event] = []
    files = FakeFiles()
    async with queue_on(files, seen=seen) as queue:
        await put(queue, "M", "mx:a", "mx:a", "mx:a")
        await act(queue, "delete", recipient="u0@*")
        await act(queue, "reroute", "mx:b", recipient="u2@*")
        assert await states(queue) == {"M": ["ready", "ending", "ready"]}
        (lease,) = await queue.claim("mx:a", 5)
        assert [one.id for one in lease.recipients] == [1]
        queue.release(lease)
        await trio.sleep(102)
        assert [(one.id, one.recipient, one.reason) for one in seen if isinstance(one, Deleted)] == [
            ("M", "u0@x.example", "why not")
        ]
        assert queue.statistics().deleted == 1
        now, before = queue._clock.now(), await queued(queue)
    async with queue_on(files, clock=Clock(lambda: now)) as queue:
        assert (await queued(queue)).queued == before.queued
        (lease,) = await queue.claim("mx:b", 5)
        assert [(one.id, one.next_hop) for one in lease.recipients] == [(2, "mx:b")]


async def test_what_is_being_delivered_is_left_alone_where_it_cannot_be_changed(autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "M", "mx:a", "mx:a")
        await put(queue, "N", "mx:a")
        leases = await queue.claim("mx:a", 5)
        done = await act(queue, "bounce", recipient="u1@*")
        assert (done.id, done.skipped) == ("", 1)
        done = await act(queue, "reroute", "mx:b")
        assert (done.id, done.skipped) == ("", 2)
        for lease in leases:
            queue.release(lease)
        assert (await act(queue, "reroute", "mx:b")).id == "1"
        assert len(await queue.claim("mx:b", 5)) == 2


async def test_a_bounce_is_told_to_the_sender_after_the_grace_time(autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "M", "mx:a", "mx:b")
        await put(queue, "N", "mx:a")
        await act(queue, "bounce", id="M")
        assert [one.envelope.id for one in await queue.claim("mx:a", 5)] == ["N"]
        assert await queue.claim("mx:b", 5) == []
        await trio.sleep(99)
        assert await states(queue, id="M") == {"M": ["ending", "ending"]}
        await trio.sleep(3)
        assert sorted((await queued(queue)).queued) == ["N", "RM-0", "RM-1"]
        assert queue.edit.actions()["1"].state == actions.DONE
        with pytest.raises(ValueError, match="cannot be undone any more"):
            await queue.edit.undo("op", "1")


async def test_what_came_apart_on_another_way_is_found_by_the_next_start(autojump_clock: object) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "M", "mx:a", "mx:a")
        await act(queue, "reroute", "mx:b", id="M")
        (lease,) = await queue.claim("mx:b", 9)
        await queue.settle(lease, {0: Delivered("relayed"), 1: LATER})
        now, before = queue._clock.now(), (await queued(queue)).queued
    async with queue_on(files, clock=Clock(lambda: now)) as queue:
        assert (await queued(queue)).queued == before
        assert [one.hop for one in before["M"].values()] == ["mx:b"]


async def test_undo_leaves_as_it_was_what_an_action_did_not_change(autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "M", "mx:a", "mx:b")
        await act(queue, "hold", recipient="u0@*")
        assert (await act(queue, "hold", id="M")).recipients == 1
        await queue.edit.undo("op")
        assert await states(queue) == {"M": ["held", "ready"]}


async def test_an_action_means_what_comes_apart_while_it_is_looked_for(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "M", "mx:a", "mx:a")
        leases, in_thread = await queue.claim("mx:a", 1), queue._store.in_thread

        async def later(*arguments: Any) -> Any:
            while leases:
                await queue.settle(leases.pop(), {0: DOWN, 1: LATER})
            return await in_thread(*arguments)

        monkeypatch.setattr(queue._store, "in_thread", later)
        assert (await act(queue, "hold", recipient="u?@*")).recipients == 2
        assert await states(queue) == {"M": ["held", "held"]}


async def test_an_ending_finds_what_comes_apart_behind_its_back(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two deliveries takes a row that was looked at when it was free."""
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "FIRST", "mx:z")
        await put(queue, "M", "mx:a", "mx:a")
        (first,) = await queue.claim("mx:z", 1)
        await queue.settle(first, {0: Delivered("relayed")})
        leases = await queue.claim("mx:a", 1)
        await act(queue, "delete", id="M")

        async def apart() -> None:
            await trio.lowlevel.checkpoint()
            while leases:
                await queue.settle(leases.pop(), {0: DOWN, 1: LATER})

        monkeypatch.setattr(ending, "pieces", lambda rows: pieces(rows, 1))
        monkeypatch.setattr(ending, "breathe", apart)
        await trio.sleep(110)
        assert (await queued(queue)).queued == {}
        assert queue.statistics().deleted == 2
        assert queue.edit.actions()["1"].state == actions.DONE


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize(
    ("verb", "to"),
    [("hold", ""), ("bounce", ""), ("delete", ""), ("expire", ""), ("reroute", "mx:z"), ("priority", "5")],
)
async def test_undo(verb: str, to: str, crash: bool, autojump_clock: object) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "M", "mx:a", "mx:b")
        await put(queue, "N", "mx:a")
        await put(queue, "O", "mx:a", "mx:a")
        before = (await queued(queue)).queued
        await act(queue, verb, to, id="M")
        await act(queue, verb, to, id="N")
        await act(queue, verb, to, recipient="u1@*", id="O")
        assert (await queued(queue)).queued != before
        if not crash:
            await undo_all(queue)
            assert (await queued(queue)).queued == before
    files.crash()
    async with queue_on(files) as queue:
        if crash:
            await undo_all(queue)
        assert (await queued(queue)).queued == before
        assert [one.state for one in queue.edit.actions().values()][:3] == [actions.UNDONE] * 3
        leases = [*await queue.claim("mx:a", 9), *await queue.claim("mx:b", 9)]
        assert sum(len(one.recipients) for one in leases) == 5


async def undo_all(queue: Queue) -> None:
    for n in range(3):
        assert (await queue.edit.undo("op")).id == str(4 + n)
    with pytest.raises(ValueError, match="op has done nothing that can be undone"):
        await queue.edit.undo("op")
    with pytest.raises(ValueError, match="action 1 was undone by action 6"):
        await queue.edit.undo("op", "1")
    with pytest.raises(ValueError, match="no action 77"):
        await queue.edit.undo("op", "77")


async def test_undo_takes_the_callers_own(autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "M", "mx:a")
        await put(queue, "N", "mx:a")
        await act(queue, "hold", id="M", who="ann")
        await act(queue, "hold", id="N", who="bob")
        await queue.edit.undo("ann")
        assert await states(queue) == {"M": ["ready"], "N": ["held"]}
        await queue.edit.undo("ann", "2")
        assert await states(queue) == {"M": ["ready"], "N": ["ready"]}


@pytest.mark.parametrize("crash", [False, True])
async def test_an_action_is_taken_back_once_also_when_its_mail_is_gone(crash: bool, autojump_clock: object) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "M", "mx:a")
        await put(queue, "N", "mx:b", "mx:b")
        await act(queue, "hold", id="M")
        await act(queue, "priority", "7", id="N", recipient="u0@x.example")
        for lease in await queue.claim("mx:b", 9):
            await queue.settle(lease, {one.id: Delivered("relayed") for one in lease.recipients})
        await queue.edit.undo("op")
        now = queue._clock.now()
        if not crash:
            await queue.edit.undo("op")  # not the same one again
            assert await states(queue) == {"M": ["ready"]}
    files.crash()
    async with queue_on(files, clock=Clock(lambda: now)) as queue:
        if crash:
            await queue.edit.undo("op")
        assert await states(queue) == {"M": ["ready"]}
        with pytest.raises(ValueError, match="nothing that can be undone"):
            await queue.edit.undo("op")


async def test_mail_that_comes_later_is_not_touched(autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "M", "mx:a")
        await act(queue, "delete", domain="x.example")
        await put(queue, "N", "mx:a")
        await trio.sleep(110)
        assert await states(queue) == {"N": ["ready"]}


async def test_compaction_leaves_alone_what_can_be_taken_back(autojump_clock: object) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "M", "mx:a", "mx:b")
        await act(queue, "reroute", "mx:c", id="M", grace=3000.0)
        await act(queue, "priority", "7", id="M", grace=3000.0)
        await act(queue, "hold", recipient="u1@*", id="M", grace=3000.0)
        (place,) = [one.place async for one in queue.search.find(Wanted(id="M"))]
        before = (await queued(queue)).queued["M"]
        for n in range(80):
            await put(queue, f"N{n}", "mx:b", content=b"Subject: x\r\n\r\n" + b"y" * 400)
            (lease,) = await queue.claim("mx:b", 1)
            await queue.settle(lease, {0: Delivered("relayed")})
        await trio.sleep(60)
        assert [one.place async for one in queue.search.find(Wanted(id="M"))] == [place]
        await trio.sleep(3000)
        assert [one.place async for one in queue.search.find(Wanted(id="M"))] != [place]
        now = queue._clock.now()
        assert (await queued(queue)).queued["M"] == before
    async with queue_on(files, clock=Clock(lambda: now)) as queue:
        assert (await queued(queue)).queued["M"] == before
        (lease,) = await queue.claim("mx:c", 5)
        assert [(one.id, one.next_hop) for one in lease.recipients] == [(0, "mx:c")]


async def test_an_action_on_some_leaves_the_others_alone_when_those_are_gone(autojump_clock: object) -> None:
    """Undone when the one that was meant is delivered; made while the one that is meant is being delivered."""
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "M", "mx:a", "local")
        await act(queue, "reroute", "mx:b", recipient="u0@*")
        (lease,) = await queue.claim("mx:b", 9)
        await queue.settle(lease, {0: Delivered("relayed")})
        await put(queue, "N", "mx:c", "mx:c")
        await queue.edit.undo("op")
        (lease,) = await queue.claim("local", 9)
        assert [one.id for one in lease.recipients] == [1]
        queue.release(lease)
        (lease,) = await queue.claim("mx:c", 9)
        done = await act(queue, "bounce", recipient="u1@*")
        assert (done.recipients, done.skipped) == (2, 1)  # M's at local, and N's, which is being delivered
        queue.release(lease)
        assert await states(queue) == {"M": ["ending"], "N": ["ready", "ready"]}


async def test_nobody_gets_it_twice_after_two_ways_became_one_and_the_message_moved(autojump_clock: object) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await put(queue, "M", "mx:a", "mx:b", "mx:b")
        await act(queue, "reroute", "mx:b", recipient="u0@*", grace=0.0)
        for n in range(80):
            await put(queue, f"N{n}", "mx:c", content=b"Subject: x\r\n\r\n" + b"y" * 400)
            (lease,) = await queue.claim("mx:c", 1)
            await queue.settle(lease, {0: Delivered("relayed")})
        await trio.sleep(60)
        leases = await queue.claim("mx:b", 9)
        assert sorted(one.id for lease in leases for one in lease.recipients) == [0, 1, 2]
        for lease in leases:
            queue.release(lease)
        now = queue._clock.now()
    async with queue_on(files, clock=Clock(lambda: now)) as queue:
        leases = await queue.claim("mx:b", 9)
        assert sorted(one.id for lease in leases for one in lease.recipients) == [0, 1, 2]


async def test_the_trail_is_bounded(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "KEPT", 5)
    async with queue_on(FakeFiles()) as queue:
        await put(queue, "M", "mx:a")
        for n in range(20):
            await act(queue, "hold" if n % 2 == 0 else "release", id="M", grace=0.0)
            await trio.sleep(2)
        assert [int(id) for id in queue.edit.actions()][-5:] == [16, 17, 18, 19, 20]
        assert len(queue.edit.actions()) <= 6  # the newest may be open yet
        with pytest.raises(ValueError, match="shorter than"):
            await queue.edit.act(Order(verb="hold", who="op", reason="x" * 2000), Wanted())
        with pytest.raises(ValueError, match="from -9 to 9"):
            await act(queue, "priority", "10")


async def test_too_much_that_can_be_undone_is_refused(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit, "OPEN_TARGETS", 2)
    async with queue_on(FakeFiles()) as queue:
        for n in range(3):
            await put(queue, f"M{n}", "mx:a")
        await act(queue, "hold")
        with pytest.raises(ValueError, match="wait until"):
            await act(queue, "release")
        await trio.sleep(102)
        assert (await act(queue, "release")).messages == 3


async def test_a_part_of_too_many_is_refused(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "PARTS", 2)
    async with queue_on(FakeFiles()) as queue:
        for n in range(3):
            await put(queue, f"M{n}", "mx:a", "mx:a")
        with pytest.raises(TooMany, match="do it in several steps"):
            await act(queue, "hold", recipient="u1@*")
        assert await states(queue, states=("held",)) == {}
        assert len(await queue.claim("mx:a", 5)) == 3


@pytest.mark.parametrize(
    ("kind", "what"), [("sender", "fred@*"), ("account", "fred@truc.fr"), ("client", "10.1.0.0/16")]
)
async def test_mail_is_paused_by_where_it_comes_from(kind: str, what: str, autojump_clock: object) -> None:
    files = FakeFiles()
    async with queue_on(files) as queue:
        await enter(queue, "M0")
        await queue.pause(kind, what, reason="a stolen password")
        await enter(queue, "M1")
        await put(queue, "N", "mx:a", sender="ann@truc.fr")
        assert [one.envelope.id for one in await queue.claim("mx:a", 9)] == ["N"]
        assert await states(queue) == {"M0": ["suspended"], "M1": ["suspended"], "N": ["active"]}
    async with queue_on(files) as queue:
        assert (await states(queue, id="M*")) == {"M0": ["suspended"], "M1": ["suspended"]}
        assert [one.envelope.id for one in await queue.claim("mx:a", 9)] == ["N"]
        assert not await queue.unpause((kind, "10.2.0.0/16"))
        assert await queue.unpause((kind, what))
        assert [one.envelope.id for one in await queue.claim("mx:a", 9)] == ["M0", "M1"]


async def enter(queue: Queue, id: str) -> None:
    body = queue.new_body()
    await body.write(b"Subject: x\r\n\r\n")
    now = queue._clock.now()
    envelope = letter(id, "mx:a", accepted=now, size=14)
    from msgspec.structs import replace

    await queue.accept(replace(envelope, account="fred@truc.fr", client="10.1.2.3"), body)


async def test_a_pause_ends_at_its_time_and_what_it_kept_too_long_expires(autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        await enter(queue, "M")
        await queue.pause("sender", "fred@*", until=queue._clock.now() + 50)
        assert await queue.claim("mx:a", 9) == []
        await trio.sleep(52)
        (lease,) = await queue.claim("mx:a", 9)
        queue.release(lease)
        await queue.pause("account", "fred@*", reason="for good")
        assert await queue.claim("mx:a", 9) == []
        await trio.sleep(432_100)  # noqa: ASYNC116
        (report,) = (await queued(queue)).queued
        assert report == "RM-0"


async def test_a_pause_that_cannot_be_meant(autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        for kind, what in (("client", "10.1.0.0/99"), ("colour", "red"), ("sender", "")):
            with pytest.raises(ValueError, match=r"[a-z]"):
                await queue.pause(kind, what)
        for n in range(200):
            await queue.pause("sender", f"s{n}@x")
        with pytest.raises(SpoolFull, match="end some first"):
            await queue.pause("sender", "one@more")


async def test_priorities_do_not_keep_what_is_over_from_expiring(autojump_clock: object) -> None:
    """Of two priorities in one FIFO, the lower one is looked at too."""
    async with queue_on(FakeFiles()) as queue:
        await queue.suspend("mx:a")
        body = queue.new_body()
        await body.write(b"Subject: x\r\n\r\n")
        now = queue._clock.now()
        from msgspec.structs import replace

        await queue.accept(replace(letter("OLD", "mx:a", accepted=now, size=14), priority=0), body)
        await trio.sleep(400_000)  # noqa: ASYNC116
        body = queue.new_body()
        await body.write(b"Subject: x\r\n\r\n")
        young = letter("YOUNG", "mx:a", accepted=queue._clock.now(), size=14)
        await queue.accept(replace(young, priority=9), body)
        await trio.sleep(33_000)
        assert sorted((await queued(queue)).queued) == ["ROLD-0", "YOUNG"]


def test_an_action_names_its_places() -> None:
    from array import array

    places = array("Q", [3, 8, 1 << 50])
    data = actions.octets(places)
    assert [actions.within(data, place) for place in (2, 3, 4, 8, 1 << 50, 1 << 51)] == [
        False,
        True,
        False,
        True,
        True,
        False,
    ]
    assert actions.numbers(data) == places
    assert Recipient(0, "a@b", "mx:b")
