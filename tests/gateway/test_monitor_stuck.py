"""who watches and never reads: mail does not wait for it, memory is bounded, it is told or cut; the clock is Trio's"""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace
from typing import Any, cast

import trio
import trio.testing

from tripost.delivery.fast_stream import FastStream
from tripost.gateway.monitor.event_feed import RING, Wanted
from tripost.gateway.monitor.events import Events
from tripost.gateway.monitor.wire import STUCK, Wire
from tripost.gateway.observe.observer import MOST_EVENTS, Observer
from tripost.queue.bus import Bus
from tripost.queue.events import Trouble

SIZE = 2000  # octets of an event, and a little more
MANY = 4 * RING // SIZE


class Watched:
    """An /events client at one end of a socket whose buffers are small."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        for one in (ours, self.theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.wire = Wire(FastStream(ours))
        self.bus = Bus()
        self.observer = Observer(self.bus, [], lambda: 0.0)
        file: Any = SimpleNamespace(oldest=0, folder="")
        live: Any = SimpleNamespace(events=0, cut=0)
        sources: Any = SimpleNamespace(bus=self.bus, observer=self.observer, boot=self.bus.first)
        self.events = Events(sources, file, live)
        self.ended = False

    async def tell(self) -> None:
        await self.events._tell(self.wire, Wanted({}), None)
        self.ended = True

    def emit(self, count: int) -> None:
        """In one go: whoever emits never waits."""
        for n in range(count):
            self.bus.emit(Trouble(time=float(n), where="test", reason="x" * SIZE))
        self.observer.flush()


async def test_who_takes_nothing_is_cut_and_mail_does_not_wait(autojump_clock: trio.testing.MockClock) -> None:
    one = Watched()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.tell)
        await trio.testing.wait_all_tasks_blocked()
        one.emit(MANY)  # no await: it cannot wait
        await trio.testing.wait_all_tasks_blocked()
        assert one.wire.behind
        assert len(one.wire._rest) <= MOST_EVENTS * 2 * SIZE  # one batch
        assert sum(page.size for page in one.events._ring._pages) <= RING
        assert not one.ended
        began = trio.current_time()
        while not one.ended:
            one.emit(100)  # more comes, and it still takes nothing
            await trio.sleep(1.0)
        assert STUCK - 1 <= trio.current_time() - began <= STUCK + 1
    assert one.wire.stuck
    while one.theirs.recv(1 << 16):
        pass  # what it had been sent; then it is over
    one.theirs.close()
    await one.wire.aclose()


async def test_who_comes_back_in_time_is_told_what_it_missed(autojump_clock: trio.testing.MockClock) -> None:
    one = Watched()
    start = one.bus.number
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.tell)
        await trio.testing.wait_all_tasks_blocked()
        one.emit(MANY)
        await trio.sleep(STUCK - 1)
        reader, text = cast(Any, trio.SocketStream(trio.socket.from_stdlib_socket(one.theirs))), bytearray()
        last = one.bus.number
        while f'"seq":{last},'.encode() not in text[-(1 << 16) - SIZE :]:
            text += await reader.receive_some(1 << 16)
        nursery.cancel_scope.cancel()
    await reader.aclose()
    await one.wire.aclose()
    found = [json.loads(line) for line in payloads(bytes(text))]
    seen = [row["seq"] for row in found if "seq" in row]
    (gap,) = [row for row in found if row.get("kind") == "gap"]
    assert gap["reason"] == "slow"
    assert gap["dropped"] == gap["first"] - gap["after"] - 1 > 0
    assert sorted(seen + list(range(gap["after"] + 1, gap["first"]))) == list(range(start + 1, last + 1))


def payloads(data: bytes) -> list[bytes]:
    """Of frames that are not masked."""
    found: list[bytes] = []
    while data:
        size, head = data[1], 2
        if size == 126:
            size, head = int.from_bytes(data[2:4]), 4
        found.append(data[head : head + size])
        data = data[head + size :]
    return found
