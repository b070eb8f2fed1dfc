"""rates, bans and whose address it is"""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.gateway.guard import LONGEST, Guard
from tripost.gateway.peer import Peer, account_key, address_of, is_in, network_of
from tripost.gateway.windows import NO_LIMIT, Rate, Windows


def test_a_window_fills_and_empties() -> None:
    one = Windows(Rate(10, 60.0))
    assert [one.take("a", 0.0) for _ in range(10)] == [0.0] * 10
    wait = one.take("a", 1.0)
    assert 59 < wait <= 66
    assert one.take("a", 1.0 + wait) == 0.0
    assert one.take("b", 1.0) == 0.0
    assert one.take("a", 500.0, 10) == 0.0
    assert one.take("a", 500.0, 11) > 0
    assert Windows(NO_LIMIT).take("a", 0.0, 1_000_000) == 0.0


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 4)), max_size=60))
def test_what_a_window_says_of_its_reset_is_true(steps: list[tuple[float, int]]) -> None:
    one, now = Windows(Rate(5, 10.0)), 0.0
    taken: list[tuple[float, int]] = []
    for pause, amount in steps:
        now += pause
        wait = one.take("k", now, amount)
        if wait:
            assert one.wait("k", now + wait + 1e-6, amount) == 0.0
        else:
            taken.append((now, amount))
        assert sum(n for at, n in taken if at // 10.0 == now // 10.0) <= 5


def test_tables_are_bounded() -> None:
    one = Windows(Rate(1, 60.0), most=10)
    for n in range(100):
        one.take(str(n), 0.0)
    assert len(one) == 10
    assert one.take("99", 0.0) > 0
    assert one.take("1", 0.0) == 0.0


def test_guessing_is_slowed_then_banned_then_let_in_again() -> None:
    guard = Guard(Rate(10, 600.0), 900.0)
    delays = [guard.failed("192.0.2.1", "marc", float(n)) for n in range(10)]
    assert delays[:3] == [0.5, 1.0, 2.0]
    assert delays[-1] == LONGEST
    assert guard.barred("192.0.2.1", "", 10.0) == pytest.approx(899.0)
    assert guard.barred("192.0.2.9", "Marc", 10.0) > 0  # the account, from anywhere
    assert guard.barred("192.0.2.9", "fred", 10.0) == 0.0
    assert guard.barred("192.0.2.1", "marc", 910.0) == 0.0
    assert guard.failed("192.0.2.1", "marc", 911.0) == 0.5


def test_success_clears_the_account_not_the_client() -> None:
    guard = Guard(Rate(3, 600.0), 900.0)
    for account in ("a", "b"):
        guard.failed("192.0.2.1", account, 0.0)
        guard.succeeded("192.0.2.1", account)
    guard.failed("192.0.2.1", "c", 0.0)
    assert guard.barred("192.0.2.1", "d", 1.0) > 0
    assert guard.barred("192.0.2.2", "a", 1.0) == 0.0


def test_an_ipv6_client_is_its_64() -> None:
    guard = Guard(Rate(2, 600.0), 900.0)
    guard.failed("2001:db8::1", "a", 0.0)
    guard.failed("2001:db8::ffff:2", "b", 0.0)
    assert guard.barred("2001:db8::3", "c", 1.0) > 0
    assert guard.barred("2001:db8:0:1::3", "c", 1.0) == 0.0


def test_addresses() -> None:
    assert str(address_of("::ffff:192.0.2.1")) == "192.0.2.1"
    assert str(address_of("fe80::1%eth0")) == "fe80::1"
    assert network_of("192.0.2.77") == "192.0.2.0/24"
    assert network_of("2001:db8::77") == "2001:db8::/64"
    assert account_key("") == ""
    assert is_in("192.0.2.1", (ipaddress.ip_network("192.0.2.0/24"),))
    assert not is_in("", (ipaddress.ip_network("0.0.0.0/0"),))
    assert Peer().loopback
    assert Peer(client="::1").loopback
    assert not Peer(client="192.0.2.1").loopback


def test_who_begins_later_is_told_what_was_before() -> None:
    guard, late = Guard(Rate(3, 600.0), 900.0), Guard(Rate(3, 600.0), 900.0)
    for n in range(3):
        guard.failed("192.0.2.1", "marc@machin.com", 1000.0 + n)
    guard.failed("192.0.2.9", "", 1003.0)
    late.learn(guard.known(1010.0), 77.0)  # its clock is another
    assert round(late.barred("192.0.2.1", "", 77.0)) == round(guard.barred("192.0.2.1", "", 1010.0))
    assert late.barred("192.0.2.9", "", 77.0) == 0.0
    late.failed("192.0.2.9", "", 78.0)
    late.failed("192.0.2.9", "", 78.0)
    assert late.barred("192.0.2.9", "", 78.0) > 0.0
