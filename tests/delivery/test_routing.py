"""address → route"""

from __future__ import annotations

import pytest

from tripost.delivery.routing import Refusal, Route, Router, RouteRule

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
