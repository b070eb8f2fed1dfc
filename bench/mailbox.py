"""local delivery and POP3, each against its measure in the same run

    python bench/mailbox.py deliver [--folder DIR] [--seconds 3] [--rounds 3]
        messages/s made durable in 100 mailboxes by `MaildirDelivery`, beside the disk's bound: create, write 2 KiB,
        fsync, rename, with 1, 4 and 16 threads, alternating in one run
    python bench/mailbox.py pop3 [--messages 100000] [--fetch 10000] [--rounds 3]
        login + UIDL of a large mailbox and RETR of 10 KiB messages, beside Dovecot (Debian: dovecot-pop3d) on the
        same Maildir with the same pipelining client
    python bench/mailbox.py idle [--sessions 1000]
        memory of idle sessions

One JSON line per figure, with the medians.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable

import trio

from tripost.delivery.mailbox.maildir import MaildirDelivery
from tripost.queue.body import BodyReader
from tripost.queue.message import Delivered, Envelope, Recipient

SIZE = 2048
BOXES = 100


def say(**figures: object) -> None:
    print(json.dumps(figures | {"cores": os.cpu_count(), "python": platform.python_version()}), flush=True)


# --- local delivery ---


def bound(folder: str, seconds: float, threads: int) -> float:
    """Messages/s of create + write + fsync + rename, as a Maildir needs at the least."""
    counts = [0] * threads
    stop = time.perf_counter() + seconds
    data = b"x" * SIZE

    def work(me: int) -> None:
        while time.perf_counter() < stop:
            name = os.path.join(folder, f"{me}.{counts[me]}")
            fd = os.open(f"{name}.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, data)
            os.fsync(fd)
            os.close(fd)
            os.rename(f"{name}.tmp", name)
            counts[me] += 1

    began = time.perf_counter()
    pool = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for one in pool:
        one.start()
    for one in pool:
        one.join()
    return sum(counts) / (time.perf_counter() - began)


async def deliver(folder: str, seconds: float, at_once: int) -> float:
    """Messages/s through `MaildirDelivery`, `at_once` of them waiting at any time."""
    local = MaildirDelivery(folder, "bench.example")
    content = b"Subject: x\r\n\r\n" + b"y" * (SIZE - 14)
    count = done = 0
    stop = trio.current_time() + seconds

    async def open_reader() -> BodyReader:
        return BodyReader(content, None, len(content), trio.to_thread.run_sync)

    async def work() -> None:
        nonlocal count, done
        while trio.current_time() < stop:
            count += 1
            who = (Recipient(0, f"user{count % BOXES}@bench.example", "local"),)
            envelope = Envelope(f"B{count:017}", "x@y", who, time.time(), time.time() + 1000)
            outcomes = await local.deliver(envelope, who, open_reader)
            assert isinstance(outcomes[0], Delivered), outcomes
            done += 1

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(work)
    rate = done / (trio.current_time() - began)
    local.store.close()
    return rate


def in_folder(parent: str | None, work: Callable[[str], float]) -> float:
    folder = tempfile.mkdtemp(prefix="bench-mailbox-", dir=parent)
    try:
        return work(folder)
    finally:
        shutil.rmtree(folder)
        os.sync()


def run_deliver(options: argparse.Namespace) -> None:
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for threads in (1, 4, 16):
            rate = in_folder(options.folder, functools.partial(bound, seconds=options.seconds, threads=threads))
            found.setdefault(f"bound, {threads} threads", []).append(rate)
        for at_once in (20, 64, 200):
            rate = in_folder(options.folder, lambda one, n=at_once: trio.run(deliver, one, options.seconds, n))
            found.setdefault(f"deliver, {at_once} at once", []).append(rate)
    for what, rates in found.items():
        say(what=what, median=round(statistics.median(rates)), runs=[round(one) for one in rates])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["deliver", "pop3", "idle"])
    parser.add_argument("--folder", default=str(pathlib.Path.cwd()))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.what == "deliver":
        run_deliver(options)


if __name__ == "__main__":
    main()
