"""what bench/backlog.py, depth.py and spool.py share: a real queue, filled, worked off"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import trio

from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.manager import Queue
from tripost.queue.message import Delivered, Envelope, Recipient
from tripost.queue.opening import open_queue
from tripost.queue.values import QueueSettings

MOST = 16  # claimed at once
DONE = {0: Delivered("relayed", "250 ok", "h")}


def resident() -> int:
    """Octets of memory in use by this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def no_report(*_: object) -> None:
    return None


def a_queue(folder: str, **settings: object) -> AbstractAsyncContextManager[Queue]:
    """Real files, real threads, fdatasync on."""
    made = QueueSettings(min_free=0, **settings)  # type: ignore[arg-type]  # the caller's to name right
    return open_queue(os.path.join(folder, "spool"), made, clock=Clock(), bus=Bus(), reporter=no_report)


def letter_body(size: int) -> bytes:
    return b"Subject: bench\r\n\r\n" + b"x" * (size - 20) + b"\r\n"


async def accept_one(queue: Queue, content: bytes, domain: str, number: int = 0) -> None:
    body = queue.new_body()
    await body.write(content)
    now = time.time()
    one = Recipient(0, f"u{number}@{domain}", f"mx:{domain}")
    await queue.accept(Envelope(queue.new_id(), "s@x.example", (one,), now, now + 432_000, len(content)), body)


class Fill:
    """Accept `count` messages by `waiters` at once, the n-th for domain n of `domains`, round and round."""

    def __init__(self, queue: Queue, count: int, domains: list[str], size: int = 2048, waiters: int = 256) -> None:
        self._queue, self._left, self._domains, self._waiters = queue, count, domains, waiters
        self._content = letter_body(size)

    async def run(self) -> float:
        """Seconds."""
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(self._waiters):
                nursery.start_soon(self._waiter)
        return time.perf_counter() - start

    async def _waiter(self) -> None:
        while self._left > 0:
            self._left -= 1
            number = self._left
            await accept_one(self._queue, self._content, self._domains[number % len(self._domains)], number)


class Work:
    """Claim and settle `count` messages by `workers` at once: of `domain`, or of whatever is ready."""

    def __init__(self, queue: Queue, count: int, domain: str = "", workers: int = 256) -> None:
        self._queue, self._left, self._domain, self._workers = queue, count, domain, workers
        self.settled = 0

    async def run(self) -> float:
        """Seconds."""
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(self._workers):
                nursery.start_soon(self._worker)
        return time.perf_counter() - start

    async def _worker(self) -> None:
        hop: str | None = f"mx:{self._domain}" if self._domain else self._queue.next_ready()
        while self._left > 0 and hop is not None:
            most = min(MOST, self._left)
            self._left -= most
            leases = await self._queue.claim(hop, most)
            self._left += most - len(leases)
            for lease in leases:
                await self._queue.settle(lease, DONE)
                self.settled += 1
            if not leases or not self._domain:
                hop = self._queue.next_ready() if not self._domain else None


def measured(
    name: str,
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace, str], Awaitable[dict[str, object]]],
) -> None:
    """Run in a folder of its own on the disk that `--folder` names; one JSON line with the options and the figures."""
    parser.add_argument("--folder", help="on the disk to be measured (default: a temporary folder)")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="tripost-bench-", dir=options.folder)
    try:
        row = trio.run(run, options, folder)
    finally:
        shutil.rmtree(folder)
    asked = {key: value for key, value in vars(options).items() if key != "folder"}
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(json.dumps({"bench": name, "machine": machine, "python": platform.python_version()} | asked | row))
