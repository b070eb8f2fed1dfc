"""a source of mail: SMTP clients that measure; one JSON line per run

    deploy/uv run python bench/source.py --port 2525 --messages 20000 --connections 50
    deploy/uv run python bench/source.py --port 2525 --rate 500 --seconds 20 --pid GATEWAY

Closed loop (the default): each connection sends its next message when the last
one was accepted. Open loop (`--rate`): messages are due at fixed times, whether
the server keeps up or not, and a message's latency counts from the time it was
due: a server that stalls is charged for all that had to wait (no coordinated
omission). `--per-connection 1` connects anew for each message.

Latency is from due (or begun) to the reply to the dot: what a sender waits for.
With `--pid` the CPU time of that process (and its children) is told per message.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import ssl
import sys
import time
from typing import Any

import trio

TICKS = os.sysconf("SC_CLK_TCK")


class Wrong(Exception):
    """The server said something that was not expected."""


class Client:
    """One connection. `commands`: everything of a message up to DATA is sent at once (RFC 2920)."""

    def __init__(self, options: argparse.Namespace, number: int) -> None:
        self.options = options
        self.number = number
        self.sent = 0
        self._stream: trio.abc.Stream | None = None
        self._got = b""
        self._on_this = 0
        self._body = body(options.size)

    async def send(self, domain: int) -> None:
        """One message, over a new connection where it is time for one."""
        options = self.options
        if self._stream is None:
            await self._connect()
        stream = self._stream
        assert stream is not None
        recipient = options.recipient.replace("%d", str(domain))
        envelope = f"MAIL FROM:<{options.sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"
        await stream.send_all(envelope.encode())
        await self._replies(250, 250, 354)
        await stream.send_all(self._body)
        await self._replies(250)
        self.sent += 1
        self._on_this += 1
        if options.per_connection and self._on_this >= options.per_connection:
            await self.quit()

    async def _connect(self) -> None:
        options = self.options
        stream: trio.abc.Stream = await trio.open_tcp_stream(options.host, options.port)
        self._stream, self._got, self._on_this = stream, b"", 0
        if options.tls == "implicit":
            self._stream = await _secured(stream)
        await self._replies(220)
        await self._hello()
        if options.tls == "starttls":
            await stream.send_all(b"STARTTLS\r\n")
            await self._replies(220)
            self._stream = await _secured(stream)
            await self._hello()

    async def _hello(self) -> None:
        assert self._stream is not None
        await self._stream.send_all(b"EHLO source\r\n")
        await self._replies(250)

    async def _replies(self, *codes: int) -> None:
        assert self._stream is not None
        for code in codes:
            while True:
                line, end, rest = self._got.partition(b"\r\n")
                if not end:
                    data = await self._stream.receive_some(65_536)
                    if not data:
                        raise Wrong(f"closed instead of {code}")
                    self._got += data
                    continue
                self._got = rest
                if line[3:4] != b"-":
                    break
            if int(line[:3]) != code:
                raise Wrong(line.decode("utf-8", "replace"))

    async def quit(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.send_all(b"QUIT\r\n")
            await stream.receive_some(1024)
            await stream.aclose()


def body(size: int) -> bytes:
    """`size` octets of message, with the end of data."""
    head = b"Subject: bench\r\nFrom: <source@bench.example>\r\n\r\n"
    line = b"0123456789" * 7 + b"\r\n"
    rest = max(0, size - len(head))
    lines = line * (rest // len(line))
    return head + lines + b"x" * max(0, rest - len(lines) - 2) + b"\r\n.\r\n"


async def _secured(stream: trio.abc.Stream) -> trio.abc.Stream:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    secured = trio.SSLStream(stream, context, server_hostname="smtp.bench.example", https_compatible=True)
    await secured.do_handshake()
    return secured


class Figures:
    """Of one process: `latencies` in seconds."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.errors: dict[str, int] = {}

    def wrong(self, why: str) -> None:
        self.errors[why] = self.errors.get(why, 0) + 1


async def closed(options: argparse.Namespace, figures: Figures) -> None:
    """`messages` over `connections`, as fast as they are taken."""
    left = options.messages

    async def one(number: int) -> None:
        nonlocal left
        client = Client(options, number)
        while left > 0:
            left -= 1
            began = time.perf_counter()
            try:
                await client.send(left % options.domains)
            except (Wrong, OSError, trio.BrokenResourceError) as wrong:
                figures.wrong(f"{type(wrong).__name__}: {wrong}"[:80])
                client = Client(options, number)
                await trio.sleep(0.01)
                continue
            figures.latencies.append(time.perf_counter() - began)
        await client.quit()

    async with trio.open_nursery() as nursery:
        for number in range(options.connections):
            nursery.start_soon(one, number)


