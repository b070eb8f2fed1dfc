"""how many connections a site takes: a simulated server that refuses over a number"""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tripost.delivery.window import INITIAL, Window


class Server:
    """Takes `most` connections; each lives `life` seconds and is renewed as long as the window allows."""

    def __init__(self, window: Window, most: int, life: float, learned: int = 0) -> None:
        self.window = window
        self.most = most
        self.life = life
        self.now = 0.0
        self.open: list[float] = []
        self.log: list[tuple[float, bool]] = []

    def run(self, until: float) -> None:
        while self.now < until:
            while self.open and self.open[0] <= self.now:
                heapq.heappop(self.open)
            while len(self.open) > self.window.limit:
                heapq.heappop(self.open)
            while len(self.open) < self.window.limit or self.window.due(self.now, len(self.open)):
                if not self._connect():
                    break
            self.now += 0.05

    def _connect(self) -> bool:
        taken = len(self.open) < self.most
        self.log.append((self.now, taken))
        if taken:
            # lives differ, as they do
            heapq.heappush(self.open, self.now + self.life * (0.8 + 0.4 * (len(self.log) % 7) / 7))
            self.window.opened(self.now)
        else:
            self.window.refused(self.now, len(self.open) + 1, self.window.refusals)
        return taken

    def refused(self, start: float, end: float) -> float:
        part = [taken for when, taken in self.log if start <= when < end]
        return part.count(False) / max(1, len(part))


@pytest.mark.parametrize("life", [0.5, 1.0, 4.0])
def test_a_server_that_refuses_over_five(life: float) -> None:
    server = Server(Window(50), 5, life)
    server.run(300)
    assert server.refused(30, 300) <= 0.10
    assert server.window.limit in (5, 6)


@pytest.mark.parametrize("life", [0.5, 4.0, 30.0])
def test_more_is_found_within_a_minute_and_less_at_once(life: float) -> None:
    server = Server(Window(50), 5, life)
    server.run(200)
    server.most = 20
    server.run(260)
    assert len(server.open) >= 16
    server.run(400)
    server.most = 5
    server.run(430)
    fall = [taken for when, taken in server.log if when >= 400].index(True)  # refused before the first good one
    assert fall <= 6
    assert server.window.limit in (5, 6)
    server.run(630)
    assert server.refused(430, 630) <= (0.10 if life < 30 else 0.15)  # of so few connects one in 40 s is a lot


@given(first=st.integers(2, 200), then=st.integers(1, 200), life=st.sampled_from([0.3, 1.0, 3.0]))
@settings(max_examples=60, deadline=None)
def test_a_limit_that_moves_is_followed(first: int, then: int, life: float) -> None:
    """Up or down, from anywhere to anywhere: few are refused on the way, and what is allowed is used after a minute."""
    server = Server(Window(250), first, life)
    server.run(60)
    server.most = then
    start = len(server.log)
    server.run(120)
    way = [taken for _, taken in server.log[start:]]
    assert way[: way.index(True)].count(False) <= 2 * (first.bit_length() + 1)
    assert 0.8 * then - 1 <= len(server.open) <= then
    server.run(240)
    assert server.refused(150, 240) <= 0.10 or then == 1


def test_the_start_is_slow_and_doubles() -> None:
    window = Window(100)
    assert window.limit == INITIAL
    limits = []
    for _ in range(5):
        for _ in range(window.limit):
            window.opened(0.0)
        limits.append(window.limit)
    assert limits == [4, 8, 16, 32, 64]
    for _ in range(100):
        window.opened(0.0)
    assert window.limit == 100


def test_many_refusals_at_once_leave_what_was_taken() -> None:
    window = Window(50)
    for _ in range(18):
        window.opened(0.0)
    assert window.limit == 20
    for _ in range(15):  # twenty were renewed at the same moment, and five of them taken
        window.refused(1.0, 20, 0)
    assert window.limit == 5


def test_refused_again_and_again_it_falls_faster() -> None:
    window = Window(50)
    for _ in range(18):
        window.opened(0.0)
    limits = []
    for step in range(5):
        window.refused(float(step), window.limit, window.refusals)
        limits.append(window.limit)
    assert limits == [19, 17, 13, 7, 4]
    assert not window.due(9.0, 4)
    window.opened(9.0)
    assert window.due(9.0, 4)  # what was skipped is tried before many were good
    window.opened(9.0)
    assert window.due(10.0, 5)
    assert window.limit == 7
    window.refused(10.0, 7, window.refusals)
    assert window.limit == 6
    assert not window.due(19.0, 6)


def test_the_operators_bound_is_never_passed() -> None:
    window = Window(3)
    for step in range(1000):
        window.opened(float(step))
        window.due(float(step), window.limit)
        if step % 97 == 0:
            window.refused(float(step), 3)
        assert 1 <= window.limit <= 3


def test_down_and_up_again() -> None:
    window = Window(20)
    for _ in range(20):
        window.opened(0.0)
    assert window.limit == 20
    window.failed()
    assert (window.limit, window.learned) == (1, 0)
    assert not window.due(100.0, 1)
    window.opened(100.0)
    assert window.limit == 2


def test_what_was_learned_comes_back() -> None:
    window = Window(20)
    for _ in range(6):
        window.opened(0.0)
    window.refused(1.0, 6)
    assert window.learned == 5
    again = Window(20, learned=window.learned)
    assert again.limit == 5
    assert again.due(100.0, 5)
    assert again.limit == 6
    assert Window(20, fixed=True).limit == 20
