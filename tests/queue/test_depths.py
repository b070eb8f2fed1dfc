"""how deep the queue is, without stalling it: the fullest next hops, ages, states"""

from __future__ import annotations

import time

import pytest

from support.fake_files import FakeFiles
from support.queues import queue_on
from tripost.queue.depths import AGES
from tripost.queue.finding import Wanted
from tripost.queue.manager import Queue
from tripost.queue.message import Deferred, Envelope, Recipient
from tripost.queue.planning import Order

NOW = 1_800_000_000.0
EXPIRE = 432_000.0


async def enter(queue: Queue, id: str, hop: str, recipients: int = 1, age: float = 0.0) -> None:
    body = queue.new_body()
    await body.write(b"x" * 100)
    people = tuple(Recipient(n, f"u{n}@x", hop) for n in range(recipients))
    await queue.accept(Envelope(id, "s", people, NOW - age, NOW + EXPIRE - age, 100), body)


async def test_depths_are_those_of_the_summary(autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        for n in range(30):
            await enter(queue, f"A{n}", f"mx:{n % 4}", recipients=1 + n % 3, age=(n % 10) * 1000.0)
        for n in range(10):
            await enter(queue, f"B{n}", "mx:0")
        depths = queue.search.depths
        assert (await depths.fullest(2))[0] == "mx:0"
        assert len(await depths.fullest(100)) == 4
        sampled = await depths.sample(["mx:0", "mx:3", "mx:none"])
        summary = {one.next_hop: one for one in await queue.search.summary()}
        for name in ("mx:0", "mx:3"):
            mine, other = sampled.hops[name], summary[name]
            assert (mine.deliveries, mine.recipients, mine.octets) == (
                other.deliveries,
                other.recipients,
                other.octets,
            )
            assert mine.ages == other.ages
            assert mine.deliveries == depths.count(name)
            assert mine.oldest == pytest.approx(other.oldest, abs=1)
        assert sampled.hops["mx:none"].deliveries == depths.count("mx:none") == 0
        assert sampled.total.deliveries == sum(one.deliveries for one in summary.values())
        assert sum(sampled.total.ages) == sampled.total.deliveries
        assert len(sampled.total.ages) == len(AGES) + 1


async def test_states_are_counted(autojump_clock: object) -> None:
    async with queue_on(FakeFiles()) as queue:
        for n in range(9):
            await enter(queue, f"A{n}", "mx:a")
        (leased,) = await queue.claim("mx:a", 1)
        (later,) = await queue.claim("mx:a", 1)
        await queue.settle(later, {0: Deferred(451, "4.2.0", "later", "mx")})
        order = Order(verb="hold", who="me", filter="", grace=300.0)
        await queue.edit.act(order, Wanted(id="A5"))
        await queue.edit.act(Order(verb="delete", who="me", filter="", grace=300.0), Wanted(id="A6"))
        states = (await queue.search.depths.sample([])).states
        assert states == {"held": 1, "active": 1, "ending": 1, "suspended": 0, "deferred": 1}
        queue.release(leased)


async def test_a_deep_queue_with_many_next_hops_is_looked_at_gently() -> None:
    async with queue_on(FakeFiles()) as queue:
        rows, schedule = queue.search._rows, queue._schedule
        for n in range(100_000):  # as recovery would put them there
            hop = schedule.number(f"mx:{n}.example")
            rows.new(2 * n, hop, NOW, NOW + EXPIRE, 1, size=100)
            schedule.enrol(hop, 1)
        schedule.enrol(schedule.number("mx:77.example"), 5)
        began = time.process_time()
        full = await queue.search.depths.fullest(50)
        assert (len(full), full[0]) == (50, "mx:77.example")
        sampled = await queue.search.depths.sample(full)
        assert time.process_time() - began < 3  # some tenths where nobody else works
        assert len(sampled.hops) == 50
        assert sampled.total.deliveries == 100_000
