"""a host that goes wrong at every phase in every way: the outcome is right each time, and no worker hangs

Real loopback sockets; the mock clock jumps when all are still, so that time limits of minutes pass at once.
"""

from __future__ import annotations

import pathlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from support.chaos import PHASES, WAYS, Chaos
from support.lab import Lab, lab
from support.queues import SMALL, put
from tripost.delivery.connection import connect_tcp
from tripost.delivery.settings import DeliverySettings, Destination
from tripost.queue import events
from tripost.queue.retry import Schedule

QUICK = replace(SMALL, retry=Schedule(first=20.0))
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
async def _lab(folder: pathlib.Path, chaos: Chaos) -> AsyncGenerator[Lab]:
    async with trio.open_nursery() as nursery:
        await nursery.start(chaos.run)

        async def connect(address: str, port: int, source: str = "") -> trio.abc.Stream:
            return await connect_tcp("127.0.0.1", chaos.port)

        settings = DeliverySettings(hostname="smtp.truc.fr", default=Destination(connections=2, idle=2.0))
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
    chaos = Chaos(phase, way)
    async with _lab(tmp_path, chaos) as one:
        await put(one.queue, "m", "mx:far.example", "mx:far.example", accepted=one.clock.now())
        with trio.fail_after(3600):
            while not _outcome(one):  # noqa: ASYNC110 - asks from outside
                await trio.sleep(20)
        wanted = expected(phase, way)
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


async def test_a_host_that_stops_reading(jumping_clock: MockClock, tmp_path: pathlib.Path) -> None:
    chaos = Chaos("content", "stall")
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
