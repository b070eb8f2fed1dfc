"""looking into a deep queue, and changing it, while mail comes in and goes out; one JSON line

    deploy/uv run python bench/search.py [--deep 1000000] [--rate 300] [--folder DIR]

Fills a queue, half of it for one domain. Then, while so many messages a second are accepted and delivered: the
summary, a search by recipient for the one message that was queued last, one for none, and by sender for all; the count
of what a bounce of the one domain would end, the bounce, and its undo. Told are seconds, the p99 of the accepts
meanwhile, and how much was delivered a second as a share of what was just before, when nothing was asked.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from queues import DONE, Fill, a_queue, accept_one, letter_body, measured

from tripost.queue.finding import Wanted
from tripost.queue.manager import Queue
from tripost.queue.planning import Order

BEFORE = 3.0  # seconds of mail alone, before each question
DOMAIN = "meanwhile.example"


class Mail:
    """Accepts one message every 1/rate seconds, and delivers it: milliseconds of each accept, and how many went."""

    def __init__(self, queue: Queue, rate: float) -> None:
        self._queue = queue
        self._rate = rate
        self.times: list[float] = []
        self.delivered = 0

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver)
            due = trio.current_time()
            while True:
                nursery.start_soon(self._accept)
                due = max(due + 1 / self._rate, trio.current_time() - 1)
                await trio.sleep_until(due)

    async def _accept(self) -> None:
        start = time.perf_counter()
        await accept_one(self._queue, letter_body(2048), DOMAIN)
        self.times.append((time.perf_counter() - start) * 1e3)

    async def _deliver(self) -> None:
        while True:
            leases = await self._queue.claim(f"mx:{DOMAIN}", 16)
            for lease in leases:
                await self._queue.settle(lease, DONE)
                self.delivered += 1
            if not leases:
                await trio.sleep(0.001)

    async def during(self, question: Callable[[], Awaitable[object]]) -> tuple[float, float, float, object]:
        """(seconds, p99 of the accepts, delivered a second, the answer)"""
        self.times, self.delivered, start = [], 0, time.perf_counter()
        answer = await question()
        seconds = time.perf_counter() - start
        p99 = statistics.quantiles(self.times, n=100)[98] if len(self.times) > 2 else max(self.times, default=0.0)
        return seconds, p99, self.delivered / seconds, answer


async def count(queue: Queue, wanted: Wanted) -> int:
    found = 0
    async for _ in queue.search.matches(wanted):
        found += 1
    return found


async def counted(queue: Queue, order: Order, wanted: Wanted) -> int:
    return (await queue.edit.count(order, wanted)).messages


async def acted(queue: Queue, order: Order, wanted: Wanted) -> int:
    return (await queue.edit.act(order, wanted)).messages


async def undone(queue: Queue) -> int:
    return (await queue.edit.undo("bench")).messages


async def run(options: argparse.Namespace, folder: str) -> dict[str, object]:
    row: dict[str, object] = {}
    async with a_queue(folder) as queue:
        domains = [name for n in range(1000) for name in (f"d{n}.example", "big.example")]
        await Fill(queue, options.deep, domains, options.size).run()
        await accept_one(queue, letter_body(options.size), "last.example", 77)
        bounce, big = Order(verb="bounce", who="bench", grace=3600.0), Wanted(domain="big.example")
        questions: dict[str, Callable[[], Awaitable[object]]] = {
            "summary": queue.search.summary,
            "last": partial(count, queue, Wanted(recipient="u77@last.example")),
            "none": partial(count, queue, Wanted(recipient="nobody@nowhere.example")),
            "sender": partial(count, queue, Wanted(sender="s@x.example")),
            "dry_run": partial(counted, queue, bounce, big),
            "bounce": partial(acted, queue, bounce, big),
            "undo": partial(undone, queue),
        }
        mail = Mail(queue, options.rate)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mail.run)
            await trio.sleep(1)
            for name, question in questions.items():
                _, _, before, _ = await mail.during(partial(trio.sleep, BEFORE))
                seconds, p99, rate, answer = await mail.during(question)
                row |= {f"{name}_s": round(seconds, 3), f"{name}_accept_p99_ms": round(p99, 1)}
                row[f"{name}_delivery"] = round(rate / before, 3)
                row[f"{name}_found"] = answer if isinstance(answer, int) else None
            nursery.cancel_scope.cancel()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deep", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=300.0)
    parser.add_argument("--size", type=int, default=2048)
    measured("search", parser, run)


if __name__ == "__main__":
    main()
