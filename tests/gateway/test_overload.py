"""what overload sheds: decided alone, and by a listener on real sockets"""

from __future__ import annotations

import heapq
import pathlib
import socket
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tripost.gateway import sockets
from tripost.gateway.admission import Admission
from tripost.gateway.listeners import Acceptor, Service, bind, close
from tripost.gateway.observe.counting import Counting
from tripost.gateway.observe.reader import by_kind
from tripost.gateway.overload import AGAIN, EVERY, Overload, Word
from tripost.gateway.peer import Peer
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Event, Shed, Trouble

LAG = 0.2
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a connection waited")


class Line:
    """Connections in the order in which they came, `rate` of them served a second, a refused one for nothing."""

    def __init__(self, rate: float, lag: float = LAG) -> None:
        self.overload = Overload()
        self.now = 0.0
        self.waits: list[float] = []  # of those that were let in
        self.refused: list[float] = []
        self._each, self._lag = 1.0 / rate, lag

    def serve(self, came: float) -> bool:
        self.now = max(self.now, came)
        waited = self.now - came
        if self.overload.refuse(waited, self.now, self._lag):
            self.refused.append(waited)
            return False
        self.waits.append(waited)
        self.now += self._each
        return True

    def closed_loop(self, clients: int, count: int) -> None:
        """Each comes again as soon as it was served, or refused."""
        due = [0.0] * clients
        for _ in range(count):
            self.serve(heapq.heappop(due))
            heapq.heappush(due, self.now)


@settings(max_examples=40)
@given(rate=st.floats(200, 1000), over=st.floats(1.4, 6))
def test_more_than_can_be_taken(rate: float, over: float) -> None:
    line = Line(rate)
    for number in range(int(rate * over * LAG * 12)):
        line.serve(number / (rate * over))
    soon = line.waits[int(rate * LAG * 6) :]
    assert max(line.waits) <= LAG * 1.5 + 2 / rate, "also while it is found out"
    assert max(soon) <= LAG / 2
    assert sum(soon) / len(soon) > LAG / 3, "the line is short and never empty"
    assert min(line.refused) > LAG / 2
    assert line.overload.shed == len(line.refused)
    assert line.now == pytest.approx(len(line.waits) / rate, rel=0.02), "who serves is never without work"


@settings(max_examples=40)
@given(rate=st.floats(200, 5000), part=st.floats(0.05, 0.95))
def test_clients_that_come_together_are_let_in(rate: float, part: float) -> None:
    line = Line(rate)
    line.closed_loop(max(1, int(rate * LAG * part)), 3000)
    assert not line.refused


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.2)), max_size=300), st.floats(0.01, 0.3))
def test_nobody_is_refused_before_its_time(steps: list[tuple[float, float]], lag: float) -> None:
    one, now, late = Overload(), 0.0, inf
    for waited, pause in steps:
        now += pause
        late = min(late, now) if waited > lag else late if one.shedding else inf
        refused = one.refuse(waited, now, lag)
        if refused:
            assert waited > lag / 2
            assert now - late >= lag / 2
    assert not one.refuse(1e9, now, 0.0), "0 is no limit"


def test_a_burst_and_a_pause_of_the_machine_go_by() -> None:
    line = Line(1000.0)
    for _ in range(290):
        line.serve(0.0)
    assert max(line.waits) > 0.28
    line.now += 1.0  # nobody is served; sixty come meanwhile
    for number in range(60):
        line.serve(1.0 + number / 100)
    assert not line.refused
    late = Overload()
    assert not any(late.refuse(LAG + 0.1, at, LAG) for at in (10.0, 20.0, 30.0)), "three, each after a pause of its own"


def test_what_is_told() -> None:
    one = Overload()
    assert one.due == inf
    assert one.told(5.0, LAG) is None
    assert [one.refuse(0.25, at, LAG) for at in (10.0, 10.05, 10.11, 10.12)] == [False, False, True, True]
    assert one.refuse(0.11, 10.13, LAG), "half, while it sheds"
    assert not one.refuse(0.1, 10.14, LAG)
    assert one.told(10.14, LAG) == Word("begins", 3, 0.25, news=True)
    assert one.refuse(0.3, 10.2, LAG)
    assert one.told(10.3, LAG) is None
    assert one.due == 10.14 + EVERY
    assert all(one.refuse(0.15, 10.2 + step * 0.18, LAG) for step in range(1, 6))
    assert one.told(11.2, LAG) == Word("goes on", 6, 0.3)
    assert not one.refuse(0.0, 11.25, LAG)
    assert one.shedding
    assert one.told(12.3, LAG) == Word("ends", 0, 0.0), "nobody came"
    assert (one.due, one.shed) == (inf, 9)
    for at, news in ((13.0, False), (11.0 + AGAIN, True)):
        assert not one.refuse(0.3, at, LAG)
        assert one.refuse(0.3, at + 0.15, LAG)
        assert one.told(at + 0.15, LAG) == Word("begins", 1, 0.3, news=news)
        assert not one.refuse(0.0, at + 0.4, LAG)
        assert one.told(at + 0.4, LAG) == Word("ends", 0, 0.0)


