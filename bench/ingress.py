"""what SMTP costs, and what it stands: a gateway of its own, measured from outside; JSON lines

    deploy/uv run python bench/ingress.py cpu            CPU per accepted message, connections kept and new
    deploy/uv run python bench/ingress.py idle           5,000 idle and slow clients beside well-behaved mail
    deploy/uv run python bench/ingress.py large          20 clients with 50 MiB each beside well-behaved mail
    deploy/uv run python bench/ingress.py many           5,000 clients with 30 KiB each, all in DATA

The gateway is started in a temporary folder (`--folder`: on the disk that is meant), mail is durable as always, and
goes to a destination that refuses connections, so that nothing but taking it is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import source
import trio

TOML = """\
hostname = "smtp.bench.example"
state = "state"
[[listen]]
service = "smtp"
address = "127.0.0.1:{port}"
[[route]]
domain = "*"
to = "smtp://127.0.0.1:9"
[limits]
message_size = "60MiB"
{limits}
[spool]
min_free = "1MiB"
[events]
file = "events.log"
format = "json"
"""
MiB = 1 << 20
BEGIN = b"EHLO bench\r\nMAIL FROM:<a@bench.example>\r\nRCPT TO:<b@bench.example>\r\nDATA\r\n"


class Gateway:
    """A running one."""

    def __init__(self, folder: pathlib.Path, limits: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        file = folder / "tripost.toml"
        file.write_text(TOML.format(port=self.port, limits=limits))
        self.child = subprocess.Popen([sys.executable, "-m", "tripost", "serve", str(file)])
        self.pid = self.child.pid
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as one:
                one.recv(100)
                return
            time.sleep(0.05)
        raise SystemExit("the gateway did not start")

    def resident(self, what: str = "VmRSS") -> int:
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
        raise SystemExit("the gateway is gone")

    def forget_peak(self) -> None:
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(60)


@contextlib.contextmanager
def gateway(options: argparse.Namespace, limits: str = "") -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        one = Gateway(pathlib.Path(folder), limits)
        try:
            yield one
        finally:
            one.stop()


def beside(one: Gateway, seconds: float, rate: float = 50.0) -> tuple[threading.Thread, dict[str, Any]]:
    """Well-behaved mail, open loop, by a process of its own; its row is in the dictionary when the thread has ended."""
    words = ["--port", str(one.port), "--rate", str(rate), "--seconds", str(seconds), "--connections", "10"]
    row: dict[str, Any] = {}

    def measure() -> None:
        program = [sys.executable, str(pathlib.Path(__file__).with_name("source.py")), *words]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        row.update(json.loads(done.stdout))

    thread = threading.Thread(target=measure)
    thread.start()
    return thread, row


def told(name: str, **figures: Any) -> None:
    print(json.dumps({"bench": f"ingress {name}", **figures}), flush=True)


def cpu(options: argparse.Namespace) -> None:
    with gateway(options) as one:
        for per_connection, messages in ((0, 10_000), (1, 5_000), (0, 10_000), (1, 5_000)):
            words = ["--port", str(one.port), "--pid", str(one.pid), "--connections", "50", "--messages", str(messages)]
            row = source.run(source.parser().parse_args([*words, "--per-connection", str(per_connection)]))
            told("cpu", **{name: value for name, value in row.items() if name != "bench"})


def idle(options: argparse.Namespace) -> None:
    with gateway(options, 'command_timeout = "20s"\ndata_timeout = "20s"') as one:
        before, clients = one.resident(), options.clients
        thread: list[Any] = []
        closed = trio.run(_idle, one, clients, lambda: thread.extend(beside(one, 10.0)))
        thread[0].join()
        told(
            "idle",
            clients=clients,
            memory_per_client_kib=round((closed["resident"] - before) / clients / 1024, 1),
            closed_by_us=closed["closed"],
            last_closed_after_s=round(closed["after"], 1),
            well_behaved=thread[1]["latency_ms"],
            errors=thread[1]["errors"],
        )


async def _idle(one: Gateway, clients: int, start_good: Any) -> dict[str, Any]:
    """A third says nothing, a third gives a command octet by octet, a third content octet by octet."""
    result = {"closed": 0, "after": 0.0, "resident": 0}
    began, over = time.perf_counter(), trio.Event()

    async def client(number: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", one.port)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(read, stream, nursery.cancel_scope)
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                if number % 3 == 2:
                    await stream.send_all(BEGIN)
                while number % 3:
                    await stream.send_all(b"x")
                    await trio.sleep(5)
            await trio.sleep(120)

    async def read(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        result["closed"] += 1
        result["after"] = time.perf_counter() - began
        if result["closed"] == clients:
            over.set()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(client, number)
            if number % 50 == 49:
                await trio.sleep(0.02)
        await trio.sleep(1)
        start_good()
        await trio.sleep(8)
        result["resident"] = one.resident()
        with trio.move_on_after(100):
            await over.wait()
        nursery.cancel_scope.cancel()
    return result


def large(options: argparse.Namespace) -> None:
    with gateway(options) as one:
        time.sleep(0.5)
        one.forget_peak()
        before = one.resident()
        thread, row = beside(one, 25.0)
        time.sleep(1)
        took = trio.run(_large, one)
        peak = one.resident("VmHWM")
        thread.join()
        told(
            "large",
            clients=20,
            octets_each=50 * MiB,
            seconds=round(took, 1),
            peak_over_idle_mib=round((peak - before) / MiB, 1),
            well_behaved=row["latency_ms"],
            errors=row["errors"],
        )


async def _large(one: Gateway) -> float:
    piece = (b"0123456789" * 7 + b"\r\n") * 1000
    began = time.perf_counter()

    async def client() -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", one.port)
        async with stream:
            await stream.send_all(BEGIN)
            await _until(stream, b"354")
            for _ in range(50 * MiB // len(piece)):
                await stream.send_all(piece)
            await stream.send_all(b".\r\n")
            await _until(stream, b"250 2.0.0")

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client)
    return time.perf_counter() - began


async def _until(stream: trio.SocketStream, mark: bytes) -> None:
    got = b""
    while mark not in got:
        part = await stream.receive_some()
        if not part:
            raise SystemExit(f"closed: {got[-200:]!r}")
        got += part


def many(options: argparse.Namespace) -> None:
    seconds = 2 * options.clients / options.pace + 4
    with gateway(options, f'memory = "{options.memory}"') as one:
        time.sleep(0.5)
        one.forget_peak()
        before = one.resident()
        good: list[Any] = []
        took = trio.run(_many, one, options, lambda: good.extend(beside(one, seconds)))
        peak = one.resident("VmHWM")
        good[0].join()
        told(
            "many",
            clients=options.clients,
            octets_each=30 * 1024,
            memory=options.memory,
            seconds=round(took, 1),
            peak_over_idle_mib=round((peak - before) / MiB, 1),
            well_behaved=good[1]["latency_ms"],
            errors=good[1]["errors"],
        )


async def _many(one: Gateway, options: argparse.Namespace, start_good: Any) -> float:
    """They come at a pace; all are in DATA with all but the last octets sent; then they end at the same pace."""
    clients = options.clients
    content = (b"0123456789" * 7 + b"\r\n") * (30 * 1024 // 72)
    began, ready, all_in = time.perf_counter(), 0, trio.Event()
    start = began

    async def client(number: int) -> None:
        nonlocal ready, start
        stream = await trio.open_tcp_stream("127.0.0.1", one.port)
        async with stream:
            await stream.send_all(BEGIN)
            await _until(stream, b"354")
            await stream.send_all(content)
            ready += 1
            if ready == clients:
                start = time.perf_counter()
                all_in.set()
            await all_in.wait()
            await trio.sleep(max(0.0, start + 2 + number / options.pace - time.perf_counter()))
            await stream.send_all(b".\r\n")
            await _until(stream, b"250 2.0.0")

    async with trio.open_nursery() as nursery:
        start_good()
        for number in range(clients):
            nursery.start_soon(client, number)
            await trio.sleep(max(0.0, began + number / options.pace - time.perf_counter()))
    return time.perf_counter() - began


if __name__ == "__main__":
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    runs = {"cpu": cpu, "idle": idle, "large": large, "many": many}
    top.add_argument("run", choices=runs)
    top.add_argument("--folder", default=None)
    top.add_argument("--clients", type=int, default=5000)
    top.add_argument("--memory", default="64MiB", help="of the run `many`")
    top.add_argument("--pace", type=float, default=300.0, help="clients a second, of the run `many`")
    given = top.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    runs[given.run](given)
    os.sync()
