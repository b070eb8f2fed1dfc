"""destinations side by side: limits, rates, sharing, what one does to another"""

from __future__ import annotations

import pathlib
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from support.fake_files import FakeFiles
from support.lab import Lab, lab
from support.queues import put
from tripost.delivery.links import Unroutable
from tripost.delivery.rules import RouteRule
from tripost.delivery.settings import DeliverySettings, Destination, Rate, Source
from tripost.queue import events

pytestmark = pytest.mark.usefixtures("processes")


def _settings(**more: Any) -> DeliverySettings:
    top = {name: more.pop(name) for name in ("max_connections", "destinations", "pools") if name in more}
    return DeliverySettings(hostname="smtp.truc.fr", default=Destination(**more), **top)


async def _fill(one: Lab, hop: str, count: int, start: int = 0) -> None:
    for n in range(start, start + count):
        await put(one.queue, f"{hop}{n}", hop, accepted=one.clock.now())


async def _settled(one: Lab, patience: float = 300.0) -> None:
    end = trio.current_time() + patience
    while one.queue.statistics().queued and trio.current_time() < end:  # noqa: ASYNC110 - asks from outside
        await trio.sleep(0.05)
    assert not one.queue.statistics().queued


# --- rates ---


@pytest.mark.parametrize("connections", [1, 3, 20])
async def test_a_rate_is_exact(autojump_clock: MockClock, tmp_path: pathlib.Path, connections: int) -> None:
    times: list[float] = []
    settings = _settings(connections=connections, rate=Rate(50, 1.0))

    def mail(line: str) -> str:
        times.append(trio.current_time())
        return "250 ok"

    async with lab(tmp_path, delivery=settings, answers={"MAIL": mail}) as one:
        await _fill(one, "mx:machin.com", 500)
        await _settled(one)
    assert len(times) == 500
    assert times[-1] - times[0] == pytest.approx(499 / 50, rel=0.02)
    assert all(len([t for t in times[n : n + 60] if t < times[n] + 1.0]) <= 50 for n in range(500))
    assert one.peer.most_open <= connections


async def test_a_slow_rate_holds_no_connection(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, delivery=_settings(rate=Rate(1, 60.0))) as one:
        await _fill(one, "mx:machin.com", 5)
        await trio.sleep(30)
        assert one.peer.open == 0
        await trio.sleep(240)
        assert len(one.peer.messages) == 5
        assert one.peer.most_open == 1
        assert ("rate", "mx.machin.com") in {(row.by, row.site) for row in one.events(events.Limited)}


