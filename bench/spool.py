"""pyperf: what the spool does per message

deploy/uv run python bench/spool.py [-o FILE]

`encode`, `decode` and `index` are computing; the others are a real queue on a real disk, with fdatasync, 256 at once,
and told per message. Where: $TRIPOST_BENCH, else the temporary folder.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial

import pyperf
import trio
from queues import Fill, Work, a_queue, letter_body

from tripost.queue import records
from tripost.queue.entries import ACCEPT, Acceptance, decode_accept, encode
from tripost.queue.files import RealFiles
from tripost.queue.manager import Queue
from tripost.queue.message import Envelope, Recipient
from tripost.queue.recovery import recover

FOLDER = os.environ.get("TRIPOST_BENCH") or None
KEY = b"k" * records.KEY_SIZE
ONE = Envelope("0" * 18, "s@x.example", (Recipient(0, "u@y.example", "mx:y.example"),), 1e9, 1e9 + 432_000, 2048)
LETTER = Acceptance(ONE, letter_body(2048))
DEPTH = 100_000
LEAST = 5_000  # messages in one measurement: fewer would be all start and end
LARGE = 1_000  # of more than 100 KiB each


def encode_record() -> bytes:
    return records.encode(KEY, 4096, ACCEPT, encode(LETTER))


def encode_batch(items: list[tuple[int, bytes]]) -> object:
    return records.encode_many(KEY, 4096, items)


def decode_record(data: bytes) -> Acceptance:
    good = records.decode_at(KEY, data, 0, 4096)
    assert good is not None
    return decode_accept(good.payload)


def timed(loops: int, what: Callable[[Queue, int], Awaitable[float]], least: int = LEAST) -> float:
    """Seconds for `loops` messages, scaled down from at least so many."""
    count = max(loops, least)
    folder = tempfile.mkdtemp(prefix="tripost-bench-", dir=FOLDER)

    async def run() -> float:
        async with a_queue(folder) as queue:
            return await what(queue, count)

    try:
        return trio.run(run) * loops / count
    finally:
        shutil.rmtree(folder)


async def append(queue: Queue, count: int, size: int = 2048) -> float:
    return await Fill(queue, count, ["one.example"], size).run()


async def claim(queue: Queue, count: int) -> float:
    await append(queue, count, 256)
    seconds = 0.0
    while count > 0:
        start = time.perf_counter()
        leases = await queue.claim("mx:one.example", 16)
        seconds += time.perf_counter() - start
        count -= len(leases)
    return seconds


async def settle(queue: Queue, count: int) -> float:
    await append(queue, count, 256)
    return await Work(queue, count, "one.example").run()


@functools.cache
def deep() -> str:
    """The folder of a spool with a sealed log of DEPTH messages; made once in each process, gone at its end."""
    folder = tempfile.mkdtemp(prefix="tripost-bench-", dir=FOLDER)
    atexit.register(shutil.rmtree, folder)

    async def fill() -> None:
        async with a_queue(folder) as queue:
            await append(queue, DEPTH, 256)

    trio.run(fill)
    return folder


def recovery(loops: int) -> float:
    """Per message."""
    folder = deep()
    start = time.perf_counter()
    found = recover(RealFiles(), os.path.join(folder, "spool"), time.time())
    seconds = time.perf_counter() - start
    assert found.ledger.messages == DEPTH
    return seconds * loops / DEPTH


def main() -> None:
    runner = pyperf.Runner(processes=3, values=3, warmups=1, min_time=0.001)
    runner.argparser.set_defaults(inherit_environ=["TRIPOST_BENCH"])
    record = encode_record()
    runner.bench_func("encode one record, 2 KiB", encode_record)
    runner.bench_func("encode 100 records as a batch, 2 KiB", encode_batch, [(ACCEPT, encode(LETTER))] * 100)
    runner.bench_func("decode one record, 2 KiB", decode_record, record)
    runner.bench_time_func("accept, durable, 2 KiB inline", timed, append)
    runner.bench_time_func("accept, durable, 30 KiB inline", timed, partial(append, size=30 << 10))
    runner.bench_time_func("accept, durable, 120 KiB inline", timed, partial(append, size=120 << 10), LARGE)
    runner.bench_time_func("accept, durable, 140 KiB in its own file", timed, partial(append, size=140 << 10), LARGE)
    runner.bench_time_func("claim, 16 at a time", timed, claim)
    runner.bench_time_func("claim and settle, durable", timed, settle)
    runner.bench_time_func("recover a message of a sealed log", recovery)


if __name__ == "__main__":
    main()
