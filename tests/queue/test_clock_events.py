"""the clock and the bus"""

from __future__ import annotations

import msgspec
import trio
from trio.testing import MockClock

from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Stopped, Trouble


def test_wall_time_follows_the_mock_clock() -> None:
    async def days() -> tuple[float, float]:
        clock = Clock(wall=lambda: 1_000_000.0)
        await trio.sleep(5 * 86400)
        return clock.now(), clock.to_trio(clock.now()) - trio.current_time()

    now, difference = trio.run(days, clock=MockClock(autojump_threshold=0))
    assert now == 1_000_000.0 + 5 * 86400
    assert abs(difference) < 1e-6


async def test_a_slow_subscriber_loses_events_and_is_told() -> None:
    bus = Bus()
    seen: list[object] = []
    bus.add_sink(seen.append)
    with bus.subscribe(size=2) as slow:
        for n in range(5):
            bus.emit(Trouble(time=float(n), where="test", reason="x"))
        assert slow.dropped == 3
        first = await slow.receive()
        assert first.time == 0.0
    bus.emit(Stopped(time=9.0, clean=True))
    assert len(seen) == 6


def test_events_are_numbered_over_restarts() -> None:
    seen: list[int] = []
    for _ in range(2):
        bus = Bus()
        bus.add_sink(lambda event: seen.append(event.seq))
        for _ in range(3):
            bus.emit(Stopped(time=0.0, clean=True))
        assert (seen[-1] - seen[-2], bus.emitted) == (1, 3)
    assert seen == sorted(set(seen))


def test_an_event_is_tagged_json() -> None:
    assert msgspec.json.encode(Stopped(time=1.0, clean=True)) == b'{"event":"stopped","time":1.0,"clean":true}'
