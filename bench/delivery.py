"""delivery alone: what a message costs, how concurrency is found; one JSON line per run

    deploy/uv run python bench/delivery.py cpu            CPU per relayed 2 KiB message over kept connections
    deploy/uv run python bench/delivery.py processes      the same from a spool, by this process and by others, in turns
    deploy/uv run python bench/delivery.py adapt          a sink that takes 5 connections, beside a bound of 5
    deploy/uv run python bench/delivery.py move           the sink's bound goes 5, 20, 5

The sink is a process of its own, on loopback, and answers 421 to what is too many. Messages come
out of memory instead of a spool, but for `processes`, where they are settled too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

import trio
from queues import letter_body

from tripost.delivery.dispatcher import Dispatcher
from tripost.delivery.fast_stream import connect_tcp
from tripost.delivery.processes.crew import Crew
from tripost.delivery.resolver import Hosts
from tripost.delivery.settings import DeliverySettings, Destination
from tripost.queue.body import BodyReader
from tripost.queue.bus import Bus
from tripost.queue.channel import pair
from tripost.queue.clock import Clock
from tripost.queue.entries import Acceptance
from tripost.queue.message import Envelope, Outcome, Recipient
from tripost.queue.opening import open_queue
from tripost.queue.retry import Schedule
from tripost.queue.values import Lease, QueueSettings

CONTENT = letter_body(2048)
HEALTHY = "healthy.example"


# --- the sink's process ---


async def _sink(pipe: Connection, port: int, delay: float) -> None:
    """`pipe`: takes a new bound for its connections, or None to be asked for [taken, refused, messages]."""
    state = {"most": 1_000_000, "open": 0, "taken": 0, "refused": 0, "messages": 0}

    async def serve(stream: trio.SocketStream) -> None:
        if state["open"] >= state["most"]:
            state["refused"] += 1
            await stream.send_all(b"421 4.7.0 too many connections\r\n")
            return
        state["open"] += 1
        state["taken"] += 1
        try:
            await _talk(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            state["open"] -= 1

    async def _talk(stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 sink\r\n")
        data, out, left = b"", [], 0
        while True:
            line, end, rest = data.partition(b"\r\n")
            if left or not end:
                if out:
                    await stream.send_all(b"".join(out))
                    out = []
                part = await stream.receive_some(65_536)
                if not part:
                    return
                data += part
                if left and len(data) >= left:
                    data, left = data[left:], 0
                    state["messages"] += 1
                    out.append(b"250 taken\r\n")
                continue
            data = rest
            if line.startswith(b"EHLO"):
                out.append(b"250-sink\r\n250-CHUNKING\r\n250 PIPELINING\r\n")
            elif line.startswith(b"QUIT"):
                await stream.send_all(b"221 bye\r\n")
                return
            elif line.startswith(b"BDAT"):
                left = int(line.split()[1])
                if len(data) >= left:
                    data, left = data[left:], 0
                    state["messages"] += 1
                    out.append(b"250 taken\r\n")
            else:
                if delay and line.startswith(b"MAIL"):
                    await trio.sleep(delay)
                out.append(b"250 ok\r\n")

    async def listen() -> None:
        while True:
            await trio.lowlevel.wait_readable(pipe.fileno())
            asked = pipe.recv()
            if asked == "end":
                nursery.cancel_scope.cancel()
            elif asked is None:
                pipe.send([state["taken"], state["refused"], state["messages"], state["open"]])
            else:
                state["most"] = asked

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=1024)
        nursery.start_soon(listen)
        pipe.send(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(serve, listeners)


def sink(pipe: Connection, delay: float) -> None:
    trio.run(_sink, pipe, 0, delay)


class SinkProcess:
    def __init__(self, delay: float = 0.0) -> None:
        fresh = multiprocessing.get_context("spawn")
        self._pipe, theirs = fresh.Pipe()
        self._child = fresh.Process(target=sink, args=(theirs, delay), daemon=True)
        self._child.start()
        self.port = int(self._pipe.recv())

    def bound(self, most: int) -> None:
        self._pipe.send(most)

    def counts(self) -> list[int]:
        self._pipe.send(None)
        return list(self._pipe.recv())

    def end(self) -> None:
        self._pipe.send("end")
        self._child.join()


# --- our side ---


class Endless:
    """As much of the queue as delivery asks for: messages for one next hop, `most` of them, out of memory."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.settled = 0
        self._rung = True
        one = Recipient(0, "u@x.example", f"mx:{HEALTHY}")
        self._message = Acceptance(Envelope("ID", "s@x.example", (one,), 1.8e9, 1.9e9, len(CONTENT)), CONTENT)
        self.done = trio.Event()
        self._notes: dict[str, bytes] = {}

    async def wait_ready(self) -> None:
        if not self._rung:
            await trio.sleep_forever()

    def next_ready(self) -> str | None:
        was, self._rung = self._rung, False
        return f"mx:{HEALTHY}" if was else None

    def claimable(self, next_hop: str) -> bool:
        return self.left > 0

    async def claim(self, next_hop: str, most: int) -> list[Lease]:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.left <= 0:
            return []
        self.left -= 1
        envelope = self._message.envelope
        return [Lease(envelope, envelope.recipients, 1, next_hop, 0, self._message)]

    async def open_body(self, lease: Lease) -> BodyReader:
        await trio.lowlevel.checkpoint()
        return BodyReader(CONTENT, None, len(CONTENT), trio.to_thread.run_sync)

    async def settle(
        self, lease: Lease, outcomes: Mapping[int, Outcome], probes: tuple[float, float] | None = None
    ) -> None:
        self.settled += 1
        if not self.left and not self.done.is_set():
            self.done.set()

    def place(self, lease: Lease) -> int:
        return 0

    def release(self, lease: Lease) -> None:
        self.left += 1

    def note(self, name: str, value: bytes) -> bool:
        self._notes[name] = value
        return True

    def note_of(self, name: str) -> bytes:
        return self._notes.get(name, b"")

    def reopen(self, next_hop: str) -> None:
        pass

    async def write_notes(self) -> None:
        pass


