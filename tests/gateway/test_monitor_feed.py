"""the monitor's pure parts: patches, figures from events, filters, the ring of the newest events"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.gateway.monitor.event_feed import RING, Ring, Wanted
from tripost.gateway.monitor.feed import merge, patch
from tripost.gateway.monitor.figures import KINDS, NAMES, Figures, Histogram, quantiles
from tripost.gateway.monitor.frames import frame
from tripost.gateway.observe.reader import Batch, by_kind
from tripost.queue.events import (
    Accepted,
    Bounced,
    Connected,
    DeferredUntil,
    Event,
    Opened,
    Relayed,
    Resolved,
    Routed,
    Unreachable,
    Way,
)
from tripost.queue.values import QueueStatistics

LEAVES = st.one_of(st.integers(), st.text(max_size=3), st.booleans(), st.lists(st.integers(), max_size=2))
STATES = st.dictionaries(
    st.sampled_from("abcd"),
    st.recursive(LEAVES, lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3), max_leaves=8),
    max_size=4,
)


@given(before=STATES, after=STATES)
def test_a_patch_makes_the_one_of_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merge(before, json.loads(json.dumps(patch(before, after)))) == after
    assert patch(after, after) == {}


def test_the_example_of_rfc_7396() -> None:
    before = {"a": "b", "c": {"d": "e", "f": "g"}}
    assert merge(before, {"a": "z", "c": {"f": None}}) == {"a": "z", "c": {"d": "e"}}


@given(st.lists(st.floats(min_value=0.0, max_value=1e9), min_size=1, max_size=200))
def test_quantiles_are_at_most_a_fifth_too_high(durations: list[float]) -> None:
    one = Histogram()
    one.add(durations)
    found = quantiles(one.counts)
    assert found.count == len(durations)
    durations.sort()
    for share, told in ((0.5, found.p50), (0.9, found.p90), (0.99, found.p99)):
        rank = max(1, -int(-len(durations) * share // 1))
        exact = min(1e7, durations[rank - 1])
        assert told >= exact * 0.99
        assert told <= max(1.1e-5, exact * 1.21)


def statistics(**counts: int) -> QueueStatistics:
    return QueueStatistics(**dict.fromkeys(QueueStatistics.__struct_fields__, 0) | counts)


def relayed(hop: str, seconds: float = 1.0) -> Relayed:
    return Relayed(
        time=1.0,
        id="x",
        recipient_id=0,
        recipient="u@x",
        next_hop=hop,
        host="h",
        reply="250 ok",
        attempt=1,
        age=seconds,
    )


def bounced(reply: str, time: float) -> Bounced:
    more = {"recipient_id": 0, "recipient": "u@x", "next_hop": "mx:x", "host": "h", "attempt": 1, "report": "r"}
    return Bounced(time=time, id=f"id{time}", reply=reply, **more)


def test_figures_of_seconds() -> None:
    one = Figures()
    one.second(100.0, statistics())
    for second in range(1, 13):
        for _ in range(second):
            one.take(
                by_kind([Accepted(time=1.0, id="x", sender="s", recipients=["r"], size=100, client="c", seconds=0.004)])
            )
            one.take(by_kind([relayed("mx:a")]))
        sample = one.second(100.0 + second, statistics(accepted=sum(range(second + 1)), queued=7))
        assert (sample.accepted, sample.queued) == (second, 7)
        assert 0.004 <= sample.accept_p99 <= 0.005
    rates = one.rates()
    assert (rates.accepted.s1, rates.accepted.s10, rates.messages.s1) == (12.0, 7.5, 12.0)
    assert rates.accepted.s60 == 6.5  # so long it has been
    assert rates.octets.s1 == 1200.0
    assert one.rate("mx:a") == 7.5
    assert one.deliver.quantiles().count == sum(range(3, 13))


def test_failures_by_class_for_an_hour() -> None:
    one = Figures()
    for n in range(5):
        one.take(by_kind([bounced("550 5.1.1 no such user", 1000.0 + n)]))
    one.take(by_kind([bounced("552 5.2.2 mailbox full", 1010.0)]))
    one.take(
        by_kind(
            [Unreachable(time=1020.0, id="i", site="s", host="h", phase="connect", reply="421 4.4.1 refused", open=0)]
        )
    )
    one.second(1030.0, statistics())
    found = one.failures(1030.0)
    assert [(each.kind, each.outcome, each.count) for each in found] == [
        ("unreachable", "unreachable", 1),
        ("full", "failed", 1),
        ("no-user", "failed", 5),
    ]
    assert found[2].last.id == "id1004.0"
    assert one.failures(1030.0 + 3700) == []


def test_figures_are_bounded() -> None:
    one = Figures()
    for n in range(3 * NAMES):
        one.take(by_kind([relayed(f"mx:{n}.example")]))
        one.take(by_kind([bounced(f"550 5.0.0 {n} {n % 7}", float(n))]))
        one.take(by_kind([Opened(time=1.0, site=f"s{n}", host="h", address="a", tls="", open=1, limit=1)]))
        one.take(by_kind([Unreachable(time=1.0, id="i", site=f"s{n}", host="h", phase="dns", reply=f"{n}", open=0)]))
    one.second(1.0, statistics())
    assert len(one.replies) <= NAMES
    assert len(one.site_replies) <= NAMES
    found = one.failures(1.0)
    assert len(found) <= KINDS
    assert sum(each.count for each in found) == 6 * NAMES  # what is not sorted is counted


EVENTS: dict[str, Event] = {
    "accepted": Accepted(
        time=1.0, id="A1", sender="Fred@truc.fr", recipients=["m@machin.com"], size=1, client="10.1.2.3"
    ),
    "routed": Routed(time=1.0, id="A1", ways=[Way(0, "m@machin.com", "mx:machin.com")]),
    "connected": Connected(time=1.0, service="smtp", client="2001:db8::7"),
    "resolved": Resolved(time=1.0, domain="machin.com", hosts=["mx.machin.com"]),
    "deferred": DeferredUntil(
        time=1.0,
        id="B2",
        recipient_id=0,
        recipient="x@far.example",
        next_hop="mx:far.example",
        host="mx.far.example",
        reply="451 later",
        attempt=1,
        due=2.0,
        delay=1.0,
    ),
}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({}, set(EVENTS)),
        ({"after": "7"}, set(EVENTS)),
        ({"event": "accepted,deferred"}, {"accepted", "deferred"}),
        ({"id": "A1"}, {"accepted", "routed"}),
        ({"address": "fred@*"}, {"accepted"}),
        ({"address": "m@machin.com,x@far.example"}, {"accepted", "routed", "deferred"}),
        ({"domain": "MACHIN.com"}, {"accepted", "routed", "resolved"}),
        ({"next_hop": "mx:far*"}, {"deferred"}),
        ({"host": "mx.far.example"}, {"deferred"}),
        ({"client": "10.0.0.0/8"}, {"accepted"}),
        ({"client": "2001:db8::/32,10.1.2.3"}, {"accepted", "connected"}),
        ({"service": "smtp", "event": "connected"}, {"connected"}),
        ({"id": "A1", "event": "deferred"}, set()),
    ],
)
def test_only_wanted_events(query: dict[str, str], wanted: set[str]) -> None:
    one = Wanted(query)
    assert {name for name, event in EVENTS.items() if one.fits(event)} == wanted


@pytest.mark.parametrize(
    "query",
    [{"nothing": "1"}, {"event": "nothing"}, {"client": "1.2.3.4/33"}, {"id": ",".join("abcdefghijklmnopqrstu")}],
)
def test_what_cannot_be_wanted(query: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Wanted(query)


def batch(first: int, count: int, size: int = 10) -> Batch:
    return Batch.of([Connected(time=1.0, service="s" * size, client="c", seq=first + n) for n in range(count)])


def test_the_ring_gives_what_comes_next() -> None:
    ring = Ring(100)
    assert ring.after(100) is None
    ring.add(batch(101, 5))
    ring.add(batch(106, 5))
    for number, last in ((100, 105), (104, 105), (105, 110), (109, 110)):
        page = ring.after(number)
        assert page is not None
        assert page.last == last
        sent = page.frames(Wanted({}), number)
        assert [json.loads(line)["seq"] for line in unframed(sent)] == list(range(number + 1, last + 1))
    assert ring.after(110) is None


def test_the_same_octets_for_everyone() -> None:
    ring = Ring(0)
    ring.add(batch(1, 5))
    page = ring.after(0)
    assert page is not None
    assert page.frames(Wanted({}), 0) is page.frames(Wanted({"after": "0"}), 0)
    assert page.frames(Wanted({"service": "x"}), 0) is page.frames(Wanted({"service": "x"}), 0)


def test_the_ring_is_bounded() -> None:
    ring, number = Ring(0), 0
    for _ in range(400):
        ring.add(batch(number + 1, 100, 1000))
        number += 100
    assert ring.last == number
    assert sum(page.size for page in ring._pages) <= RING
    old = ring.after(0)
    assert old is not None
    assert old.first == ring.first > 1


def unframed(data: bytes) -> list[bytes]:
    found: list[bytes] = []
    while data:
        size, head = data[1], 2
        if size == 126:
            size, head = int.from_bytes(data[2:4]), 4
        elif size == 127:
            size, head = int.from_bytes(data[2:10]), 10
        found.append(data[head : head + size])
        data = data[head + size :]
    return found


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
def test_frames_of_every_size(size: int) -> None:
    assert unframed(frame(b"x" * size) + frame(b"y")) == [b"x" * size, b"y"]