async def test_a_rate_outlives_a_restart(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    files, times, settings = FakeFiles(), list[float](), _settings(rate=Rate(1, 60.0))

    def mail(line: str) -> str:
        times.append(trio.current_time())
        return "250 ok"

    for start in range(4):
        now = 1_800_000_000.0 + trio.current_time()
        async with lab(tmp_path, files=files, delivery=settings, answers={"MAIL": mail}, begin=now) as one:
            if not start:
                await _fill(one, "mx:machin.com", 10)
            await trio.sleep(70)
    assert len(times) >= 4
    assert all(b - a >= 60.0 for a, b in pairwise(times))


async def test_connections_per_time(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    settings = _settings(connection_rate=Rate(1, 10.0), messages_per_connection=2)
    async with lab(tmp_path, delivery=settings) as one:
        await _fill(one, "mx:machin.com", 8)
        await trio.sleep(25)
        assert one.peer.connections == 3
        await _settled(one)
        assert one.peer.connections == 4


# --- sites ---


async def test_domains_of_one_host_are_one_site(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, delivery=_settings(connections=2)) as one:
        for n in range(20):
            one.names.hosts[f"d{n}.example"] = ["b.host.example", "a.host.example"]
            await put(one.queue, f"m{n}", f"mx:d{n}.example", accepted=one.clock.now())
        await _settled(one)
        assert one.peer.most_open <= 2
        assert one.peer.connections <= 2  # and one connection serves them all
        assert {row.site for row in one.events(events.Opened)} == {"a.host.example,b.host.example"}


async def test_a_domain_with_its_own_settings_stands_alone(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    own = {"d1.example": Destination(connections=1, rate=Rate(1, 10.0)), "*.big.example": Destination(rollup=False)}
    async with lab(tmp_path, delivery=_settings(destinations=own)) as one:
        for n in range(3):
            one.names.hosts[f"d{n}.example"] = ["mx.example"]
        for n in range(3, 5):
            one.names.hosts[f"d{n}.example"] = ["mx.big.example"]
        for n in range(5):
            await put(one.queue, f"m{n}", f"mx:d{n}.example", accepted=one.clock.now())
        await _settled(one)
        sites = {row.site for row in one.events(events.Opened)}
        assert sites == {"mx.example", "mx:d1.example", "mx:d3.example", "mx:d4.example"}


async def test_a_site_that_is_down_gets_one_probe_for_all_its_domains(
    autojump_clock: MockClock, tmp_path: pathlib.Path
) -> None:
    async with lab(tmp_path) as one:
        one.peer.refused = True
        for n in range(50):
            one.names.hosts[f"d{n}.example"] = ["mx.example"]
            await put(one.queue, f"m{n}", f"mx:d{n}.example", accepted=one.clock.now())
        await trio.sleep(40)
        assert len(one.peer.addresses) <= 2  # the two that a new site begins with
        await trio.sleep(560)
        assert len(one.peer.addresses) <= 8  # pauses of 48, 96, 192… s
        one.peer.refused = False
        await _settled(one, 1200)
        assert one.peer.most_open <= 20


async def test_pauses_of_its_own(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    own = {
        "quick.example": Destination(probe_first=5.0, probe_longest=10.0),
        "gone.example": Destination(probe_first=20.0, probe_longest=20.0),
    }
    async with lab(tmp_path, delivery=_settings(destinations=own)) as one:
        one.peer.refused = True
        one.names.wrong["gone.example"] = Unroutable("4.4.3", "SERVFAIL")
        for name in ("quick", "gone", "usual"):
            await _fill(one, f"mx:{name}.example", 3)
        await trio.sleep(3600)
        pauses = {name: [] for name in ("quick", "gone", "usual")}
        for row in one.events(events.BackedOff):
            pauses[row.next_hop.removeprefix("mx:").removesuffix(".example")].append(row.delay)
        assert pauses["quick"][:3] == [5.0, 10.0, 10.0]
        assert pauses["gone"][:3] == [20.0, 20.0, 20.0]
        assert pauses["usual"][:6] == [60.0, 120.0, 240.0, 480.0, 960.0, 1800.0]
        assert 250 < len(pauses["quick"]) < 370


async def test_a_good_probe_opens_the_way_for_all(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, delivery=_settings(connections=4)) as one:
        one.peer.refused = True
        await _fill(one, "mx:machin.com", 100)
        await trio.sleep(3600)
        one.peer.refused = False
        before, start = len(one.peer.addresses), one.events(events.Opened)
        assert not start
        await _settled(one, 2400)
        opened = one.events(events.Opened)
        assert opened[0].limit == 2  # one first, then more
        assert [row.open for row in opened][:2] == [1, 2]
        assert max(row.open for row in opened) == 4
        assert opened[-1].time - opened[0].time < 60
        assert before < 12


# --- what one does to another ---


async def test_scarce_slots_are_shared(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    settings = _settings(max_connections=10, connections=10, connect_timeout=30.0)
    async with lab(tmp_path, delivery=settings) as one:
        one.names.found["mx.slow.example"] = ["192.0.2.9"]
        one.peer.silent = {"192.0.2.9"}
        await _fill(one, "mx:slow.example", 200)
        await trio.sleep(1)
        start = trio.current_time()
        await _fill(one, "mx:fast.example", 200)
        while len(one.peer.messages) < 200:  # noqa: ASYNC110 - asks from outside
            await trio.sleep(0.05)
        assert trio.current_time() - start < 5


async def test_a_hog_gives_back(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    settings = _settings(max_connections=4, connections=4)
    async with lab(tmp_path, delivery=settings) as one:
        one.peer.slow["."] = 1.0
        await _fill(one, "mx:hog.example", 400)
        await trio.sleep(5)
        for n in range(3):
            await _fill(one, f"mx:small{n}.example", 5)
        last: list[float] = []
        while one.queue.statistics().queued:  # noqa: ASYNC110 - asks from outside
            await trio.sleep(0.01)
        rows = one.events(events.Relayed)
        for n in range(3):
            last.append(max(i for i, row in enumerate(rows) if row.next_hop == f"mx:small{n}.example"))
        assert all(at < len(rows) - 50 for at in last)  # they did not wait for the hog's end


async def test_name_servers_that_hang_hold_no_slot(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, delivery=_settings(max_connections=2)) as one:
        for n in range(300):
            one.names.wrong[f"d{n}.example"] = Unroutable("4.4.3", "no answer")
        one.names.delay = 20.0
        for n in range(300):
            await put(one.queue, f"m{n}", f"mx:d{n}.example", accepted=one.clock.now())
        one.names.quick.add("good.example")
        await trio.sleep(61)  # three rounds of a hundred
        assert len(one.events(events.BackedOff)) == 300
        await put(one.queue, "g", "mx:good.example", accepted=one.clock.now())
        await trio.sleep(1)
        assert len(one.peer.messages) == 1


# --- replies ---


async def test_fewer_connections_where_more_are_refused(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, delivery=_settings(connections=20, messages_per_connection=5)) as one:

        def greeting(line: str) -> str:
            return "421 4.7.0 too many connections" if one.peer.open > 5 else "220 hi"

        one.peer.answers["greeting"] = greeting
        await _fill(one, "mx:machin.com", 1000)
        await _settled(one)
        assert not one.events(events.BackedOff)
        assert not one.events(events.DeferredUntil)  # what was refused keeps its place
        assert {row.limit for row in one.events(events.Adapted)} >= {3, 4, 5}
        assert all("too many connections" in row.reply for row in one.events(events.Unreachable))


async def test_a_site_that_names_a_rate_is_left_alone(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    answers: dict[str, Any] = {"MAIL": "450 4.7.28 rate limit exceeded"}
    async with lab(tmp_path, answers=answers) as one:
        await _fill(one, "mx:machin.com", 30)
        await trio.sleep(40)
        tried = len([line for line in one.peer.lines if line.startswith("MAIL")])
        assert tried <= 8  # those that were under way
        (limited,) = [row for row in one.events(events.Limited) if row.reason]
        assert (limited.by, limited.reason[:5]) == ("rest", "rate:")
        one.peer.answers["MAIL"] = "250 ok"
        await _settled(one, 1200)


async def test_a_message_that_breaks_connections_stops_no_other(
    autojump_clock: MockClock, tmp_path: pathlib.Path
) -> None:
    def rcpt(line: str) -> str:
        return "" if "u1@" in line else "250 ok"

    async with lab(tmp_path, answers={"RCPT": rcpt, "EHLO": "250 peer"}) as one:
        await _fill(one, "mx:machin.com", 3)
        await put(one.queue, "poison", "mx:other.example", "mx:machin.com", accepted=one.clock.now())
        await _fill(one, "mx:machin.com", 20, 3)
        await trio.sleep(4000)
        assert len(one.peer.messages) >= 23


async def test_four_hundred_twenty_one_on_a_used_connection(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, delivery=_settings(connections=1)) as one:
        seen = {"n": 0}

        def mail(line: str) -> str:
            seen["n"] += 1
            return "421 4.7.0 enough for this connection" if seen["n"] % 3 == 0 else "250 ok"

        one.peer.answers["MAIL"] = mail
        await _fill(one, "mx:machin.com", 10)
        await _settled(one, 5)
        assert not one.events(events.BackedOff)
        assert one.peer.connections == 5


# --- source addresses ---


async def test_sources_are_used_by_weight(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    pool = (Source("192.0.2.50", "out1.truc.fr", 3), Source("192.0.2.51", "out2.truc.fr", 1), Source("::1", "six", 9))
    settings = _settings(pools={"bulk": pool}, messages_per_connection=1, connections=1)
    rule = RouteRule("*", "mx", (("source", "bulk"),))
    async with lab(tmp_path, delivery=settings, rules=[rule]) as one:
        await _fill(one, "mx:machin.com?source=bulk", 200)
        await _settled(one)
        assert set(one.peer.sources) == {"192.0.2.50", "192.0.2.51"}  # the host has no IPv6 address
        assert 110 < one.peer.sources.count("192.0.2.50") < 190
        assert {line for line in one.peer.lines if line.startswith("EHLO")} == {
            "EHLO out1.truc.fr",
            "EHLO out2.truc.fr",
        }
        await put(one.queue, "gone", "mx:machin.com?source=none", accepted=one.clock.now())
        await trio.sleep(1)
        assert "there is no [sources.none]" in one.events(events.BackedOff)[0].reply


async def test_a_host_that_bears_our_name(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    """Behind a translated address: we know ourselves by name, and nobody less preferred is tried."""
    hello = "250-Smtp.truc.fr greets you\r\n250 PIPELINING"
    async with lab(tmp_path, answers={"EHLO": hello}) as one:
        one.names.hosts["machin.com"] = ["a.example", "b.example"]
        one.names.best["machin.com"] = 1
        await one.send("u@machin.com")
        await trio.sleep(1)
        assert one.events(events.Bounced)[0].reply.startswith("550 5.4.6 a.example [192.0.2.1]:25 is this host")
        assert one.peer.connections == 1
        await put(one.queue, "r", "smtp://192.0.2.1:25", accepted=one.clock.now())  # somebody said so
        await trio.sleep(1)
        assert len(one.peer.messages) == 1


async def test_none_of_the_hosts_exists(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path) as one:
        one.names.hosts["machin.com"] = ["a.example", "b.example"]
        one.names.wrong["a.example"] = Unroutable("5.1.2", "the domain a.example does not exist")
        one.names.wrong["b.example"] = Unroutable("5.4.4", "b.example has no address")
        await one.send("u@machin.com")
        await trio.sleep(1)
        assert one.events(events.Bounced)[0].reply == "550 5.4.4 b.example has no address"
        one.names.wrong["b.example"] = Unroutable("4.4.3", "SERVFAIL")
        await one.send("v@machin.com")
        await trio.sleep(1)
        assert "SERVFAIL" in one.events(events.BackedOff)[0].reply
