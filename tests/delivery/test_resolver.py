"""real questions to a real DNS server on loopback"""

from __future__ import annotations

import dns.message
import pytest
import trio

from tripost.delivery.links import Unroutable
from tripost.delivery.resolver import Hosts, Resolver
from tripost.gateway.demo_dns import Authority, serve_dns

ZONES = {
    "two.test": [
        ("two.test", "MX", "20 b.two.test."),
        ("two.test", "MX", "10 a.two.test."),
        ("two.test", "MX", "20 c.two.test."),
        ("a.two.test", "A", "192.0.2.1"),
        ("a.two.test", "AAAA", "2001:db8::1"),
        ("empty.two.test", "TXT", '"no address"'),
    ],
    "bare.test": [("bare.test", "A", "192.0.2.2")],
    "null.test": [("null.test", "MX", "0 .")],
    "back.test": [
        ("back.test", "MX", "10 better.test."),
        ("back.test", "MX", "20 me.test."),
        ("back.test", "MX", "30 worse.test."),
    ],
    "mine.test": [("mine.test", "MX", "10 me.test.")],
    "byaddress.test": [
        ("byaddress.test", "MX", "10 good.byaddress.test."),
        ("byaddress.test", "MX", "20 equal.byaddress.test."),
        ("byaddress.test", "MX", "20 other-name.byaddress.test."),
        ("byaddress.test", "MX", "30 worse.byaddress.test."),
        ("good.byaddress.test", "A", "192.0.2.1"),
        ("equal.byaddress.test", "A", "192.0.2.2"),
        ("other-name.byaddress.test", "A", "192.0.2.3"),
        ("other-name.byaddress.test", "AAAA", "2001:db8::77"),
        ("worse.byaddress.test", "A", "192.0.2.4"),
    ],
    "best.test": [
        ("best.test", "MX", "10 a.best.test."),
        ("best.test", "MX", "20 b.best.test."),
        ("a.best.test", "A", "192.0.2.77"),
        ("b.best.test", "A", "192.0.2.4"),
    ],
    "bare77.test": [("bare77.test", "A", "192.0.2.77")],
}


async def test_answers() -> None:
    async with trio.open_nursery() as nursery:
        resolver = Resolver([await nursery.start(serve_dns, ZONES)], "Me.test")
        orders = set()
        for _ in range(40):
            orders.add((await resolver.mx("two.test")).names)
        assert orders == {
            ("a.two.test", "b.two.test", "c.two.test"),
            ("a.two.test", "c.two.test", "b.two.test"),
        }
        assert await resolver.mx("bare.test") == Hosts(("bare.test",), ttl=30.0, implicit=True)
        assert await resolver.mx("back.test") == Hosts(("better.test",), ttl=300.0)
        assert await resolver.addresses("a.two.test") == ["2001:db8::1", "192.0.2.1"]
        assert await resolver.addresses("bare.test") == ["192.0.2.2"]
        for domain, enhanced in [("null.test", "5.1.10"), ("gone.two.test", "5.1.2"), ("mine.test", "5.4.6")]:
            with pytest.raises(Unroutable) as info:
                await resolver.mx(domain)
            assert (info.value.enhanced, info.value.permanent) == (enhanced, True)
        with pytest.raises(Unroutable) as info:
            await resolver.addresses("empty.two.test")
        assert info.value.enhanced == "5.4.4"
        with pytest.raises(Unroutable) as info:
            await resolver.mx("not-served.example")  # REFUSED
        assert (info.value.enhanced, info.value.permanent) == ("4.4.3", False)
        with pytest.raises(Unroutable) as info:
            await resolver.mx("x" * 64 + ".test")
        assert info.value.enhanced == "4.4.3"
        nursery.cancel_scope.cancel()


async def test_our_own_addresses() -> None:
    """RFC 5321 §5.1: what is ours by any of its addresses, and whatever is not preferred to it, is no way."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_dns, ZONES)
        resolver = Resolver([server], "me.test", lambda address: address in ("192.0.2.77", "2001:db8::77"))
        assert await resolver.mx("byaddress.test") == Hosts(("good.byaddress.test",), ttl=300.0)
        for domain in ("best.test", "bare77.test", "mine.test"):
            with pytest.raises(Unroutable) as info:
                await resolver.mx(domain)
            assert info.value.enhanced == "5.4.6"
            assert info.value.text == f"mail for {domain} would come back to this host"
        assert len((await Resolver([server], "me.test").mx("byaddress.test")).names) == 4
        nursery.cancel_scope.cancel()


async def test_a_silent_server_is_temporary() -> None:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as silent:
        await silent.bind(("127.0.0.1", 0))
        resolver = Resolver([f"127.0.0.1:{silent.getsockname()[1]}"])
        resolver._resolver.lifetime = 0.2
        with pytest.raises(Unroutable) as info:
            await resolver.mx("two.test")
        assert info.value.enhanced == "4.4.3"


def test_what_is_no_question_gets_nothing() -> None:
    authority = Authority(ZONES)
    assert authority.answer(b"junk") is None
    query = dns.message.make_query("two.test", "MX")
    reply = authority.answer(query.to_wire())
    assert reply is not None
    assert authority.answer(reply) is None
