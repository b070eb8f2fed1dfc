"""what only delivery processes can do: die, in the middle of anything, and be fewer than wanted"""

from __future__ import annotations

import pathlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
from trio.testing import MockClock

import support.lab
from support.lab import Hands, Lab, lab
from support.queues import SMALL, put
from tripost.delivery.processes.courier import Courier
from tripost.delivery.processes.messages import Done, FromCourier, FromManager
from tripost.delivery.settings import DeliverySettings, Destination
from tripost.delivery.wire.replies import LINES_LIMIT
from tripost.queue import events
from tripost.queue.channel import Channel, pair
from tripost.queue.dialogue import Wanted
from tripost.queue.framing import decoder, frame
from tripost.queue.message import Deferred
from tripost.queue.retry import Schedule

SETTINGS = DeliverySettings(hostname="smtp.truc.fr", default=Destination(connections=6, idle=5.0))


class Counted(trio.abc.Stream):
    """A stream that is counted until it is closed: how many sockets there are, not how many a peer still serves."""

    open = most = 0

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self._closed = False
        Counted.open += 1
        Counted.most = max(Counted.most, Counted.open)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        Counted.open -= not self._closed
        self._closed = True
        await self._inner.aclose()


@asynccontextmanager
async def _lab(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, count: int = 3, **more: object
) -> AsyncGenerator[tuple[Lab, Hands]]:
    monkeypatch.setattr(support.lab, "PROCESSES", count)
    more.setdefault("delivery", SETTINGS)
    async with lab(folder, **more) as one:  # type: ignore[arg-type]
        assert one.hands is not None
        Counted.open = Counted.most = 0

        async def connect(address: str, port: int, source: str = "") -> trio.abc.Stream:
            return Counted(await one.peer.connect(address, port, source))

        one.connect = connect
        with trio.fail_after(5):
            while one.hands.crew.statistics().alive < count:  # noqa: ASYNC110 - asks from outside
                await trio.sleep(0.01)
        yield one, one.hands


async def _fill(one: Lab, count: int, start: int = 0) -> None:
    for n in range(start, start + count):
        await put(one.queue, f"m{n}", "mx:machin.com", accepted=one.clock.now())


async def _settled(one: Lab, patience: float = 30.0) -> None:
    end = trio.current_time() + patience
    while one.queue.statistics().queued and trio.current_time() < end:  # noqa: ASYNC110 - asks from outside
        await trio.sleep(0.01)
    assert not one.queue.statistics().queued