@linux
@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
async def test_what_a_connection_waited(address: str) -> None:
    listener = sockets.listen(address)
    where = listener.getsockname()[:2]
    began = time.monotonic()
    clients = [socket.create_connection(where) for _ in range(3)]
    await trio.sleep(0.15)
    clients[1].send(b"EHLO")  # whoever speaks too early came no later
    clients.append(socket.create_connection(where))
    between = time.monotonic()
    await trio.sleep(0.05)
    found = [sock for sock, _ in await sockets.accept(listener)]
    waits = [sockets.waited(one) for one in found]
    over = time.monotonic()
    for wait in waits[:3]:
        assert wait is not None
        assert 0.19 <= wait <= over - began + 0.01
    assert waits[3] is not None
    assert 0.04 <= waits[3] <= over - between + 0.02
    for one in (*clients, *found, listener):
        one.close()


def test_a_unix_socket_does_not_tell() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert sockets.waited(one) is None


class Slow:
    """A gateway whose every session takes the processor for `work` seconds."""

    def __init__(self, work: float) -> None:
        self.work = work
        self.served = 0
        self.events: list[Event] = []
        self.ended = trio.Event()

    def heard(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Shed) and event.state == "ends":
            self.ended.set()

    async def session(self, stream: trio.abc.Stream, peer: Peer) -> None:
        time.sleep(self.work)  # noqa: ASYNC251  (nobody else gets a turn)
        self.served += 1
        await stream.send_all(b"220 here\r\n")


@asynccontextmanager
async def slow(
    address: str, admission: Admission, name: str = "smtp", work: float = 0.004
) -> AsyncGenerator[tuple[Slow, Service]]:
    one, bus = Slow(work), Bus()
    bus.add_sink(one.heard)
    service = Service(name, address, one.session, lambda why: f"421 4.3.2 {why}\r\n".encode())
    bind([service])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Acceptor(nursery, bus, Clock(), admission).accept, service)
        with trio.fail_after(60):
            yield one, service
        nursery.cancel_scope.cancel()
    close([service])


def _connect(service: Service) -> socket.socket:
    if service.address.startswith(sockets.UNIX):
        one = socket.socket(socket.AF_UNIX)
        one.connect(service.address.removeprefix(sockets.UNIX))
        return one
    return socket.create_connection(sockets.split_address(service.bound))


async def _answers(clients: list[socket.socket]) -> list[bytes]:
    found: list[bytes] = []
    for one in clients:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(one))
        found.append(await stream.receive_some(100))
        await stream.aclose()
    return found


@linux
@pytest.mark.parametrize("address", ["127.0.0.1:0", "unix"])
async def test_a_listener_that_cannot_keep_up(address: str, tmp_path: pathlib.Path) -> None:
    admission = Admission(10_000, lag=0.02)
    if address == "unix":
        address = f"unix:{tmp_path}/s"
    async with slow(address, admission) as (one, service):
        answers = await _answers([_connect(service) for _ in range(200)])  # 16 take 64 ms, so the others wait for long
        taken, shed = answers.count(b"220 here\r\n"), answers.count(b"421 4.3.2 too busy, try again later\r\n")
        assert taken + shed == 200
        assert shed > 50
        assert taken == one.served >= sockets.AT_ONCE
        assert admission.refused == shed
        await trio.sleep(admission.lag * 2)
        assert await _answers([_connect(service)]) == [b"220 here\r\n"], "and then it takes all again"
        await one.ended.wait()
    counting = Counting()
    counting.take(by_kind(one.events))
    assert counting.shed == {("smtp",): shed}
    assert counting.refused == {}
    assert admission.sheds.connections == shed
    told = [event for event in one.events if isinstance(event, Shed)]
    assert (told[0].state, told[-1].state) == ("begins", "ends")
    assert max(event.wait for event in told) > 0.02
    (trouble,) = [event for event in one.events if isinstance(event, Trouble)]
    assert "[limits] lag" in trouble.reason


@linux
@pytest.mark.parametrize(("name", "lag"), [("submission", 0.02), ("smtp", 0.0)])
async def test_who_is_never_shed(name: str, lag: float) -> None:
    async with slow("127.0.0.1:0", Admission(10_000, lag=lag), name, 0.002) as (one, service):
        answers = await _answers([_connect(service) for _ in range(100)])
        assert answers == [b"220 here\r\n"] * 100
        assert not any(isinstance(event, Shed) for event in one.events)


@linux
async def test_a_crowd_that_is_served_in_time_is_not_shed() -> None:
    async with slow("127.0.0.1:0", Admission(10_000, lag=30.0), work=0.001) as (_, service):
        answers = await _answers([_connect(service) for _ in range(300)])
        assert answers == [b"220 here\r\n"] * 300