async def opened(options: argparse.Namespace, figures: Figures) -> None:
    """`rate` messages a second for `seconds`; who finds no free connection waits, and that counts."""
    count = int(options.rate * options.seconds)
    send, receive = trio.open_memory_channel[tuple[int, float]](count)
    start = time.perf_counter() + 0.1

    async def one(number: int) -> None:
        client = Client(options, number)
        async for message, due in receive:
            try:
                await client.send(message % options.domains)
            except (Wrong, OSError, trio.BrokenResourceError) as wrong:
                figures.wrong(f"{type(wrong).__name__}: {wrong}"[:80])
                client = Client(options, number)
                continue
            figures.latencies.append(time.perf_counter() - due)
        await client.quit()

    async with trio.open_nursery() as nursery:
        for number in range(options.connections):
            nursery.start_soon(one, number)
        async with send:
            for message in range(count):
                due = start + message / options.rate
                pause = due - time.perf_counter()
                if pause > 0:
                    await trio.sleep(pause)
                send.send_nowait((message, due))


def percentiles(latencies: list[float]) -> dict[str, float]:
    """In milliseconds."""
    rows = sorted(latencies)
    if not rows:
        return {}
    wanted = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {name: round(rows[max(0, math.ceil(part * len(rows)) - 1)] * 1000, 2) for name, part in wanted.items()}


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and of those it has waited for."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(int(one) for one in fields[11:15]) / TICKS


def _part(options: argparse.Namespace) -> tuple[list[float], dict[str, int]]:
    figures = Figures()
    trio.run(opened if options.rate else closed, options, figures)
    return figures.latencies, figures.errors


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All processes of one run; the row to be printed."""
    parts = []
    for number in range(options.processes):
        share = argparse.Namespace(**vars(options))
        share.messages = options.messages // options.processes + (number < options.messages % options.processes)
        share.rate = options.rate / options.processes
        share.connections = max(1, options.connections // options.processes)
        parts.append(share)
    before = cpu_of(options.pid) if options.pid else 0.0
    began = time.perf_counter()
    if len(parts) == 1:
        results = [_part(parts[0])]
    else:
        with multiprocessing.get_context("spawn").Pool(len(parts)) as pool:
            results = pool.map(_part, parts)
    seconds = time.perf_counter() - began
    latencies = [one for found, _ in results for one in found]
    errors: dict[str, int] = {}
    for _, found in results:
        for why, count in found.items():
            errors[why] = errors.get(why, 0) + count
    row: dict[str, Any] = {
        "bench": "source",
        "loop": "open" if options.rate else "closed",
        "size": options.size,
        "connections": options.connections,
        "per_connection": options.per_connection,
        "tls": options.tls,
        "messages": len(latencies),
        "seconds": round(seconds, 2),
        "per_second": round(len(latencies) / seconds, 1),
        "latency_ms": percentiles(latencies),
        "errors": errors,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    if options.pid:
        used = cpu_of(options.pid) - before
        row |= {"server_cpu_ms": round(used * 1000 / max(1, len(latencies)), 4)}
        row |= {"messages_per_core_second": round(len(latencies) / max(used, 1e-9))}
    return row


def parser() -> argparse.ArgumentParser:
    """The options; `bench/ingress.py` has them too."""
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    top.add_argument("--host", default="127.0.0.1")
    top.add_argument("--port", type=int, default=2525)
    top.add_argument("--connections", type=int, default=20)
    top.add_argument("--messages", type=int, default=10_000, help="closed loop")
    top.add_argument("--rate", type=float, default=0.0, help="messages a second: open loop")
    top.add_argument("--seconds", type=float, default=10.0, help="open loop")
    top.add_argument("--size", type=int, default=2048, help="octets of a message")
    top.add_argument("--per-connection", type=int, default=0, help="messages before a new connection; 0: keep it")
    top.add_argument("--tls", choices=("none", "starttls", "implicit"), default="none")
    top.add_argument("--sender", default="source@bench.example")
    top.add_argument("--recipient", default="sink@d%d.example", help="%%d becomes the domain's number")
    top.add_argument("--domains", type=int, default=1)
    top.add_argument("--processes", type=int, default=1)
    top.add_argument("--pid", type=int, default=0, help="of the server, to tell its CPU time")
    return top


if __name__ == "__main__":
    made = run(parser().parse_args())
    print(json.dumps(made))
    sys.exit(1 if made["errors"] else 0)
