"""the queue's own speed and size at a depth; one JSON line

    deploy/uv run python bench/backlog.py --messages 100000 --domains 1 --folder DIR

Accepts `messages` through the queue's interface with `waiters` at once, measures a lone waiter, claims and
settles a part, and opens the folder anew. Everything is real: files, threads, fdatasync.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time

import trio

from tripost.queue.clock import Clock
from tripost.queue.events import Bus
from tripost.queue.manager import Queue
from tripost.queue.message import Delivered, Envelope, Recipient
from tripost.queue.opening import open_queue
from tripost.queue.values import QueueSettings

LONE = 200
MiB = 1 << 20


def resident() -> int:
    """Octets of memory in use by this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def no_report(*_: object) -> None:
    return None


class Bench:
    def __init__(self, options: argparse.Namespace, folder: str) -> None:
        self.options = options
        self.folder = folder
        self.content = b"Subject: bench\r\n\r\n" + b"x" * (options.size - 20) + b"\r\n"
        self.left = options.messages
        self.row: dict[str, object] = {
            "bench": "backlog",
            "messages": options.messages,
            "domains": options.domains,
            "size": options.size,
            "waiters": options.waiters,
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        }

    def note(self, **figures: float) -> None:
        self.row |= {name: round(value, 3) for name, value in figures.items()}

    async def _accept_one(self, queue: Queue, number: int) -> None:
        body = queue.new_body()
        await body.write(self.content)
        now = time.time()
        domain = f"d{number % self.options.domains}.example"
        one = Recipient(0, f"u{number}@{domain}", f"mx:{domain}")
        await queue.accept(Envelope(queue.new_id(), "s@x.example", (one,), now, now + 432_000, len(self.content)), body)

    async def _waiter(self, queue: Queue) -> None:
        while self.left > 0:
            self.left -= 1
            await self._accept_one(queue, self.left)

    async def fill(self) -> None:
        before = resident()
        async with self._open() as queue:
            start, cpu = time.perf_counter(), time.process_time()
            async with trio.open_nursery() as nursery:
                for _ in range(self.options.waiters):
                    nursery.start_soon(self._waiter, queue)
            seconds = time.perf_counter() - start
            self.note(
                accepts_per_s=self.options.messages / seconds,
                accept_cpu_us=(time.process_time() - cpu) / self.options.messages * 1e6,
                bytes_per_message=(resident() - before) / self.options.messages,
            )
            await self._lone(queue)

    async def _lone(self, queue: Queue) -> None:
        times: list[float] = []
        for number in range(LONE):
            start = time.perf_counter()
            await self._accept_one(queue, number)
            times.append((time.perf_counter() - start) * 1e3)
        self.note(lone_p50_ms=statistics.median(times), own_fsync_p50_ms=self._own_fsync())

    def _own_fsync(self) -> float:
        """The machine's append + fdatasync of one message, in this process, without a thread."""
        path = os.path.join(self.folder, "own")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        times: list[float] = []
        for _ in range(LONE):
            start = time.perf_counter()
            os.write(fd, self.content)
            os.fdatasync(fd)
            times.append((time.perf_counter() - start) * 1e3)
        os.close(fd)
        os.unlink(path)
        return statistics.median(times)

    async def drain(self) -> None:
        """Open anew; claim and settle a part of what is there."""
        start, before = time.perf_counter(), resident()
        async with self._open() as queue:
            opened = time.perf_counter() - start
            self.note(reopen_s=opened, reopen_bytes_per_message=(resident() - before) / self.options.messages)
            most = min(self.options.messages, self.options.settle)
            start, done = time.perf_counter(), 0
            async with trio.open_nursery() as nursery:
                for hop in queue.ready()[: most or 1]:
                    leases = await queue.claim(hop, max(1, min(64, most - done)))
                    while leases and done < most:
                        for lease in leases:
                            nursery.start_soon(queue.settle, lease, {0: Delivered("relayed", "250 ok", "h")})
                        done += len(leases)
                        await trio.lowlevel.checkpoint()
                        leases = await queue.claim(hop, 64)
                    for lease in leases:
                        queue.release(lease)
                    if done >= most:
                        break
            self.note(settled=done, settles_per_s=done / (time.perf_counter() - start))

    def _open(self):  # type: ignore[no-untyped-def]  # a context manager of the queue
        return open_queue(
            os.path.join(self.folder, "spool"), QueueSettings(min_free=0), clock=Clock(), bus=Bus(), reporter=no_report
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--domains", type=int, default=1)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--waiters", type=int, default=256)
    parser.add_argument("--settle", type=int, default=10_000)
    parser.add_argument("--folder", help="on the disk to be measured (default: a temporary folder)")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="tripost-bench-", dir=options.folder)
    try:
        bench = Bench(options, folder)
        trio.run(bench.fill)
        trio.run(bench.drain)
        print(json.dumps(bench.row))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
