"""does depth cost anything? One JSON line

    deploy/uv run python bench/depth.py [--deep 1000000] [--pairs 7] [--folder DIR]

Queues of different shapes are open at the same time, in one process, on the same disk, and take turns: each accepts
`probe` messages and then claims and settles as many. Told are the medians and, pair by pair, each shape's rate over
that of the shallow queue.

    shallow  1,000 messages to one destination
    deep     `deep` messages to one destination
    wide     the same number, ten to each destination
    dead     half of them to a destination that is down; the probe goes to another one
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from contextlib import AsyncExitStack

from queues import Fill, Work, a_queue, measured, resident

from tripost.queue.manager import Queue
from tripost.queue.message import Deferred

DOWN = Deferred(451, "4.4.1", "no answer", destination=True)
SMALL = 256  # octets of what only fills


class Shape:
    """One open queue and how it is asked."""

    def __init__(self, name: str, queue: Queue, domains: list[str], claim: str) -> None:
        self.name = name
        self.queue = queue
        self.domains = domains
        self.claim = claim
        self.accepts: list[float] = []
        self.settles: list[float] = []
        self.memory = 0

    async def fill(self, count: int, domains: list[str]) -> None:
        print(f"{self.name}: filling with {count}", file=sys.stderr)
        before = resident()
        await Fill(self.queue, count, domains, SMALL).run()
        self.memory = resident() - before

    async def probe(self, count: int) -> None:
        self.accepts.append(count / await Fill(self.queue, count, self.domains).run())
        work = Work(self.queue, count, self.claim)
        seconds = await work.run()
        assert work.settled == count, f"{self.name}: {work.settled}"
        self.settles.append(count / seconds)


async def _shapes(stack: AsyncExitStack, options: argparse.Namespace, folder: str) -> list[Shape]:
    many = [f"d{n}.example" for n in range(options.deep // 10)]
    plan = {
        "shallow": (1000, ["one.example"], ["one.example"], "one.example"),
        "deep": (options.deep, ["one.example"], ["one.example"], "one.example"),
        "wide": (options.deep, many, many, ""),
        "dead": (options.deep // 2, ["dead.example"], ["one.example"], "one.example"),
    }
    shapes: list[Shape] = []
    for name, (count, filled, probed, claimed) in plan.items():
        queue = await stack.enter_async_context(a_queue(os.path.join(folder, name)))
        shape = Shape(name, queue, probed, claimed)
        await shape.fill(count, filled)
        shapes.append(shape)
    dead = shapes[-1].queue
    (lease,) = await dead.claim("mx:dead.example", 1)
    await dead.settle(lease, {0: DOWN})
    return shapes


async def run(options: argparse.Namespace, folder: str) -> dict[str, object]:
    row: dict[str, object] = {}
    async with AsyncExitStack() as stack:
        shapes = await _shapes(stack, options, folder)
        shallow = shapes[0]
        for n in range(options.pairs + 1):
            for shape in shapes[n % 4 :] + shapes[: n % 4]:  # nobody always comes first
                await shape.probe(options.probe)
            print(f"round {n} of {options.pairs}", file=sys.stderr)
        for shape in shapes:
            row[f"{shape.name}_accepts_per_s"] = round(statistics.median(shape.accepts[1:]))
            row[f"{shape.name}_settles_per_s"] = round(statistics.median(shape.settles[1:]))
            for what in ("accepts", "settles"):
                pairs = list(zip(getattr(shape, what)[1:], getattr(shallow, what)[1:], strict=True))
                row[f"{shape.name}_{what}_over_shallow"] = round(statistics.median(a / b for a, b in pairs), 3)
            row[f"{shape.name}_bytes_per_message"] = round(shape.memory / (shape.queue.statistics().messages or 1), 1)
        deep, wide = shapes[1], shapes[2]
        row["wide_over_deep_accepts"] = _ratio(wide.accepts, deep.accepts)
        row["wide_over_deep_settles"] = _ratio(wide.settles, deep.settles)
        row["bytes_per_destination"] = round((wide.memory - deep.memory) / len(wide.domains))
    return row


def _ratio(ones: list[float], others: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(ones[1:], others[1:], strict=True)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deep", type=int, default=1_000_000)
    parser.add_argument("--probe", type=int, default=20_000)
    parser.add_argument("--pairs", type=int, default=7)
    measured("depth", parser, run)


if __name__ == "__main__":
    main()