class Names:
    async def mx(self, domain: str) -> Hosts:
        return Hosts((f"mx.{domain}",), ttl=3600.0)

    async def addresses(self, host: str) -> list[str]:
        return ["127.0.0.1"]


@asynccontextmanager
async def delivering(
    queue: Any,
    ports: dict[str, int],
    terms: Destination,
    bus: Bus | None = None,
    destinations: Mapping[str, Destination] | None = None,
) -> AsyncGenerator[Dispatcher]:
    """`ports`: domain → where its mail host listens."""

    async def connect(address: str, port: int, source: str = "") -> trio.abc.Stream:
        return await connect_tcp(address, port)

    class Ported(Names):
        async def addresses(self, host: str) -> list[str]:
            return [f"127.0.0.{list(ports).index(host.removeprefix('mx.')) + 1}"]

    async def to_port(address: str, port: int, source: str = "") -> trio.abc.Stream:
        domain = list(ports)[int(address.rpartition(".")[2]) - 1]
        return await connect("127.0.0.1", ports[domain], source)

    settings = DeliverySettings(hostname="bench.example", default=terms, destinations=destinations or {})
    async with trio.open_nursery() as nursery:
        made = Dispatcher(
            queue,
            settings,
            resolver=Ported(),
            local=None,  # type: ignore[arg-type]  # nothing here is local
            bus=bus or Bus(),
            clock=Clock(),
            connect=to_port,
        )
        await nursery.start(made.run)
        yield made
        made.stop()
        nursery.cancel_scope.deadline = trio.current_time() + 10


async def cpu(options: argparse.Namespace) -> dict[str, Any]:
    sinks = SinkProcess()
    queue = Endless(options.messages)
    terms = Destination(connections=options.connections, messages_per_connection=10**9, tls="none")
    warm = 2000
    async with delivering(queue, {HEALTHY: sinks.port}, terms):
        while queue.settled < warm:  # noqa: ASYNC110 - asks from outside
            await trio.sleep(0.01)
        start, used, before = time.perf_counter(), time.process_time(), queue.settled
        await queue.done.wait()
        done, used, seconds = queue.settled - before, time.process_time() - used, time.perf_counter() - start
    sinks.end()
    return {"messages": done, "cpu_ms_per_message": round(used / done * 1e3, 4), "per_second": round(done / seconds)}


async def _children(crew: Crew, count: int, nursery: trio.Nursery) -> list[subprocess.Popen[bytes]]:
    """Delivery processes of the crew."""
    found: list[subprocess.Popen[bytes]] = []
    for _ in range(count):
        ours, theirs = pair()
        command = [sys.executable, "-m", "tripost", "--role", "delivery", "--fd", str(theirs.fileno())]
        found.append(subprocess.Popen(command, pass_fds=[theirs.fileno()]))  # noqa: ASYNC220 - a bench
        theirs.close()
        nursery.start_soon(crew.adopt, ours, found[-1].pid)
    while crew.statistics().alive < count:  # noqa: ASYNC110 - other processes
        await trio.sleep(0.01)
    return found


