"""queued mail, taken out as files and put in again

`queue.export` gives every wanted message as a row with its envelope, as far as
it is queued yet, and rows with its content; `queue.import` takes an envelope as
its arguments and the content as frames behind them, and answers when the
message is durable.

Promise  an imported message is a new one: it has an id of its own and goes where
         the configuration says today.
Fails    `Refused` for an envelope or a recipient that cannot be taken.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec.structs import replace

from tripost.delivery.routing import Refusal, Router
from tripost.gateway.control.arguments import as_, plain
from tripost.gateway.control.frames import Answer, End, Row
from tripost.gateway.control.queue_verbs import CHUNK, Filter
from tripost.gateway.control.server import Refused, Upload, Verb
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolError
from tripost.queue.events import Steered
from tripost.queue.manager import Queue
from tripost.queue.message import Envelope, Recipient
from tripost.queue.search import Match

_builtins = msgspec.to_builtins


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """See Recipient."""

    address: str
    notify: int = 0
    orcpt: str = ""
    via: str = ""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """An exported envelope; see Envelope. Where it was queued (`id`, next hops) is for people."""

    sender: str
    recipients: list[Person]
    accepted: float
    expires: float
    id: str = ""
    size: int = 0
    eight_bit: bool = False
    client: str = ""
    account: str = ""
    priority: int = 0
    release: float = 0.0
    binary: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    require_tls: bool = False
    deliver_by: float = 0.0
    by_mode: str = ""


class TransferVerbs:
    """`expire`: seconds that an imported message has at least."""

    def __init__(self, queue: Queue, bus: Bus, clock: Clock, router: Router, expire: Callable[[], float]) -> None:
        self._queue = queue
        self._bus = bus
        self._clock = clock
        self._router = router
        self._expire = expire

    @property
    def verbs(self) -> dict[str, Verb | Upload]:
        return {"queue.export": self._export, "queue.import": Upload(self._import)}

    async def _export(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        wanted = as_(Filter, arguments)
        count = 0
        async with aclosing(self._queue.search.matches(plain(wanted))) as found:
            async for match in found:
                if count == wanted.limit > 0:
                    break
                try:
                    reader = self._queue.search.reader(match)
                except SpoolError as wrong:
                    raise Refused(str(wrong)) from wrong
                count += 1
                try:
                    yield Row({"envelope": letter(match)})
                    while data := await reader.read(CHUNK):
                        yield Row({"data": data})
                except SpoolError as wrong:
                    raise Refused(str(wrong)) from wrong
                finally:
                    reader.close()
        yield End({"messages": count})

    async def _import(
        self, arguments: dict[str, object], who: str, content: AsyncIterator[bytes]
    ) -> AsyncGenerator[Answer, None]:
        envelope = self._envelope(as_(Letter, arguments))
        body = self._queue.new_body()
        try:
            async for data in content:
                await body.write(data)
            envelope = replace(envelope, size=body.size)
            await self._queue.accept(envelope, body)
        except SpoolError as wrong:
            raise Refused(f"not stored: {wrong}") from wrong
        except BaseException:
            await body.discard()
            raise
        self._bus.emit(Steered(time=self._clock.now(), who=who, action="import", what=envelope.id, changed=1))
        yield End({"id": envelope.id})

    def _envelope(self, one: Letter) -> Envelope:
        """Raises Refused."""
        people: list[Recipient] = []
        for person in one.recipients:
            route = self._router.decide(person.address, True, one.sender)
            if isinstance(route, Refusal):
                raise Refused(f"{person.address}: {route.code} {route.enhanced} {route.text}")
            for each in route.all:
                via = each.via or person.via
                people.append(Recipient(len(people), each.address, each.next_hop, person.notify, person.orcpt, via))
        if not people:
            raise Refused("a message without recipients", 2)
        given = {name: getattr(one, name) for name in Letter.__struct_fields__ if name not in ("id", "recipients")}
        given["expires"] = max(one.expires, self._clock.now() + self._expire())
        return Envelope(id=self._queue.new_id(), recipients=tuple(people), **given)


def letter(match: Match) -> dict[str, Any]:
    """As Letter has it."""
    row: dict[str, Any] = _builtins(msgspec.structs.asdict(match.message.envelope))
    row["recipients"] = [msgspec.structs.asdict(one) for _, chosen in match.deliveries for one in chosen]
    return row
