"""a host that goes wrong at every phase in every way: the outcome is right each time, and no worker hangs

Real loopback sockets; the mock clock jumps when all are still, so that time limits of minutes pass at once.
"""

from __future__ import annotations

import pathlib
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trustme
from msgspec.structs import replace
from trio.testing import MockClock

from support.chaos import HANDSHAKES, PHASES, WAYS, Chaos
from support.lab import Lab, lab
from support.queues import SMALL, put
from tripost.delivery.fast_stream import connect_tcp
from tripost.delivery.settings import DeliverySettings, Destination
from tripost.queue import events
from tripost.queue.retry import Schedule

pytestmark = pytest.mark.usefixtures("processes")

QUICK = replace(SMALL, retry=Schedule(first=20.0))
SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
trustme.CA().issue_cert("mx.far.example").configure_cert(SERVER)
RELAYED, BACKOFF, DEFERRED, FAILED = "relayed", "backoff", "deferred", "failed"


@pytest.fixture
def jumping_clock() -> MockClock:
    """Jumps only after 5 ms without anything: the kernel has delivered by then."""
    return MockClock(autojump_threshold=0.005)


def expected(phase: str, way: str) -> str:
    """What becomes of the first attempt."""
    if way in ("one-byte", "multi-line"):
        return RELAYED
    before = phase in ("greeting", "ehlo")
    if way == "4xx":
        return BACKOFF if before else DEFERRED
    if way == "5xx":
        return BACKOFF if before else FAILED
    return DEFERRED if phase == "dot" else BACKOFF  # after the dot it may be there: RFC 1047


@asynccontextmanager
async def _lab(folder: pathlib.Path, chaos: Chaos, level: str = "may") -> AsyncGenerator[Lab]:
    async with trio.open_nursery() as nursery:
        await nursery.start(chaos.run)

        async def connect(address: str, port: int, source: str = "") -> trio.abc.Stream:
            return await connect_tcp("127.0.0.1", chaos.port)

        settings = DeliverySettings(hostname="smtp.truc.fr", default=Destination(connections=2, idle=2.0, tls=level))
        async with lab(folder, settings=QUICK, delivery=settings, connect=connect) as one:
            yield one
        nursery.cancel_scope.cancel()


def _outcome(one: Lab) -> str:
    for kind, name in ((events.Relayed, RELAYED), (events.Bounced, FAILED), (events.BackedOff, BACKOFF)):
        if one.events(kind):
            return name
    return DEFERRED if one.events(events.DeferredUntil) else ""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", PHASES)
async def test_every_phase_in_every_way(
    jumping_clock: MockClock, tmp_path: pathlib.Path, phase: str, way: str
) -> None:
    await _goes_wrong(Chaos(phase, way), tmp_path, expected(phase, way))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("phase", ["mail", "rcpt", "dot"])
async def test_every_phase_where_chunks_are_taken(
    jumping_clock: MockClock, tmp_path: pathlib.Path, phase: str, way: str
) -> None:
    await _goes_wrong(Chaos(phase, way, chunks=True), tmp_path, expected(phase, way))


async def _goes_wrong(chaos: Chaos, folder: pathlib.Path, wanted: str) -> None:
    """The first attempt ends as wanted; once nothing is wrong any more, all is well."""
    phase = chaos.phase
    async with _lab(folder, chaos) as one:
        await put(one.queue, "m", "mx:far.example", "mx:far.example", accepted=one.clock.now())
        with trio.fail_after(3600):
            while not _outcome(one):  # noqa: ASYNC110 - asks from outside
                await trio.sleep(20)
        assert _outcome(one) == wanted
        assert one.queue.statistics().leased == 0
        chaos.phase = chaos.way = ""
        await trio.sleep(100)
        statistics = one.queue.statistics()
        assert (statistics.queued, statistics.leased) == (0, 0)
        assert statistics.relayed == (0 if wanted == FAILED else 2)
        twice = phase == "dot" and wanted == DEFERRED  # it may have been taken with that reply
        assert len(chaos.messages) in ((0,) if wanted == FAILED else (1, 2) if twice else (1,))
        assert not one.events(events.Trouble)


TLS_TROUBLE = [("starttls", way) for way in WAYS] + [("handshake", way) for way in HANDSHAKES]


@pytest.mark.parametrize("level", ["may", "encrypt"])
@pytest.mark.parametrize(("phase", "way"), TLS_TROUBLE)
async def test_tls_in_every_way(
    jumping_clock: MockClock, tmp_path: pathlib.Path, phase: str, way: str, level: str
) -> None:
    """At "may" the mail goes in plain text, and the host is remembered; at "encrypt" it waits, and nothing of it is
    said in plain text."""
    chaos = Chaos(phase, way, tls=SERVER)
    good = phase == "starttls" and way in ("one-byte", "multi-line")
    wanted = RELAYED if good or level == "may" else BACKOFF
    async with _lab(tmp_path, chaos, level) as one:
        await put(one.queue, "m", "mx:far.example", accepted=one.clock.now())
        with trio.fail_after(3600):
            while not _outcome(one):  # noqa: ASYNC110 - asks from outside
                await trio.sleep(20)
        assert _outcome(one) == wanted
        assert len(chaos.messages) == (wanted == RELAYED)
        assert ("MAIL" in chaos.plain) == (level == "may" and not good)
        tries = chaos.plain.count("STARTTLS")
        assert tries == 1
        chaos.phase = chaos.way = ""
        await put(one.queue, "m2", "mx:far.example", accepted=one.clock.now())
        await trio.sleep(400)
        assert len(chaos.messages) == 2
        assert one.queue.statistics().queued == 0
        assert (chaos.plain.count("STARTTLS") > tries) == (good or level == "encrypt")
        assert not one.events(events.Trouble)


@pytest.mark.parametrize("chunks", [True, False])
async def test_a_host_that_stops_reading(jumping_clock: MockClock, tmp_path: pathlib.Path, chunks: bool) -> None:
    chaos = Chaos("content", "stall", chunks=chunks)
    async with _lab(tmp_path, chaos) as one:
        await put(one.queue, "m", "mx:far.example", content=b"x: y\r\n\r\n" + b"z" * 70 + b"\r\n" * 4_000_000)
        with trio.fail_after(3600):
            while not _outcome(one):  # noqa: ASYNC110 - asks from outside
                await trio.sleep(20)
        assert _outcome(one) == DEFERRED
        assert "while sending" in one.events(events.DeferredUntil)[0].reply


async def test_greylisting(jumping_clock: MockClock, tmp_path: pathlib.Path) -> None:
    chaos = Chaos("rcpt", "4xx")
    async with _lab(tmp_path, chaos) as one:
        await put(one.queue, "m", "mx:far.example", accepted=one.clock.now())
        await trio.sleep(10)
        chaos.way = ""
        await trio.sleep(60)
        (deferred,) = one.events(events.DeferredUntil)
        assert deferred.attempt == 1
        assert len(one.events(events.Relayed)) == 1
        assert not one.events(events.BackedOff)
