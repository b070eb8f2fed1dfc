"""local delivery into 100 mailboxes, beside what the disk can do, in the same run; one JSON line per figure

    deploy/uv run python bench/local.py [--folder DIR] [--seconds 2] [--rounds 5] [--messages 6000] [--alone]

bound     create, write 2 KiB, fsync, rename, as a Maildir needs at the least, with 1, 2, 4 and 8 threads; a round's
          bound is that of its best number of threads
deliver   `MaildirDelivery` with 20, 64 and 200 messages waiting at any time
queue     the whole way: `--messages` wait in a real queue; claimed, read, delivered, settled durably

Each round runs all of them, in turns, and the ratio is told pair by pair. Nothing is removed before the end: on a disk
with online discard, what one run removes slows the next ones five times. `syncs` are fsync, fdatasync and syncfs calls
a message, `hops` those into worker threads. `--alone`: as on a file system where syncfs is no use.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import trio
from queues import a_queue, letter_body

from tripost.delivery.dispatcher import Dispatcher
from tripost.delivery.mailbox import syncing
from tripost.delivery.mailbox.maildir import MaildirDelivery
from tripost.delivery.resolver import Resolver
from tripost.delivery.settings import LITERAL_CONNECTIONS, DeliverySettings, Destination
from tripost.queue.body import BodyReader
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.message import Delivered, Envelope, Recipient

SIZE = 2048
BOXES = 100
THREADS = (1, 2, 4, 8)
AT_ONCE = (20, 64, 200)
CONTENT = letter_body(SIZE)
REST = 0.3  # seconds between two runs

counts: Counter[str] = Counter()


def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any, **more: Any) -> Any:
        counts[name] += 1
        return call(*args, **more)

    return counted


# --- the runs: each takes an empty folder and returns messages a second ---


def bound(folder: str, seconds: float, threads: int) -> float:
    done = [0] * threads
    stop = time.perf_counter() + seconds
    data = b"x" * SIZE

    def work(me: int) -> None:
        while time.perf_counter() < stop:
            name = os.path.join(folder, f"{me}.{done[me]}")
            fd = os.open(f"{name}.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, data)
            os.fsync(fd)
            os.close(fd)
            os.rename(f"{name}.tmp", name)
            done[me] += 1

    began = time.perf_counter()
    pool = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for one in pool:
        one.start()
    for one in pool:
        one.join()
    counts["messages"] += sum(done)
    return sum(done) / (time.perf_counter() - began)


def box_of(number: int) -> Recipient:
    return Recipient(0, f"user{number % BOXES}@bench.example", "local")


async def deliver(folder: str, seconds: float, at_once: int) -> float:
    local = MaildirDelivery(folder, "bench.example")
    begun = done = 0
    stop = trio.current_time() + seconds

    async def open_reader() -> BodyReader:
        return BodyReader(CONTENT, None, len(CONTENT), trio.to_thread.run_sync)

    async def work() -> None:
        nonlocal begun, done
        while trio.current_time() < stop:
            begun += 1
            who = (box_of(begun),)
            envelope = Envelope(f"B{begun:017}", "x@y", who, time.time(), time.time() + 1000)
            outcomes = await local.deliver(envelope, who, open_reader)
            assert isinstance(outcomes[0], Delivered), outcomes
            done += 1

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(work)
    rate = done / (trio.current_time() - began)
    local.store.close()
    counts["messages"] += done
    return rate


async def from_queue(folder: str, messages: int) -> float:
    local = MaildirDelivery(os.path.join(folder, "mail"), "bench.example")
    os.mkdir(local.store.folder)
    async with a_queue(folder) as queue:
        left = messages

        async def accept() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                body, now, number = queue.new_body(), time.time(), left
                await body.write(CONTENT)
                envelope = Envelope(queue.new_id(), "x@y.example", (box_of(number),), now, now + 432_000, len(CONTENT))
                await queue.accept(envelope, body)

        async with trio.open_nursery() as nursery:
            for _ in range(256):
                nursery.start_soon(accept)
        settings = DeliverySettings(hostname="bench.example", literal=Destination(connections=LITERAL_CONNECTIONS))
        dispatcher = Dispatcher(queue, settings, resolver=Resolver([]), local=local, bus=Bus(), clock=Clock())
        counts.clear()
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            await nursery.start(dispatcher.run)
            while queue.statistics().queued:  # noqa: ASYNC110 - asks from outside
                await trio.sleep(0.002)
            rate = messages / (time.perf_counter() - began)
            dispatcher.stop()
    local.store.close()
    counts["messages"] += messages
    return rate


# --- rounds ---


def runs_of(options: argparse.Namespace) -> dict[str, Callable[[str], float]]:
    seconds = options.seconds
    runs: dict[str, Callable[[str], float]] = {}
    for threads in THREADS:
        runs[f"bound, {threads} threads"] = lambda one, n=threads: bound(one, seconds, n)
    for at_once in AT_ONCE:
        runs[f"deliver, {at_once} at once"] = lambda one, n=at_once: trio.run(deliver, one, seconds, n)
    runs["queue to mailbox"] = lambda one: trio.run(from_queue, one, options.messages)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="on the disk to be measured (default: the working directory)")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=6_000)
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    for name in ("fsync", "fdatasync"):
        setattr(os, name, counting("syncs", getattr(os, name)))
    syncing.syncfs = counting("syncs", syncing.syncfs)
    trio.to_thread.run_sync = counting("hops", trio.to_thread.run_sync)
    if options.alone:
        syncing.GOOD = frozenset()
    folder = tempfile.mkdtemp(prefix="bench-local-", dir=options.folder or os.getcwd())
    try:
        tell(options, rounds(options, folder))
    finally:
        shutil.rmtree(folder)


def rounds(options: argparse.Namespace, folder: str) -> list[dict[str, dict[str, float]]]:
    rows: list[dict[str, dict[str, float]]] = []
    for _ in range(options.rounds):
        row: dict[str, dict[str, float]] = {}
        for what, run in runs_of(options).items():
            counts.clear()
            cpu = time.process_time()
            rate = run(tempfile.mkdtemp(dir=folder))
            messages = counts["messages"]
            row[what] = {
                "rate": rate,
                "syncs": counts["syncs"] / messages,
                "hops": counts["hops"] / messages,
                "cpu_ms": (time.process_time() - cpu) / messages * 1e3,
            }
            time.sleep(REST)
        rows.append(row)
    return rows


def tell(options: argparse.Namespace, rows: list[dict[str, dict[str, float]]]) -> None:
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "alone": options.alone}
    bounds = [max(one["rate"] for what, one in row.items() if what.startswith("bound")) for row in rows]
    for what in rows[0]:
        found = [row[what] for row in rows]
        medians = {key: round(statistics.median(one[key] for one in found), 3) for key in found[0]}
        ratios = [round(one["rate"] / most, 2) for one, most in zip(found, bounds, strict=True)]
        figures = {
            "of_bound": statistics.median(ratios),
            "ratios": ratios,
            "rates": [round(one["rate"]) for one in found],
        }
        print(json.dumps({"bench": "local", "what": what} | medians | figures | machine), flush=True)


if __name__ == "__main__":
    main()