def _seconds(pid: int) -> float:
    """Of the processor, that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _from_spool(options: argparse.Namespace, count: int, port: int) -> dict[str, Any]:
    """`count` delivery processes; 0: this one holds the connections."""
    bus, clock = Bus(), Clock()
    terms = Destination(connections=options.connections, messages_per_connection=10**9, tls="none")
    hop = f"smtp://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        settings = QueueSettings(min_free=0, min_free_inodes=0, retry=Schedule(first=0.1))
        async with open_queue(folder, settings, clock=clock, bus=bus, reporter=lambda *_: None) as queue:
            left = iter(range(options.messages))

            async def fill() -> None:
                for n in left:
                    body = queue.new_body()
                    await body.write(CONTENT)
                    envelope = Envelope(
                        f"m{n}", "a@b.c", (Recipient(0, "u@x.example", hop),), clock.now(), clock.now() + 1e6, body.size
                    )
                    await queue.accept(envelope, body)

            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(fill)
            async with trio.open_nursery() as nursery:
                crew = Crew(folder, bus, clock) if count else None
                children = await _children(crew, count, nursery) if crew is not None else []
                given = DeliverySettings(hostname="bench.example", default=terms, literal=terms)
                made = Dispatcher(
                    queue,
                    given,
                    resolver=Names(),  # type: ignore[arg-type]
                    local=None,  # type: ignore[arg-type]
                    bus=bus,
                    clock=clock,
                    opener=crew,
                )
                start, used = time.perf_counter(), time.process_time()
                theirs = sum(_seconds(one.pid) for one in children)
                await nursery.start(made.run)
                while queue.statistics().queued:  # noqa: ASYNC110 - asks from outside
                    await trio.sleep(0.01)
                seconds, used = time.perf_counter() - start, time.process_time() - used
                theirs = sum(_seconds(one.pid) for one in children) - theirs
                made.stop()
                if crew is not None:
                    await trio.sleep(0.5)
                    crew.close()
                    await trio.sleep(0.1)
                for one in children:
                    one.wait()
    done = options.messages
    return {
        "manager_ms": round(used / done * 1e3, 4),
        "others_ms": round(theirs / done * 1e3, 4),
        "cpu_ms_per_message": round((used + theirs) / done * 1e3, 4),
        "per_second": round(done / seconds),
    }


async def processes(options: argparse.Namespace) -> dict[str, Any]:
    sinks = SinkProcess()
    rows: dict[str, list[dict[str, Any]]] = {"own": [], "1": [], "2": []}
    for _ in range(options.rounds):
        for name, found in rows.items():
            found.append(await _from_spool(options, 0 if name == "own" else int(name), sinks.port))
    sinks.end()
    told = ("manager_ms", "others_ms", "cpu_ms_per_message", "per_second")
    return {name: {key: statistics.median(one[key] for one in found) for key in told} for name, found in rows.items()}


async def _span(sinks: SinkProcess, seconds: float) -> dict[str, Any]:
    before = sinks.counts()
    await trio.sleep(seconds)
    taken, refused, messages, _ = (b - a for a, b in zip(before, sinks.counts(), strict=True))
    share = refused / max(1, taken + refused)
    return {"connects": taken + refused, "refused": round(share, 4), "per_second": round(messages / seconds, 1)}


async def adapt(options: argparse.Namespace) -> dict[str, Any]:
    """Interleaved: found out, and with 5 as the operator's bound."""
    rows: dict[str, list[dict[str, Any]]] = {"found": [], "fixed": []}
    for _ in range(options.rounds):
        for name, connections in (("found", 50), ("fixed", 5)):
            sinks = SinkProcess(delay=0.02)
            sinks.bound(5)
            terms = Destination(connections=connections, messages_per_connection=options.per_connection, tls="none")
            async with delivering(Endless(10**9), {HEALTHY: sinks.port}, terms):
                await trio.sleep(10)
                rows[name].append(await _span(sinks, options.seconds))
            sinks.end()
    rates = {name: statistics.median(one["per_second"] for one in some) for name, some in rows.items()}
    return {**rows, "of_fixed": round(rates["found"] / rates["fixed"], 3)}


async def move(options: argparse.Namespace) -> dict[str, Any]:
    sinks = SinkProcess(delay=0.02)
    sinks.bound(5)
    terms = Destination(connections=50, messages_per_connection=options.per_connection, tls="none")
    row: dict[str, Any] = {}
    async with delivering(Endless(10**9), {HEALTHY: sinks.port}, terms):
        await trio.sleep(25)
        sinks.bound(20)
        start = time.perf_counter()
        while sinks.counts()[3] < 16 and time.perf_counter() - start < 90:  # noqa: ASYNC110 - another process
            await trio.sleep(0.2)
        row["seconds_to_16"] = round(time.perf_counter() - start, 1)
        await trio.sleep(5)
        sinks.bound(5)
        row["first_30_s"] = await _span(sinks, 30)
        row["after_30_s"] = await _span(sinks, 30)
    sinks.end()
    return row


if __name__ == "__main__":
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    top.add_argument("what", choices=["cpu", "processes", "adapt", "move"])
    top.add_argument("--messages", type=int, default=50_000)
    top.add_argument("--connections", type=int, default=20)
    top.add_argument("--per-connection", type=int, default=100)
    top.add_argument("--seconds", type=float, default=15.0)
    top.add_argument("--rounds", type=int, default=1)
    top.add_argument("--folder", default=None, help="`processes`: on the disk that is to be measured")
    given = top.parse_args()
    way = {"cpu": cpu, "processes": processes, "adapt": adapt, "move": move}[given.what]
    found: dict[str, Any] = trio.run(way, given)
    print(json.dumps({"bench": f"delivery {given.what}", "cores": os.cpu_count(), **found}))
