"""histograms: what they count, add up, and tell"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.queue.tally import FAST, LONG, Histogram

durations = st.lists(st.floats(0.0, 100.0), max_size=50)


def made(noted: list[float], bounds: tuple[float, ...] = FAST) -> Histogram:
    one = Histogram(bounds)
    for seconds in noted:
        one.note(seconds)
    return one


def test_a_duration_counts_where_it_is_at_most_the_bound() -> None:
    one = made([0.0, 0.001, 0.0011, 31.0], (0.001, 0.002, 30.0))
    assert one.counts == [2, 1, 0, 1]
    assert one.count == 4
    assert one.total == pytest.approx(31.0021)


@given(durations, durations)
def test_two_add_up_and_come_apart_again(one: list[float], two: list[float]) -> None:
    first, both = made(one), made(one + two)
    assert first.plus(made(two)).counts == both.counts
    assert both.since(first).counts == made(two).counts
    assert both.since(first).total == pytest.approx(sum(two), abs=1e-6)


def test_a_copy_stays_as_it_was() -> None:
    one = made([0.1])
    kept = one.copy()
    one.note(0.2)
    assert (kept.count, one.count) == (1, 2)
    assert Histogram().counts == [0] * (len(FAST) + 1), "histograms share nothing"


@given(st.lists(st.floats(0.0, 30.0), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_lies_between_the_bounds_of_what_it_is(noted: list[float], part: float) -> None:
    found, rank = made(noted).quantile(part), part * len(noted)
    high = min(bound for bound in FAST if bound >= found)
    low = max([0.0, *(bound for bound in FAST if bound < found)])
    assert sum(one <= high for one in noted) >= rank - 1e-6
    assert sum(one <= low for one in noted if low) <= rank + 1e-6


def test_quantiles_at_the_ends() -> None:
    assert Histogram().quantile(0.5) == 0.0
    assert made([1e9]).quantile(0.5) == FAST[-1], "what is longer counts as the last bound"
    assert 0.002 < made([0.004] * 10).quantile(0.5) <= 0.005
    assert list(FAST) == sorted(FAST)
    assert list(LONG) == sorted(LONG)
