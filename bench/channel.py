"""the channel between processes: CPU per message of both ends together; one JSON line per run

    deploy/uv run python bench/channel.py

`told`: one way, so many given in each pass of the loop. `asked`: so many questions under way at a time, each
answered by the other process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

import msgspec
import trio

from tripost.queue.channel import Channel, inherited, pair


class Told(msgspec.Struct, frozen=True, tag="told", array_like=True):
    """As large as an order to deliver one message."""

    connection: int
    path: str
    offset: int
    recipients: tuple[int, ...] = ()


class Asked(msgspec.Struct, frozen=True, tag="asked", array_like=True):
    cpu: float = 0.0


Kinds = Told | Asked
ONE = Told(17, "/var/lib/tripost/spool/log/0000000042.seg", 33_554_432, (0,))


async def child(descriptor: int) -> None:
    def receive(number: int, message: Kinds) -> None:
        if isinstance(message, Asked):
            channel.reply(number, Asked(time.process_time()))
        elif number:
            channel.reply(number, message)

    channel: Channel[Kinds, Kinds] = Channel(inherited(descriptor), Kinds, receive)
    await channel.run()


async def measure(channel: Channel[Kinds, Kinds], count: int, at_once: int, *, asked: bool) -> dict[str, float]:
    answer = await channel.ask(Asked())
    assert isinstance(answer, Asked)
    theirs, ours, start = answer.cpu, time.process_time(), time.perf_counter()
    if asked:

        async def ask() -> None:
            for _ in range(count // at_once):
                await channel.ask(ONE)

        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(ask)
    else:
        for _ in range(count // at_once):
            for _ in range(at_once):
                await channel.send(ONE)
            await trio.lowlevel.checkpoint()
    answer = await channel.ask(Asked())
    assert isinstance(answer, Asked)
    ours, theirs = time.process_time() - ours, answer.cpu - theirs
    return {
        "ours_us": round(ours / count * 1e6, 2),
        "theirs_us": round(theirs / count * 1e6, 2),
        "per_second": round(count / (time.perf_counter() - start)),
    }


async def main(count: int) -> None:
    ours, theirs = pair()
    command = [sys.executable, __file__, "--child", str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:  # noqa: ASYNC220 - a bench
        theirs.close()
        channel: Channel[Kinds, Kinds] = Channel(ours, Kinds, lambda number, message: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run)
            rows = {}
            for asked in (False, True):
                for at_once in (1, 4, 20, 100):
                    name = f"{'asked' if asked else 'told'} {at_once}"
                    rows[name] = await measure(channel, count, at_once, asked=asked)
            nursery.cancel_scope.cancel()
        process.wait()
    print(json.dumps({"bench": "channel", "cores": os.cpu_count(), **rows}))


if __name__ == "__main__":
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    top.add_argument("--messages", type=int, default=50_000)
    top.add_argument("--child", type=int, default=-1, help=argparse.SUPPRESS)
    given = top.parse_args()
    if given.child >= 0:
        trio.run(child, given.child)
    else:
        trio.run(main, given.messages)
