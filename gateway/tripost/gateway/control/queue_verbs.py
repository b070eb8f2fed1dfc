"""what the queue commands ask of a running gateway

Each verb is an async generator of rows and an End. Times are wall-clock seconds,
ages and durations seconds.

Fails    `Refused` for what cannot be meant, or where nothing fits.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from tripost.gateway.control.arguments import as_, plain
from tripost.gateway.control.explain import Binding, Why, explained
from tripost.gateway.control.frames import Answer, End, Row
from tripost.gateway.control.server import Refused, Verb
from tripost.queue.clock import Clock
from tripost.queue.depths import AGES
from tripost.queue.errors import SpoolError
from tripost.queue.finding import Wanted
from tripost.queue.manager import Queue
from tripost.queue.message import Envelope
from tripost.queue.search import Message

LIST_LIMIT = 100
EXPLAIN_LIMIT = 20
CHUNK = 256 << 10  # octets of content in a row
HEADER = 64 << 10  # octets of a header that are shown
_builtins = msgspec.to_builtins


class Filter(Wanted, frozen=True, kw_only=True):
    """`limit` 0: as many as there are."""

    limit: int = LIST_LIMIT


class Shown(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    content: bool = False


class Topic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    about: str


class QueueVerbs:
    """`binding(next_hop)` tells what keeps mail from being sent there now, `site(next_hop)` which site it is, "" where
    nobody has asked yet; `describe` gives what else `status` has to say; `ended(about)` what became of what is queued
    no more."""

    def __init__(
        self,
        queue: Queue,
        clock: Clock,
        binding: Callable[[str], Binding | None],
        site: Callable[[str], str],
        describe: Callable[[], dict[str, Any]],
        ended: Callable[[str], AsyncGenerator[Why, None]],
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._binding = binding
        self._site = site
        self._describe = describe
        self._ended = ended

    @property
    def verbs(self) -> dict[str, Verb]:
        return {
            "status": self._status,
            "queue.summary": self._summary,
            "queue.list": self._list,
            "queue.count": self._count,
            "queue.explain": self._explain,
            "queue.show": self._show,
        }

    async def _status(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        yield End(self._describe() | {"accepting": self._queue.accepting, "queue": _builtins(self._queue.statistics())})

    # --- looking ---

    async def _summary(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        wanted = as_(Filter, arguments)
        limit = wanted.limit
        hops = await self._queue.search.summary()
        if wanted.next_hop or wanted.site:
            hops = [one for one in hops if wanted.fits_hop(one.next_hop, self._site(one.next_hop))]
        for hop in hops[: limit or None]:
            yield Row(_builtins(hop) | {"site": self._site(hop.next_hop)})
        figures = self._queue.statistics()
        yield End({"messages": figures.messages, "queued": figures.queued, "next_hops": len(hops), "ages": list(AGES)})

    async def _list(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        wanted = as_(Filter, arguments)
        count, more = 0, False
        async with aclosing(self._queue.search.find(plain(wanted))) as found:
            async for message in found:
                if count == wanted.limit > 0:
                    more = True
                    break
                count += 1
                yield Row(_shown(message))
        yield End({"messages": count, "more": more})

    async def _count(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        messages = deliveries = octets = 0
        async with aclosing(self._queue.search.find(plain(as_(Filter, arguments)))) as found:
            async for message in found:
                messages, octets = messages + 1, octets + message.size
                deliveries += len(message.deliveries)
        yield End({"messages": messages, "recipients": deliveries, "octets": octets})

    async def _show(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        shown = as_(Shown, arguments)
        async with aclosing(self._queue.search.matches(Wanted(id=shown.id))) as found:
            match = await anext(found, None)
        if match is None:
            raise Refused(f"no message {shown.id} is queued")
        yield Row(envelope_row(match.message.envelope, self._queue.search.shown(match)))
        try:
            if shown.content:
                reader = self._queue.search.reader(match)
                try:
                    while data := await reader.read(CHUNK):
                        yield Row({"data": data})
                finally:
                    reader.close()
            else:
                yield Row({"data": await self._queue.search.header(match, HEADER)})
        except SpoolError as wrong:
            raise Refused(str(wrong)) from wrong
        yield End({})

    async def _explain(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        about = as_(Topic, arguments).about
        count, more = 0, False
        wanted = _about(about)
        async with aclosing(self._queue.search.find(wanted)) as found:
            async for message in found:
                if count == EXPLAIN_LIMIT:
                    more = True
                    break
                count += 1
                for delivery in message.deliveries:
                    why = explained(message, delivery, self._queue, self._binding, self._clock.now())
                    yield Row(_builtins(why) | {"site": self._site(delivery.next_hop)})
        if not count:
            async with aclosing(self._ended(about)) as past:
                async for why in past:
                    count += 1
                    yield Row(_builtins(why) | {"site": self._site(why.next_hop)})
        if not count:
            raise Refused(f"nothing is queued that fits {about!r}: it was never here, or it is done")
        yield End({"messages": count, "more": more})


def _about(text: str) -> Wanted:
    """A message's id, an address (of sender or recipient), or @domain."""
    if text.startswith("@"):
        return Wanted(domain=text[1:])
    return Wanted(address=text) if "@" in text else Wanted(id=text)


def _shown(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = _builtins(message)
    del row["place"]
    return row


def envelope_row(envelope: Envelope, message: Message) -> dict[str, Any]:
    """All that is known of a message but its content."""
    row: dict[str, Any] = _builtins(msgspec.structs.asdict(envelope)) | {"priority": message.priority}
    row["recipients"] = [_builtins(one) | {"address": one.recipient} for one in message.deliveries]
    for one in row["recipients"]:
        del one["recipient"]
    return row
