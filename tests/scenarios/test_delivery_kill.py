"""kill -9 of delivery processes under load: nothing is lost, limits hold, and only RFC 1047's window is sent twice

Real processes, a real spool, real sockets.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
from collections import Counter

import pytest
import trio

from support.queues import letter
from tripost.delivery.dispatcher import Dispatcher
from tripost.delivery.processes.crew import Crew
from tripost.delivery.resolver import Resolver
from tripost.delivery.settings import DeliverySettings, Destination
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Event, Trouble
from tripost.queue.manager import Queue
from tripost.queue.opening import open_queue
from tripost.queue.retry import Schedule
from tripost.queue.values import QueueSettings

RETRY = Schedule(first=0.2)  # of a message that was under way at two deaths
SETTINGS = QueueSettings(min_free=0, min_free_inodes=0, segment_size=100_000, inline=4096, retry=RETRY)
CONNECTIONS = 6
HELLO = b"250-sink\r\n250 PIPELINING\r\n"


class Sink:
    """Takes everything; knows how many sockets there are at any time, by the system."""

    def __init__(self) -> None:
        self.taken: Counter[bytes] = Counter()
        self.most = self.transactions = 0
        self._open: set[socket.socket] = set()
        self._listener: trio.SocketListener

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        (self._listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with self._listener, trio.open_nursery() as nursery:
            task_status.started(self._listener.socket.getsockname()[1])
            while True:
                stream = await self._listener.accept()
                self._open.add(stream.socket._sock)  # type: ignore[attr-defined]
                self.most = max(self.most, sum(_there(one) for one in self._open))
                nursery.start_soon(self._serve, stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        bare: socket.socket = stream.socket._sock  # type: ignore[attr-defined]
        try:
            await self._talk(stream)
        except trio.BrokenResourceError:
            pass
        finally:
            self._open.discard(bare)
            stream.socket.close()

    async def _talk(self, stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 sink\r\n")
        data, content = b"", False
        while part := await stream.receive_some():
            data += part
            while True:
                mark = b"\r\n.\r\n" if content else b"\r\n"
                line, found, rest = data.partition(mark)
                if not found:
                    break
                data = rest
                if content:
                    await trio.sleep(0.01)
                    self.taken[line.partition(b"\r\n")[0]] += 1
                    content = False
                elif line.startswith(b"QUIT"):
                    await stream.send_all(b"221 bye\r\n")
                    return
                elif line == b"DATA":
                    content = True
                    await stream.send_all(b"354 go\r\n")
                    continue
                await stream.send_all(HELLO if line.startswith(b"EHLO") else b"250 ok\r\n")


def _there(one: socket.socket) -> bool:
    """Is the other end open? The system knows before we have read it."""
    try:
        return one.fileno() >= 0 and one.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


class Processes:
    """So many at any time: whoever dies is started again."""

    def __init__(self, crew: Crew, path: pathlib.Path) -> None:
        self.crew = crew
        self.path = str(path)
        self.running: list[trio.Process] = []
        self.ended: list[int] = []
        self.stopping = False

    async def keep(self) -> None:
        command = [sys.executable, "-m", "tripost", "--role", "delivery", "--connect", self.path]
        while not self.stopping:
            process: trio.Process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL)
            self.running.append(process)
            try:
                self.ended.append(await process.wait())
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
                self.running.remove(process)

    async def alive(self, count: int) -> None:
        with trio.fail_after(30):
            while self.crew.statistics().alive < count:  # noqa: ASYNC110 - other processes
                await trio.sleep(0.01)


async def _fill(queue: Queue, numbers: range, hop: str) -> None:
    async def one(n: int) -> None:
        body = queue.new_body()
        await body.write(b"X-Number: %d\r\n\r\n" % n + b"content\r\n" * (1000 if n % 10 == 0 else 20))
        envelope = letter(f"m{n}", hop, accepted=Clock().now(), size=body.size)
        await queue.accept(envelope, body)

    async with trio.open_nursery() as nursery:
        for n in numbers:
            nursery.start_soon(one, n)


async def test_killed_again_and_again(tmp_path: pathlib.Path) -> None:
    await _killing(tmp_path, 800, 8, signal.SIGKILL)


@pytest.mark.long
async def test_fifty_times(tmp_path: pathlib.Path) -> None:
    await _killing(tmp_path, 6000, 50, signal.SIGKILL)


@pytest.mark.long
async def test_one_that_is_silent_is_killed(tmp_path: pathlib.Path) -> None:
    """Stopped, not dead: its connections count until it is killed, after 30 s."""
    await _killing(tmp_path, 800, 2, signal.SIGSTOP)


async def _killing(folder: pathlib.Path, count: int, kills: int, by: signal.Signals) -> None:
    bus, clock, seen, sink = Bus(), Clock(), list[Event](), Sink()
    bus.add_sink(seen.append)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "crew"))
    listening.listen()
    settings = DeliverySettings(hostname="us.example", default=Destination(connections=CONNECTIONS))
    settings = DeliverySettings(hostname="us.example", literal=settings.default, default=settings.default)
    spool = folder / "spool"
    async with trio.open_nursery() as nursery:
        port = await nursery.start(sink.run)
        async with open_queue(
            str(spool), SETTINGS, clock=clock, bus=bus, reporter=lambda *_: None
        ) as queue:
            crew = Crew(str(spool), bus, clock)
            processes = Processes(crew, folder / "crew")
            nursery.start_soon(crew.serve, listening)
            for _ in range(2):
                nursery.start_soon(processes.keep)
            await processes.alive(2)
            dispatcher = Dispatcher(
                queue, settings, resolver=Resolver([]), local=None, bus=bus, clock=clock, opener=crew  # type: ignore[arg-type]
            )
            await nursery.start(dispatcher.run)
            await _fill(queue, range(count), f"smtp://127.0.0.1:{port}")
            chance, killed = random.Random(5), 0
            with trio.fail_after(300):
                for killed in itertools.count():
                    if killed == kills or queue.statistics().queued < 20:
                        break
                    await trio.sleep(chance.uniform(0.02, 0.1))
                    await processes.alive(1)
                    os.kill(chance.choice(crew.statistics().members).pid, by)
                while queue.statistics().queued:  # noqa: ASYNC110 - asks from outside
                    await trio.sleep(0.01)
            assert killed == kills
            statistics = crew.statistics()
            assert (queue.statistics().relayed, queue.statistics().leased) == (count, 0)
            for one in processes.running:
                one.terminate()  # which is not theirs to obey
            dispatcher.stop()
            await trio.sleep(0.2)
            assert len(processes.running) == crew.statistics().alive == 2
            processes.stopping = True
            crew.close()
            with trio.fail_after(10):
                while processes.running:  # noqa: ASYNC110 - other processes
                    await trio.sleep(0.01)
            assert processes.ended[-2:] == [0, 0]
        nursery.cancel_scope.cancel()
    listening.close()
    assert set(sink.taken) == {b"X-Number: %d" % n for n in range(count)}  # nothing is lost
    twice = sum(sink.taken.values()) - count
    assert twice <= kills * CONNECTIONS  # at most what was under way
    assert sink.most <= CONNECTIONS  # never more sockets than one process would have
    troubles = [one.reason for one in seen if isinstance(one, Trouble)]
    assert len(troubles) == statistics.deaths
    assert statistics.deaths <= kills  # some were dying when they were killed again
    said = "silent for 30 s" if by == signal.SIGSTOP else "closed by the peer"
    assert all(said in one or "broken off" in one for one in troubles)
