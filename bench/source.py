"""a source of mail: SMTP clients that measure; one JSON line per run

    deploy/uv run python bench/source.py --port 2525 --messages 20000 --connections 50
    deploy/uv run python bench/source.py --port 2525 --rate 500 --seconds 20 --pid GATEWAY
    deploy/uv run python bench/source.py --size 2KiB:8,50KiB:1,1MiB:1 --domains 1000 --tls starttls
    deploy/uv run python bench/source.py --mbox ~/mail.mbox --messages 5000 --per-connection 10

Closed loop (the default): each connection sends its next message when the last
one was accepted. Open loop (`--rate`): messages are due at fixed times, whether
the server keeps up or not, and a message's latency counts from the time it was
due: a server that stalls is charged for all that had to wait (no coordinated
omission). `--per-connection 1` connects anew for each message.

Latency is from due (or begun) to the reply to the dot: what a sender waits for.
A 4xx is no error but mail that was shed; it is counted, not sent again, and its
latency does not count. `--mbox` sends the messages of a file, over and over, each
from the sender that its "From " line names. With `--pid` the CPU time of that
process (and its children) is told per message. On a terminal a bar on stderr
shows how far it is.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import itertools
import json
import math
import multiprocessing
import os
import platform
import random
import re
import resource
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import trio

from tripost.delivery.fast_stream import FastStream, connect_tcp

TICKS = os.sysconf("SC_CLK_TCK")
UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20}
CDF = 200  # points of a distribution that is told


class Wrong(Exception):
    """The server said something that was not expected; `code` is 0 where it said nothing."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class Mail:
    """What is sent: (sender, content with its end) for the number of a message. The same numbers give the same mail."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._sender = options.sender
        sizes = [parse_size(one) for one in options.size.split(",")]
        self._bodies = [(options.sender, body(size)) for size, _ in sizes]
        self._marks = list(itertools.accumulate(weight for _, weight in sizes))
        if options.mbox:
            self._bodies = list(mbox(options.mbox, options.sender))
            self._marks = []

    def __call__(self, number: int) -> tuple[str, bytes]:
        if len(self._bodies) == 1:
            return self._bodies[0]
        if not self._marks:
            return self._bodies[number % len(self._bodies)]
        mark = random.Random(number).random() * self._marks[-1]
        return self._bodies[bisect.bisect_right(self._marks, mark)]


def parse_size(text: str) -> tuple[int, float]:
    """ "50KiB:2" → (51200, 2.0): octets and weight."""
    found = re.fullmatch(r"(\d+)(|B|KiB|MiB)(?::(\d+(?:\.\d+)?))?", text.strip())
    if found is None:
        raise SystemExit(f"--size: {text!r} is not SIZE[:WEIGHT], as 2048, 50KiB or 1MiB:0.5")
    return int(found[1]) * UNITS[found[2]], float(found[3] or 1)


def mbox(path: str, sender: str) -> Iterator[tuple[str, bytes]]:
    """Its messages. Quoted "From " lines lose one ">" (mboxrd)."""
    with open(path, "rb") as file:
        parts = re.split(rb"(?m)^From (?=\S+ .*\d\d:\d\d)", file.read())
    if len(parts) < 2:
        raise SystemExit(f"{path}: no mbox, or an empty one")
    for part in parts[1:]:
        line, _, content = part.partition(b"\n")
        content = re.sub(rb"(?m)^>(>*From )", rb"\1", content.rstrip(b"\r\n") + b"\n")
        content = re.sub(rb"\r?\n", b"\r\n", content)
        named = line.split()[0].decode("utf-8", "replace").strip("<>")
        yield named if "@" in named else sender, re.sub(rb"(?m)^\.", b"..", content) + b".\r\n"


class Client:
    """One connection; everything of a message up to DATA is sent at once (RFC 2920)."""

    def __init__(self, options: argparse.Namespace, mail: Mail) -> None:
        self.options = options
        self.mail = mail
        self._stream: trio.abc.Stream | None = None
        self._got = b""
        self._on_this = 0

    async def send(self, number: int) -> None:
        """One message, over a new connection where it is time for one."""
        options = self.options
        sender, content = self.mail(number)
        if self._stream is None:
            await self._connect()
        stream = self._stream
        assert stream is not None
        recipient = options.recipient.replace("%d", str(number % options.domains))
        envelope = f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"
        await self._say(envelope.encode())
        await self._replies(250, 250, 354)
        await self._say(content)
        await self._replies(250)
        self._on_this += 1
        if options.per_connection and self._on_this >= options.per_connection:
            await self.quit()

    async def _connect(self) -> None:
        options = self.options
        stream = await connect_tcp(options.host, options.port)
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
        await self._say(b"EHLO source\r\n")
        await self._replies(250)

    async def _say(self, data: bytes) -> None:
        """At once where that goes: whoever has sent waits for a reply next."""
        stream = self._stream
        assert stream is not None
        sent = stream.send_now(data) if isinstance(stream, FastStream) else 0
        if sent < len(data):
            await stream.send_all(data[sent:])

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
                raise Wrong(line.decode("utf-8", "replace"), int(line[:3]))

    async def quit(self) -> None:
        stream = self._stream
        if stream is not None:
            await self._say(b"QUIT\r\n")
            await stream.receive_some(1024)
            self._stream = None
            await stream.aclose()

    def drop(self) -> None:
        """At once."""
        stream, self._stream = self._stream, None
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        if isinstance(stream, FastStream):
            stream.close()


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
    """Of one process: `latencies` in seconds, of what was accepted; `done` counts whatever became of a message."""

    def __init__(self, done: Any) -> None:
        self.latencies: list[float] = []
        self.errors: dict[str, int] = {}
        self.shed = 0
        self.done = done
        self.began = self.ended = 0.0
        self.lags: list[float] = []  # seconds by which it began too late, for want of the processor

    async def one(self, client: Client, number: int, since: float) -> bool:
        """One message; False when the connection is of no use any more."""
        try:
            with trio.fail_after(client.options.patience):
                await client.send(number)
        except (Wrong, OSError, trio.BrokenResourceError, trio.TooSlowError) as wrong:
            client.drop()
            if isinstance(wrong, Wrong) and 400 <= wrong.code < 500:
                self.shed += 1
            else:
                why = f"{type(wrong).__name__}: {wrong}"[:80]
                self.errors[why] = self.errors.get(why, 0) + 1
            return False
        else:
            self.latencies.append(time.perf_counter() - since)
            return True
        finally:
            self.done.value += 1


async def closed(options: argparse.Namespace, figures: Figures) -> None:
    """`messages` over `connections`, as fast as they are taken."""
    left = options.messages
    mail = Mail(options)

    async def one() -> None:
        nonlocal left
        client = Client(options, mail)
        while left > 0:
            left -= 1
            if not await figures.one(client, left, time.perf_counter()):
                await trio.sleep(0.01)
        await client.quit()

    async with trio.open_nursery() as nursery:
        for _ in range(options.connections):
            nursery.start_soon(one)


async def opened(options: argparse.Namespace, figures: Figures) -> None:
    """`rate` messages a second for `seconds`; who finds no free connection waits, and that counts."""
    count = int(options.rate * options.seconds)
    mail = Mail(options)
    send, receive = trio.open_memory_channel[tuple[int, float]](count)
    start = time.perf_counter() + 0.1

    async def one() -> None:
        client = Client(options, mail)
        async for message, due in receive:
            await figures.one(client, message, due)
        await client.quit()

    async with trio.open_nursery() as nursery:
        for _ in range(options.connections):
            nursery.start_soon(one)
        async with send:
            for message in range(count):
                due = start + message / options.rate
                pause = due - time.perf_counter()
                if pause > 0:
                    await trio.sleep(pause)
                    figures.lags.append(time.perf_counter() - due)
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


def cdf(latencies: list[float]) -> list[float]:
    """The latencies below which 0, 1/CDF, 2/CDF … 1 of all are, in milliseconds."""
    rows = sorted(latencies)
    return [round(rows[min(len(rows) - 1, len(rows) * one // CDF)] * 1000, 3) for one in range(CDF + 1)] if rows else []


_done: list[Any] = []  # of this process: how many messages are behind it


def _counted(counters: list[Any]) -> None:
    _done[:] = counters


def _part(options: argparse.Namespace) -> Figures:
    figures = Figures(_done[options.part])
    figures.began = time.perf_counter()
    trio.run(opened if options.rate else closed, options, figures)
    figures.ended, figures.done = time.perf_counter(), None
    return figures


@contextlib.contextmanager
def _bar(counters: list[Any], total: int) -> Iterator[None]:
    """How far it is, on a terminal."""
    over = threading.Event()
    began = time.monotonic()

    def show() -> None:
        while not over.wait(0.2):
            done = sum(one.value for one in counters)
            full = min(40, done * 40 // max(1, total))
            rate = done / (time.monotonic() - began)
            print(f"\r[{'#' * full:40s}] {done}/{total}  {rate:.0f}/s ", end="", file=sys.stderr, flush=True)
        print(f"\r{'':70s}\r", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=show)
    if sys.stderr.isatty():
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.is_alive():
            thread.join()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All processes of one run; the row to be printed."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(PermissionError):
        os.nice(options.nice)
    parts = []
    for number in range(options.processes):
        share = argparse.Namespace(**vars(options), part=number)
        share.messages = options.messages // options.processes + (number < options.messages % options.processes)
        share.rate = options.rate / options.processes
        share.connections = max(1, options.connections // options.processes)
        parts.append(share)
    total = int(options.rate * options.seconds) if options.rate else options.messages
    spawn = multiprocessing.get_context("spawn")
    counters = [spawn.Value("L", 0, lock=False) for _ in parts]
    before = cpu_of(options.pid) if options.pid else 0.0
    with _bar(counters, total):
        if len(parts) == 1:
            _counted(counters)
            results = [_part(parts[0])]
        else:
            with spawn.Pool(len(parts), _counted, (counters,)) as pool:
                results = pool.map(_part, parts, 1)
    seconds = max(one.ended for one in results) - min(one.began for one in results)
    latencies = [one for part in results for one in part.latencies]
    errors: dict[str, int] = {}
    for part in results:
        for why, count in part.errors.items():
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
        "shed": sum(one.shed for one in results),
        "errors": errors,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    if options.rate:
        lags = percentiles([lag for one in results for lag in one.lags])
        row |= {"rate": options.rate, "source_lag_ms": lags}
    if options.cdf:
        row |= {"cdf_ms": cdf(latencies)}
    if options.pid:
        used = cpu_of(options.pid) - before
        row |= {"server_cpu_ms": round(used * 1000 / max(1, len(latencies)), 4)}
        row |= {"messages_per_core_second": round(len(latencies) / max(used, 1e-9))}
    return row


def parser() -> argparse.ArgumentParser:
    """The options; `bench/ingress.py` has them too."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--host", default="127.0.0.1", help="an IP address")
    top.add_argument("--port", type=int, default=2525)
    top.add_argument("--connections", type=int, default=20, help="at the same time, at most")
    top.add_argument("--messages", type=int, default=10_000, help="closed loop")
    top.add_argument("--rate", type=float, default=0.0, help="messages a second: open loop")
    top.add_argument("--seconds", type=float, default=10.0, help="open loop")
    top.add_argument("--size", default="2048", help="of a message, as 2048 or 50KiB, or a mix: 2KiB:9,50KiB:1")
    top.add_argument("--mbox", default="", help="send the messages of this file instead")
    top.add_argument("--per-connection", type=int, default=0, help="messages before a new connection; 0: keep it")
    top.add_argument("--tls", choices=("none", "starttls", "implicit"), default="none")
    top.add_argument("--sender", default="source@bench.example")
    top.add_argument("--recipient", default="sink@d%d.example", help="%%d becomes the domain's number")
    top.add_argument("--domains", type=int, default=1)
    top.add_argument("--nice", type=int, default=0, help="below 0 (only for root): before other programs")
    top.add_argument("--processes", type=int, default=1, help="that share messages, rate and connections")
    top.add_argument("--cdf", action="store_true", help="tell the distribution of the latencies too")
    top.add_argument("--patience", type=float, default=60.0, help="seconds for a message, then it is an error")
    top.add_argument("--pid", type=int, default=0, help="of the server, to tell its CPU time")
    return top


if __name__ == "__main__":
    made = run(parser().parse_args())
    print(json.dumps(made))
    sys.exit(1 if made["errors"] else 0)
