"""looking into a deep queue while mail comes in; one JSON line

    deploy/uv run python bench/search.py [--deep 1000000] [--folder DIR]

Fills a queue, then, while one client accepts a message every 5 ms: the summary, a search by recipient for the one
message that was queued last, one for none, and a count of all. Told are seconds, and the p99 of the accepts meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from queues import Fill, a_queue, accept_one, letter_body, measured

from tripost.queue.finding import Wanted
from tripost.queue.manager import Queue

EVERY = 0.005


class Accepting:
    """Milliseconds of each accept."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.times: list[float] = []

    async def run(self) -> None:
        content = letter_body(2048)
        while True:
            start = time.perf_counter()
            await accept_one(self._queue, content, "meanwhile.example")
            self.times.append((time.perf_counter() - start) * 1e3)
            await trio.sleep(EVERY)

    def p99(self) -> float:
        times, self.times = self.times, []
        return round(statistics.quantiles(times, n=100)[98], 1) if len(times) > 2 else 0.0


async def count(queue: Queue, wanted: Wanted) -> int:
    found = 0
    async for _ in queue.search.find(wanted):
        found += 1
    return found


async def run(options: argparse.Namespace, folder: str) -> dict[str, object]:
    row: dict[str, object] = {}
    async with a_queue(folder) as queue:
        domains = [f"d{n}.example" for n in range(1000)]
        await Fill(queue, options.deep, domains, options.size).run()
        await accept_one(queue, letter_body(options.size), "last.example", 77)
        accepting = Accepting(queue)
        questions: dict[str, Callable[[], Awaitable[object]]] = {
            "nothing": partial(trio.sleep, 2),
            "summary": queue.search.summary,
            "last": partial(count, queue, Wanted(recipient="u77@last.example")),
            "none": partial(count, queue, Wanted(recipient="nobody@nowhere.example")),
            "sender": partial(count, queue, Wanted(sender="s@x.example")),
        }
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accepting.run)
            for name, question in questions.items():
                await trio.sleep(0.2)
                accepting.p99()
                start = time.perf_counter()
                found = await question()
                row[f"{name}_s"] = round(time.perf_counter() - start, 3)
                row[f"{name}_accept_p99_ms"] = accepting.p99()
                row[f"{name}_found"] = found if isinstance(found, int) else None
            nursery.cancel_scope.cancel()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deep", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=2048)
    measured("search", parser, run)


if __name__ == "__main__":
    main()