async def test_connections_go_where_there_are_fewest(
    autojump_clock: MockClock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _lab(tmp_path, monkeypatch) as (one, hands):
        one.peer.slow["."] = 1.0
        await _fill(one, 40)
        await trio.sleep(5)
        assert sorted(row.connections for row in hands.crew.statistics().members) == [2, 2, 2]
        assert Counted.open == 6
        await _settled(one)
        await trio.sleep(11)
        assert hands.crew.statistics().connections == Counted.open == 0
        assert hands.crew.statistics().messages == 40
        assert not any(courier.shelf._readers for courier in hands.couriers.values())  # removed segments give back room


async def test_what_was_under_way_is_tried_again_at_once(
    autojump_clock: MockClock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _lab(tmp_path, monkeypatch) as (one, hands):
        one.peer.slow["."] = 1.0
        await _fill(one, 40)
        await trio.sleep(5.5)
        hands.scopes[0].cancel()
        await _settled(one)
        assert Counted.most == 6
        assert len(one.peer.messages) in (40, 41, 42)  # two may have been taken without our hearing it: RFC 1047
        assert not one.events(events.DeferredUntil) + one.events(events.BackedOff)
        assert [row.reason for row in one.events(events.Trouble)] == [
            "delivery process 1 (pid 0) ended: closed by the peer"
        ]
        assert hands.crew.statistics().messages == 40  # those of the dead one too


@pytest.mark.parametrize("phase", ["greeting", "EHLO", "MAIL", "DATA", ".", "QUIT", "idle"])
async def test_death_at_every_phase(
    autojump_clock: MockClock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    async with _lab(tmp_path, monkeypatch, 2) as (one, hands):
        if phase != "idle":
            one.peer.slow[phase] = 2.0
        await _fill(one, 1)
        if phase in ("QUIT", "idle"):
            await _settled(one)
        await trio.sleep(6.0 if phase == "QUIT" else 1.0)
        assert Counted.open == 1
        hands.scopes[0].cancel()
        one.peer.slow.clear()
        await trio.sleep(0.1)
        assert Counted.open == (0 if phase in ("QUIT", "idle") else 1)
        await _fill(one, 1, 1)
        await _settled(one, 3.0)
        assert len(one.peer.messages) == 2 + (phase == ".")
        assert not one.events(events.DeferredUntil) + one.events(events.BackedOff)
        assert one.queue.statistics().leased == 0


async def test_while_none_is_alive_nothing_is_tried(
    autojump_clock: MockClock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _lab(tmp_path, monkeypatch) as (one, hands):
        for scope in list(hands.scopes.values()):
            scope.cancel()
        await trio.sleep(1)
        assert hands.crew.statistics().alive == 0
        await _fill(one, 20)
        await trio.sleep(4 * 3600)
        assert not one.events(events.Attempted) + one.events(events.DeferredUntil) + one.events(events.BackedOff)
        assert one.queue.statistics().queued == 20
        async with trio.open_nursery() as nursery:
            await nursery.start(hands.run, 7)
            await _settled(one)
            assert len(one.peer.messages) == 20
            assert all(row.attempt == 1 for row in one.events(events.Relayed))
            hands.scopes[7].cancel()
        assert hands.crew.statistics().deaths == 4


async def test_a_stop_does_not_wait_for_a_process(
    autojump_clock: MockClock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _lab(tmp_path, monkeypatch) as (one, hands):
        for scope in list(hands.scopes.values()):
            scope.cancel()
        await trio.sleep(1)
        await _fill(one, 20)
        await trio.sleep(1)
        assert one.queue.statistics().leased
        one.dispatcher.stop()
        await trio.sleep(0.1)
        assert (one.queue.statistics().leased, one.queue.statistics().queued) == (0, 20)


async def test_a_message_that_kills_has_its_own_retry(
    autojump_clock: MockClock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried again at once it would kill one process after the other."""
    settings = msgspec.structs.replace(SMALL, retry=Schedule(first=300.0))
    async with _lab(tmp_path, monkeypatch, settings=settings) as (one, hands):
        deaths = 0

        def rcpt(line: str) -> str:
            nonlocal deaths
            if "u0" in line and deaths < 2:
                deaths += 1
                for number, courier in hands.couriers.items():  # whoever said that
                    if courier.channel.statistics().received > 2:
                        busiest = number
                hands.scopes[busiest].cancel()
                del hands.couriers[busiest]
            return "250 ok"

        one.peer.answers["RCPT"] = rcpt
        await _fill(one, 1)
        await trio.sleep(60)
        assert deaths == 2
        (deferred,) = one.events(events.DeferredUntil)
        assert "ended, for the second time with this message" in deferred.reply
        assert deferred.attempt == 1
        await trio.sleep(400)
        assert len(one.events(events.Relayed)) == 1


async def test_sockets_of_a_race_keep_to_the_limit_wherever_they_are(
    autojump_clock: MockClock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = DeliverySettings(hostname="x", default=Destination(connections=2, connect_timeout=3.0))
    async with _lab(tmp_path, monkeypatch, delivery=terms) as (one, hands):
        one.names.found["mx.machin.com"] = ["2001:db8::1", "192.0.2.1", "2001:db8::2"]
        one.peer.silent = True
        await _fill(one, 1)
        await trio.sleep(0.4)
        site = next(iter(one.dispatcher._sites.values()))
        assert (site.workers, site.extras) == (1, 1)
        assert len(one.peer.addresses) == 2  # the third has to wait
        hands.scopes[0].cancel()
        one.peer.silent = {"2001:db8::1", "2001:db8::2"}
        await _settled(one)
        await trio.sleep(20)
        assert (site.workers, site.extras) == (0, 0)


async def test_another_version_is_not_spoken_to(
    autojump_clock: MockClock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _lab(tmp_path, monkeypatch, 2) as (one, hands):
        monkeypatch.setattr("tripost.delivery.processes.courier.VERSION", 99)
        async with trio.open_nursery() as nursery:
            await nursery.start(hands.run, 9)
            await trio.sleep(1)
        assert hands.crew.statistics().alive == 2
        assert "another version" in one.events(events.Trouble)[0].reason


async def test_a_content_that_cannot_be_read_is_tried_later(
    autojump_clock: MockClock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _lab(tmp_path, monkeypatch, 2) as (one, hands):
        content = b"Subject: x\r\n\r\n" + b"x" * 1000
        await put(one.queue, "m", "mx:machin.com", content=content, accepted=one.clock.now())
        for courier in hands.couriers.values():
            monkeypatch.setattr(courier.shelf, "open_body", _fails)
        await trio.sleep(1)
        (deferred,) = one.events(events.DeferredUntil)
        assert deferred.reply.startswith("451 4.3.0 ")
        assert one.peer.connections == 1
        assert one.peer.open == 1  # which is as good as before


def _fails(*_: object) -> None:
    from tripost.queue.errors import SpoolError

    raise SpoolError("gone")


def test_what_a_talkative_host_said_to_thousands_fits() -> None:
    """A reply can be half a megabyte long, and be that of each recipient."""
    from tripost.delivery.processes.courier import _shortened

    outcomes = {n: Deferred(451, "4.0.0", "x" * 4000 * LINES_LIMIT) for n in range(100)}
    with pytest.raises(Exception, match="are allowed"):
        frame(-1, Done(outcomes, 1))
    data = frame(-1, Done(_shortened(outcomes), 1))
    number, done = decoder(FromCourier)(data[4:])
    assert number == -1
    assert isinstance(done, Done)
    assert len(done.outcomes) == 100


def test_both_sides_messages_are_told_apart() -> None:
    for kinds in (FromManager, FromCourier):
        tags = [one.__struct_config__.tag for one in kinds.__args__]
        assert len(tags) == len(set(tags))


async def test_one_waits_for_a_manager_that_says_nothing_yet(autojump_clock: MockClock) -> None:
    """It is just starting, or was stopped: nobody has told where the spool is."""
    ours, theirs = pair()
    heard: list[object] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Courier(theirs).run)
        nursery.start_soon(Channel[FromCourier, FromManager](ours, FromCourier, lambda _, one: heard.append(one)).run)
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert [type(one).__name__ for one in heard] == ["Hello", "Figures", "Figures", "Figures"]


async def test_the_dialogue_is_told_as_if_it_were_here(
    autojump_clock: MockClock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[tuple[str, str, str]]] = []
    for count in (1, 2):
        monkeypatch.setattr(support.lab, "PROCESSES", count)
        async with lab(tmp_path / str(count)) as one:
            with one.bus.tracing.listen(Wanted(destination="192.0.2.1")) as tracer:
                await trio.sleep(1)
                await _fill(one, 1)
                await trio.sleep(10)  # QUIT too
                told.append([])
                with trio.move_on_after(1):
                    while True:
                        line = await tracer.receive()
                        told[-1].append((line.peer, line.direction, line.text))
            await trio.sleep(1)
            hands = one.hands
            if hands is not None:
                assert not any(courier.tracers for courier in hands.couriers.values())
    assert told[0] == told[1]
    assert ("mx.machin.com [192.0.2.1]", ">", "QUIT") in told[0]
    assert len(told[0]) == 16
