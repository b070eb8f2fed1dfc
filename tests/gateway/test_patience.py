"""one task that knows who has waited too long"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tripost.gateway.ingress.patience import NEVER, TICK, Patience


class Waits:
    def __init__(self, due: float) -> None:
        self.due = due
        self.ended: list[float] = []

    def over(self) -> None:
        self.ended.append(trio.current_time())
        self.due = NEVER


@pytest.fixture
async def patience(nursery: trio.Nursery) -> Patience:
    one = Patience()
    nursery.start_soon(one.run)
    return one


async def test_each_is_ended_at_its_time(autojump_clock: MockClock, patience: Patience) -> None:
    start = trio.current_time()
    soon, later, works = Waits(start + 5.5), Waits(start + 300.0), Waits(NEVER)
    for one in (soon, later, works):
        patience.enter(one)
    await trio.sleep(200)
    soon.due = start + 250.0
    await trio.sleep(200)
    assert [at - start for at in soon.ended] == [pytest.approx(6, abs=TICK / 2), pytest.approx(250.5, abs=TICK)]
    assert [at - start for at in later.ended] == [pytest.approx(300.5, abs=TICK)]
    assert not works.ended


async def test_who_has_left_is_not_ended(autojump_clock: MockClock, patience: Patience) -> None:
    one, other = Waits(trio.current_time() + 5), Waits(trio.current_time() + 5)
    patience.enter(one)
    patience.enter(other)
    patience.leave(one)
    patience.leave(one)
    await trio.sleep(10)
    assert (len(one.ended), len(other.ended)) == (0, 1)


async def test_nothing_wakes_up_for_nobody(autojump_clock: MockClock, patience: Patience) -> None:
    one = Waits(trio.current_time() + 5)
    patience.enter(one)
    patience.leave(one)
    await trio.sleep(2)
    parked = trio.lowlevel.current_statistics().seconds_to_next_deadline
    assert parked == float("inf")
    patience.enter(one)
    await trio.sleep(6)
    assert len(one.ended) == 1
