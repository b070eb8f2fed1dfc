"""the queue's own speed and size at a depth; one JSON line

    deploy/uv run python bench/backlog.py --messages 1000000 --folder DIR [--kill] [--cold]

In one run, on real files with fdatasync: `messages` are accepted through the queue's interface with `waiters` at
once, beside what the same disk does for a program that only appends and syncs; a lone waiter; then the process
ends (--kill: by SIGKILL, with the queue open), and a new one opens the folder (--cold: after the page cache was
dropped, which needs root), claims, and settles a part.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pathlib
import platform
import shutil
import signal
import statistics
import tempfile
import time
from multiprocessing.connection import Connection

import trio
from queues import Fill, Work, a_queue, accept_one, letter_body, resident

from tripost.queue.manager import Queue

LONE = 200
GROUP = 100  # messages per sync in the bound
ROOM = 64 << 20  # octets after which the bound's file begins anew


def append_bound(folder: str, size: int, seconds: float = 3.0) -> float:
    """Messages a second of a loop that appends GROUP messages of `size` and syncs: nothing else, no preallocation."""
    path = os.path.join(folder, "bound")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    data, count, at, start = b"x" * size, 0, 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        for _ in range(GROUP):
            os.write(fd, data)
        os.fdatasync(fd)
        count, at = count + GROUP, at + GROUP * size
        if at > ROOM:
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, 0)
            at = 0
    rate = count / (time.perf_counter() - start)
    os.close(fd)
    os.unlink(path)
    return rate


def own_fsync(folder: str, content: bytes) -> float:
    """Milliseconds, median: append + fdatasync of one message, in this process, without a thread."""
    path = os.path.join(folder, "own")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    times: list[float] = []
    for _ in range(LONE):
        start = time.perf_counter()
        os.write(fd, content)
        os.fdatasync(fd)
        times.append((time.perf_counter() - start) * 1e3)
    os.close(fd)
    os.unlink(path)
    return statistics.median(times)


async def lone(queue: Queue, content: bytes) -> float:
    """Milliseconds, median: one waiter, nobody else."""
    times: list[float] = []
    for number in range(LONE):
        start = time.perf_counter()
        await accept_one(queue, content, "lone.example", number)
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


async def _fill(options: argparse.Namespace, folder: str, report: Connection) -> None:
    content = letter_body(options.size)
    domains = [f"d{n}.example" for n in range(options.domains)]
    row: dict[str, float] = {}
    async with a_queue(folder) as queue:
        await Fill(queue, 1000, ["warm.example"], options.size, options.waiters).run()
        bound = append_bound(folder, options.size)
        before, cpu = resident(), time.process_time()
        seconds = await Fill(queue, options.messages, domains, options.size, options.waiters).run()
        row["accepts_per_s"] = options.messages / seconds
        row["accept_cpu_us"] = (time.process_time() - cpu) / options.messages * 1e6
        row["bytes_per_message"] = (resident() - before) / options.messages
        row["append_bound_per_s"] = bound = (bound + append_bound(folder, options.size)) / 2  # before and after
        row["of_bound"] = row["accepts_per_s"] / bound
        row["lone_p50_ms"] = await lone(queue, content)
        row["own_fsync_p50_ms"] = own_fsync(folder, content)
        report.send(row)
        if options.kill:
            os.kill(os.getpid(), signal.SIGKILL)


def fill(options: argparse.Namespace, folder: str, report: Connection) -> None:
    trio.run(_fill, options, folder, report)


async def _drain(options: argparse.Namespace, folder: str, report: Connection) -> None:
    row: dict[str, float] = {}
    start, before = time.perf_counter(), resident()
    async with a_queue(folder) as queue:
        row["reopen_s"] = time.perf_counter() - start
        row["reopen_bytes_per_message"] = (resident() - before) / options.messages
        hop = queue.next_ready()
        assert hop is not None
        leases = await queue.claim(hop, 1)
        assert leases
        row["first_claim_s"] = time.perf_counter() - start
        queue.release(leases[0])
        work = Work(queue, min(options.messages, options.settle))
        if options.domains == 1:
            work = Work(queue, min(options.messages, options.settle), "d0.example")
        seconds = await work.run()
        row["settled"], row["settles_per_s"] = work.settled, work.settled / seconds
    report.send(row)


def drain(options: argparse.Namespace, folder: str, report: Connection) -> None:
    trio.run(_drain, options, folder, report)


def in_a_process(what: object, options: argparse.Namespace, folder: str) -> dict[str, float]:
    """What it reports; a new interpreter, so that memory is its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=what, args=(options, folder, there))  # type: ignore[arg-type]  # `fill` or `drain`
    child.start()
    there.close()
    row: dict[str, float] = here.recv()
    child.join()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--domains", type=int, default=1)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--waiters", type=int, default=256)
    parser.add_argument("--settle", type=int, default=50_000)
    parser.add_argument("--kill", action="store_true", help="the first process is killed with its queue open")
    parser.add_argument("--cold", action="store_true", help="drop the page cache before the second one (root)")
    parser.add_argument("--folder", help="on the disk to be measured (default: a temporary folder)")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="tripost-bench-", dir=options.folder)
    row: dict[str, object] = {"bench": "backlog", **vars(options)}
    row |= {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    row["cores"] = os.cpu_count()
    del row["folder"]
    try:
        found = in_a_process(fill, options, folder)
        if options.cold:
            os.sync()
            pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        found |= in_a_process(drain, options, folder)
        row |= {name: round(value, 3) for name, value in found.items()}
        print(json.dumps(row))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
