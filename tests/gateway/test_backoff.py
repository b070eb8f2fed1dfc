"""how long a dead process waits for its successor"""

from __future__ import annotations

from tripost.gateway.processes.backoff import LONGEST, LOOP, SHORTEST, SPAN, STEADY, Backoff


def test_deaths_in_a_row_cost_more_and_more() -> None:
    one = Backoff()
    delays = [one.died(float(n), 1.0) for n in range(12)]
    assert delays[:4] == [SHORTEST, SHORTEST * 2, SHORTEST * 4, SHORTEST * 8]
    assert delays[-1] == LONGEST
    assert one.died(100.0, STEADY) == SHORTEST
    assert one.deaths == 13


def test_a_crash_loop_is_told_once_and_ends() -> None:
    one = Backoff()
    for n in range(LOOP):
        assert not one.looping
        one.died(10.0 * n, STEADY)
    assert one.looping
    assert not one.lives(SPAN - 1)
    assert one.lives(SPAN)
    assert not one.looping
    assert not one.lives(SPAN * 2)


def test_few_deaths_are_no_loop() -> None:
    one = Backoff()
    for n in range(50):
        one.died(n * SPAN / (LOOP - 2), SPAN)
        assert not one.looping
