"""address → route"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.delivery.routing import CACHE, Refusal, Route, Router
from tripost.delivery.rules import RouteRule, Rules, check_sender

USERS = {"marc@machin.com": "marc@machin.com", "Ann@machin.com": "ann"}
RULES = [
    RouteRule("exact.example", "smtp://relay.example:2525"),
    RouteRule("*.example", "smtp://[::1]"),
    RouteRule("late.example", "discard"),
    RouteRule("*.nowhere", "discard"),
    RouteRule("no.test", "reject"),
]


def _router(*rules: RouteRule) -> Router:
    return Router(
        local_domains=frozenset({"machin.com", "machin.net"}),
        users=USERS.get,
        relay_domains=frozenset({"partner.test"}),
        rules=rules or RULES,
        postmaster="marc@machin.com",
    )


@pytest.mark.parametrize(
    ("address", "next_hop", "recipient"),
    [
        ("marc@machin.com", "local", "marc@machin.com"),
        ("MARC@machin.com", "local", "marc@machin.com"),
        ("marc+list@machin.com", "local", "marc@machin.com"),
        ("Ann@machin.com", "local", "ann"),
        ("postmaster", "local", "marc@machin.com"),
        ("Postmaster@machin.net", "local", "marc@machin.com"),
        ("a@exact.example", "smtp://relay.example:2525", "a@exact.example"),
        ("a@x.example", "smtp://[::1]:25", "a@x.example"),
        ("a@late.example", "smtp://[::1]:25", "a@late.example"),
        ("a@deep.x.nowhere", "discard", "a@deep.x.nowhere"),
        ("a@nowhere", "mx:nowhere", "a@nowhere"),
        ("a@other.test", "mx:other.test", "a@other.test"),
    ],
)
def test_routes(address: str, next_hop: str, recipient: str) -> None:
    assert _router().decide(address, True) == Route(next_hop, recipient)
    assert _router().route(address) == Route(next_hop, recipient)


@pytest.mark.parametrize(
    ("address", "may_relay", "code"),
    [
        ("nobody@machin.com", True, (550, "5.1.1")),
        ("+@machin.com", True, (550, "5.1.1")),
        ("a@other.test", False, (550, "5.7.1")),
        ("a@no.test", True, (550, "5.7.1")),
        ("nobody", True, (550, "5.1.1")),
    ],
)
def test_refusals(address: str, may_relay: bool, code: tuple[int, str]) -> None:
    refusal = _router().decide(address, may_relay)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.enhanced) == code


def test_partners_are_relayed_to_from_anyone() -> None:
    assert _router().decide("a@partner.test", False) == Route("mx:partner.test", "a@partner.test")


def test_a_rule_for_a_local_domain_takes_whom_we_do_not_know() -> None:
    router = _router(RouteRule("machin.com", "smtp://old.machin.com"))
    assert router.decide("marc@machin.com", False) == Route("local", "marc@machin.com")
    assert router.decide("old@machin.com", False) == Route("smtp://old.machin.com:25", "old@machin.com")


def test_the_smart_host_takes_the_rest() -> None:
    router = _router(RouteRule("direct.test", "mx"), RouteRule("*", "smtp://smart.test"))
    assert router.decide("a@direct.test", True) == Route("mx:direct.test", "a@direct.test")
    assert router.decide("a@any.test", True) == Route("smtp://smart.test:25", "a@any.test")
    assert router.route("gone@machin.net").next_hop == "smtp://smart.test:25"
    assert _router(RouteRule("x", "mx")).route("gone@machin.com") == Route("local", "gone@machin.com")


BY_SENDER = (
    RouteRule("vip.test", "smtp://vip.test"),
    RouteRule("*", "smtp://one.test", (), "News@bulk.test"),
    RouteRule("*.far.test", "smtp://far.test", (), "*@bulk.test"),
    RouteRule("*", "smtp://bulk.test", (("source", "bulk"),), "*@bulk.test"),
    RouteRule("a.far.test", "smtp://late.test", (), "*"),
    RouteRule("*", "smtp://sub.test", (), "*@*.bulk.test"),
    RouteRule("*", "mx", (("source", "reports"),), "<>"),
    RouteRule("*", "smtp://all.test"),
)


@pytest.mark.parametrize(
    ("sender", "address", "next_hop"),
    [
        ("news@bulk.test", "u@any.test", "smtp://one.test:25"),
        ("news@BULK.test", "u@vip.test", "smtp://vip.test:25"),  # the first that fits
        ("x@bulk.test", "u@a.far.test", "smtp://far.test:25"),
        ("x@bulk.test", "u@far.test", "smtp://bulk.test:25?source=bulk"),
        ("x@y.bulk.test", "u@a.far.test", "smtp://late.test:25"),
        ("x@y.bulk.test", "u@b.test", "smtp://sub.test:25"),
        ("x@deep.y.bulk.test", "u@b.test", "smtp://sub.test:25"),
        ("", "u@b.test", "mx:b.test?source=reports"),
        ("x@other.test", "u@b.test", "smtp://all.test:25"),
        ("x@notbulk.test", "u@b.test", "smtp://all.test:25"),
    ],
)
def test_routes_by_sender(sender: str, address: str, next_hop: str) -> None:
    router = _router(*BY_SENDER)
    assert router.by_sender
    assert router.route(address, sender).next_hop == next_hop
    decided = router.decide(address, True, sender)
    assert isinstance(decided, Route)
    assert decided.next_hop == next_hop


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a.x", "*.x", "*", "b.a.x"]), st.sampled_from(["*", "<>", "u@s.x", "*@s.x", "*@*.x"])
        )
    ),
    st.sampled_from(["a.x", "b.a.x", "x", "c"]),
    st.sampled_from(["", "u@s.x", "v@s.x", "u@x", "u@t.s.x"]),
)
def test_the_first_rule_that_fits(rules: list[tuple[str, str]], domain: str, sender: str) -> None:
    def fits(rule: tuple[str, str]) -> bool:
        to, by = rule
        good = to == "*" or to == domain or (to[0] == "*" and domain.endswith(to[1:]))
        _, _, at = sender.rpartition("@")
        if by == "*@*.x":
            return good and at.endswith(".x")
        return good and (by == "*" or by == (sender or "<>") or (by == "*@s.x" and at == "s.x"))

    made = Rules([RouteRule(to, f"smtp://h{n}.x", (), by) for n, (to, by) in enumerate(rules)])
    found = made.find(domain, sender)
    expected = next((f"smtp://h{n}.x:25" for n, rule in enumerate(rules) if fits(rule)), None)
    assert (found and found.fixed) == expected


@pytest.mark.parametrize("pattern", ["x", "*@", "*@a..b", "a@*.x", "*@*", "<", "a b@x"])
def test_no_sender(pattern: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any text
        check_sender(pattern)


def test_so_many_domains_are_remembered() -> None:
    router = _router()
    for number in range(CACHE * 2):
        router.decide(f"u@d{number}.example", True)
    assert len(router._ways) + len(router._older) <= CACHE
    assert router.decide("u@d0.EXAMPLE", True) == Route("smtp://[::1]:25", "u@d0.EXAMPLE")


def test_nothing_is_remembered_where_it_matters_who_sends() -> None:
    router = _router(RouteRule("*", "discard", sender="*@a.example"), RouteRule("*", "mx"))
    for _ in range(2):
        assert router.decide("u@far.test", True, "x@a.example") == Route("discard", "u@far.test")
        assert router.decide("u@far.test", True, "x@b.example") == Route("mx:far.test", "u@far.test")
        assert router.decide("u@far.test", True) == Route("mx:far.test", "u@far.test")

