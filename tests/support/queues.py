"""queues on a fake disk"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from support.fake_files import FakeFiles, run_here
from tripost.queue import scanning
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Event
from tripost.queue.index import TRAILER, index_offset
from tripost.queue.manager import Queue
from tripost.queue.message import Envelope, News, Recipient
from tripost.queue.opening import open_queue
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


def letter(id: str, *hops: str, sender: str = "fred@truc.fr", accepted: float = 0.0, size: int = 0) -> Envelope:
    """Recipient n goes to hops[n]."""
    recipients = tuple(Recipient(n, f"u{n}@x.example", hop) for n, hop in enumerate(hops))
    return Envelope(id, sender, recipients, accepted, accepted + EXPIRE, size)


async def put(queue: Queue, id: str, *hops: str, content: bytes = b"Subject: x\r\n\r\nhi\r\n", **more: Any) -> Envelope:
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
