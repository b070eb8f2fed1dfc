"""a dead and a very slow destination beside a healthy one; then the dead one returns. One JSON line

    deploy/uv run python bench/fairness.py --messages 100000 --rounds 7

A real queue with `--messages` for the dead and for the slow one, and enough for the healthy one. In each round its rate
alone (the others suspended) and beside them is measured twice, in the order alone, beside, beside, alone, so that a
machine that gets slower or faster meanwhile favours neither. At the end somebody listens where nobody did:
told are the connections before the first message, how soon the full rate is reached, and the most at once.
"""

from __future__ import annotations

import argparse
import bisect
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any

import trio
from limits import Sink, most_in
from queues import Fill, a_queue

from delivery import HEALTHY, SinkProcess, delivering
from tripost.delivery.settings import Destination, Rate
from tripost.queue.manager import Queue

DEAD, SLOW = "dead.example", "slow.example"
PROBES = (1.0, 10.0)  # first and longest pause
RETURNING = Destination(tls="none", connections=10, rate=Rate(200, 1.0), probe_first=PROBES[0], probe_longest=PROBES[1])
SPAN = 5.0  # seconds over which a rate is full
SETTLING = 0.5  # seconds between two spans


def returned(pipe: Connection, port: int) -> None:
    """A process: listens from now on, until it is asked for what it saw."""

    async def main() -> None:
        sink = Sink()
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=256)
            nursery.start_soon(trio.serve_listeners, sink.serve, listeners)
            pipe.send(time.monotonic())
            await trio.lowlevel.wait_readable(pipe.fileno())
            pipe.send([sink.mails, sink.greeted, sink.most])
            nursery.cancel_scope.cancel()

    trio.run(main)


async def _only(queue: Queue, both: bool) -> None:
    for domain in (DEAD, SLOW):
        if both:
            await queue.resume(f"mx:{domain}")
        else:
            await queue.suspend(f"mx:{domain}", reason="the healthy one alone")


async def _round(queue: Queue, quick: SinkProcess, seconds: float) -> list[float]:
    """The rate alone, and beside the others."""
    counts = [0, 0]
    spent = [0.0, 0.0]
    for both in (False, True, True, False):
        await _only(queue, both)
        await trio.sleep(SETTLING)
        before, start = quick.counts()[2], time.perf_counter()
        await trio.sleep(seconds)
        counts[both] += quick.counts()[2] - before
        spent[both] += time.perf_counter() - start
    return [count / span for count, span in zip(counts, spent, strict=True)]


async def _return(port: int, seconds: float) -> dict[str, Any]:
    """Somebody listens at the dead one's port."""
    fresh = multiprocessing.get_context("spawn")
    ours, theirs = fresh.Pipe()
    child = fresh.Process(target=returned, args=(theirs, port), daemon=True)
    child.start()
    start = await trio.to_thread.run_sync(ours.recv)
    await trio.sleep(seconds)
    ours.send(None)
    mails, greeted, most = await trio.to_thread.run_sync(ours.recv)
    child.join()
    if not mails:
        return {"returned": "nobody noticed"}
    enough = 0.98 * RETURNING.rate.count * SPAN
    full = [when for n, when in enumerate(mails) if bisect.bisect(mails, when + SPAN) - n >= enough]
    return {
        "bounds": [RETURNING.connections, f"{RETURNING.rate.count}/s"],
        "first_connection_after": round(greeted[0] - start, 2),
        "connections_before_the_first_message": bisect.bisect(greeted, mails[0]),
        "full_rate_after": round(full[0] - start, 2) if full else None,
        "most_in_a_second": most_in(mails, 1.0),
        "most_connections": most,
        "returned_messages": len(mails),
    }


async def main(options: argparse.Namespace) -> dict[str, Any]:
    quick, slow = SinkProcess(), SinkProcess(delay=2.0)
    rates: list[list[float]] = []
    with socket.socket() as nobody, tempfile.TemporaryDirectory(dir=options.folder) as folder:
        nobody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        nobody.bind(("127.0.0.1", 0))  # taken, and not listened at
        port = nobody.getsockname()[1]
        ports = {HEALTHY: quick.port, SLOW: slow.port, DEAD: port}
        async with a_queue(folder) as queue:
            await Fill(queue, 2 * options.messages, [DEAD, SLOW]).run()
            terms = Destination(tls="none", probe_first=PROBES[0], probe_longest=PROBES[1])
            async with delivering(queue, ports, terms, destinations={DEAD: RETURNING}):
                for _ in range(options.rounds):
                    await _only(queue, False)
                    await Fill(queue, options.healthy, [HEALTHY]).run()
                    rates.append(await _round(queue, quick, options.seconds))
                    assert quick.counts()[2] < options.healthy * len(rates), "the healthy one had too little"
                left = queue.statistics().queued
                await _only(queue, True)
                await trio.sleep(PROBES[1])  # it is dead for as long as ever
                nobody.close()
                row = await _return(port, options.returned)
    for one in (quick, slow):
        one.end()
    ratios = [both / alone for alone, both in rates]
    return {
        "alone_per_second": round(statistics.median(alone for alone, _ in rates)),
        "with_both": [round(one, 3) for one in ratios],
        "median": round(statistics.median(ratios), 3),
        "queued_then": left,
        **row,
    }


if __name__ == "__main__":
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    top.add_argument("--messages", type=int, default=100_000)
    top.add_argument("--healthy", type=int, default=150_000, help="more of them before each round")
    top.add_argument("--seconds", type=float, default=3.0, help="a quarter of a round")
    top.add_argument("--returned", type=float, default=60.0)
    top.add_argument("--rounds", type=int, default=7)
    top.add_argument("--folder", default=None)
    print(json.dumps({"bench": "fairness", "cores": os.cpu_count(), **trio.run(main, top.parse_args())}))
