"""queues on a fake disk"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio

from support.fake_files import FakeFiles, run_here
from tripost.queue import scanning
from tripost.queue.board import Board, size
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Event
from tripost.queue.index import TRAILER, index_offset
from tripost.queue.inlet import Inlet, open_inlet
from tripost.queue.manager import Queue
from tripost.queue.message import Envelope, News, Recipient
from tripost.queue.opening import open_queue
from tripost.queue.records import Stamp
from tripost.queue.values import QueueSettings

SMALL = QueueSettings(min_free=0, inline=64, segment_size=2048)
EXPIRE = 432_000.0
scanning.PAUSE = 0.0  # where the clock is virtual, looking takes no time


def reporter(envelope: Envelope, news: list[News], header: bytes) -> tuple[Envelope, bytes] | None:
    """A report as small as can be; its id follows from the message's."""
    if not envelope.sender:
        return None
    action = news[0].action
    content = f"{action}: ".encode() + ",".join(one.recipient.address for one in news).encode() + b"\r\n" + header
    one = Recipient(0, envelope.sender, "local")
    number = "-".join(str(one.recipient.id) for one in news)
    return Envelope(
        f"R{envelope.id}-{number}", "", (one,), envelope.accepted, envelope.accepted + EXPIRE, len(content)
    ), content


@asynccontextmanager
async def queue_on(
    files: FakeFiles, settings: QueueSettings = SMALL, seen: list[Event] | None = None, **more: Any
) -> AsyncGenerator[Queue, None]:
    bus = more.pop("bus", None) or Bus()
    if seen is not None:
        bus.add_sink(seen.append)
    clock = more.pop("clock", None) or Clock(lambda: 1_800_000_000.0)
    more.setdefault("reporter", reporter)
    more.setdefault("random", lambda: 0.5)
    async with open_queue("spool", settings, clock=clock, bus=bus, files=files, run_sync=run_here, **more) as queue:
        yield queue


class Bell:
    """What ingress processes ring when they have written."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self) -> None:
        await self._rung.wait()
        self._rung = trio.Event()


def new_board(writers: int = 3) -> Board:
    return Board(memoryview(bytearray(size(writers))), writers)


@asynccontextmanager
async def inlet_on(
    files: FakeFiles, board: Board, writer: int = 1, settings: QueueSettings = SMALL, **more: Any
) -> AsyncGenerator[Inlet, None]:
    """What an ingress process has of the spool; `run`: its own, 1000 + its number where none is given."""
    run = more.pop("run", 1000 + writer)
    files.make_folder("spool/log")
    files.make_folder("spool/bodies")
    board.enter(writer, run)
    more.setdefault("ring", lambda: None)
    more.setdefault("bus", Bus())
    clock = more.pop("clock", None) or Clock(lambda: 1_800_000_000.0)
    stamp = Stamp(writer, run)
    async with open_inlet(
        "spool", settings, stamp=stamp, board=board, clock=clock, files=files, run_sync=run_here, **more
    ) as inlet:
        yield inlet


async def taken_in(inlet: Inlet) -> None:
    """Until the manager has all."""
    while inlet.ahead:  # noqa: ASYNC110  (nothing tells an ingress process that)
        await trio.sleep(0.01)


def kill(inlet: Inlet, board: Board) -> None:
    """As kill -9, and its death is known: what it has not synced may be there or not."""
    inlet._writer._handle = None  # nothing is closed in order
    board.enter(inlet._me, 0)


def letter(id: str, *hops: str, sender: str = "fred@truc.fr", accepted: float = 0.0, size: int = 0) -> Envelope:
    """Recipient n goes to hops[n]."""
    recipients = tuple(Recipient(n, f"u{n}@x.example", hop) for n, hop in enumerate(hops))
    return Envelope(id, sender, recipients, accepted, accepted + EXPIRE, size)


async def put(
    queue: Queue | Inlet, id: str, *hops: str, content: bytes = b"Subject: x\r\n\r\nhi\r\n", **more: Any
) -> Envelope:
    body = queue.new_body()
    await body.write(content)
    more.setdefault("accepted", 1_800_000_000.0)
    envelope = letter(id, *hops, size=len(content), **more)
    await queue.accept(envelope, body)
    return envelope


def unseal(files: FakeFiles) -> None:
    """Cut the index off every segment, as when the gateway was killed before it was written."""
    for name in files.names("spool/log"):
        content = files.content(f"spool/log/{name}")
        offset = index_offset(bytes(content[-TRAILER.size :]))
        if offset is not None:
            del content[offset:]
