"""rates: never exceeded, evenly spread, over stops too"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.delivery.pace import CATCH_UP, MOST, Pace, after_crash
from tripost.delivery.settings import Rate


def _most(times: list[float], seconds: float) -> int:
    """The most in any half-open span."""
    most = start = 0
    for end, when in enumerate(times):
        while when - times[start] >= seconds:
            start += 1
        most = max(most, end - start + 1)
    return most


RATES = st.builds(Rate, st.integers(1, 200), st.sampled_from([1.0, 10.0, 60.0, 3600.0]))
LATE = st.lists(st.floats(0.0, 0.5), min_size=300, max_size=300)


def _run(pace: Pace, now: float, lates: list[float], until: int) -> list[float]:
    """Somebody always wants to, and wakes up late by so much."""
    times: list[float] = []
    for late in lates[:until]:
        waited = False
        while wait := pace.wait(now):
            waited = True
            now += wait + late
        pace.take(now, waited=waited)
        times.append(now)
    return times


@given(RATES, LATE)
def test_never_more_than_so_many_in_any_span(rate: Rate, lates: list[float]) -> None:
    times = _run(Pace(rate), 1000.0, lates, 300)
    assert _most(times, rate.seconds) <= rate.count


@given(RATES, LATE, st.integers(1, 299), st.booleans())
def test_nor_over_a_stop(rate: Rate, lates: list[float], when: int, clean: bool) -> None:
    before = Pace(rate)
    times = _run(before, 1000.0, lates, when)
    begin = before.state() if clean else after_crash(rate, times[-1])
    times += _run(Pace(rate, begin), times[-1], lates[when:], 300)
    assert _most(times, rate.seconds) <= rate.count


@given(RATES)
def test_all_of_it_is_given_evenly(rate: Rate) -> None:
    pace = Pace(rate)
    times = _run(pace, 0.0, [0.0] * 300, 300)
    assert times[-1] - times[0] == pytest.approx(299 * pace.interval, rel=0.01)
    assert all(b - a >= pace.interval * 0.999 for a, b in pairwise(times))


def test_lateness_is_made_up_for() -> None:
    """At 50/s with 15 ms of lateness each, the rate is reached all the same."""
    times = _run(Pace(Rate(50, 1.0)), 0.0, [0.015] * 250, 250)
    assert times[-1] - times[0] < 249 / 50 * 1.02


def test_a_pause_saves_nothing_up() -> None:
    pace = Pace(Rate(10, 1.0))
    pace.take(0.0)
    assert pace.wait(100.0) == 0.0
    pace.take(100.0)
    assert pace.wait(100.0) == pytest.approx(0.1)


def test_large_counts_are_kept_small() -> None:
    pace = Pace(Rate(1_000_000, 3600.0))
    assert len(pace._times) <= MOST
    assert pace.interval == pytest.approx(0.0036, rel=0.01)
    assert Pace(Rate(0, 1.0)).wait(5.0) == 0.0
    assert after_crash(Rate(50, 1.0), 10.0) == pytest.approx(10.0 + 2 * CATCH_UP + 0.04)
    assert after_crash(Rate(), 10.0) == 0.0
