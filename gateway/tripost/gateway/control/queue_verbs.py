"""what the queue commands ask of a running gateway

Each verb is an async generator of rows and an End. Times are wall-clock seconds,
ages and durations seconds.

Fails    `Refused` for what cannot be meant, or where nothing fits.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from tripost.gateway.control.explain import Binding, explained
from tripost.gateway.control.frames import Answer, End, Row
from tripost.gateway.control.server import Refused, Verb
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolFull
from tripost.queue.events import Bus, Steered
from tripost.queue.finding import Wanted
from tripost.queue.manager import Queue
from tripost.queue.search import AGES, Message

LIST_LIMIT = 100
EXPLAIN_LIMIT = 20
_builtins = msgspec.to_builtins


class Filter(Wanted, frozen=True, kw_only=True):
    """`limit` 0: as many as there are."""

    limit: int = LIST_LIMIT
    dry_run: bool = False


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    next_hop: str
    seconds: float = 0.0  # 0: until it is resumed
    reason: str = ""


class Topic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    about: str


class QueueVerbs:
    """`binding(next_hop)` tells what keeps mail from being sent there now, `hurry(next_hop)` ends a rest; `describe`
    gives what else `status` has to say."""

    def __init__(
        self,
        queue: Queue,
        bus: Bus,
        clock: Clock,
        binding: Callable[[str], Binding | None],
        hurry: Callable[[str], None],
        describe: Callable[[], dict[str, Any]],
    ) -> None:
        self._queue = queue
        self._bus = bus
        self._clock = clock
        self._binding = binding
        self._hurry = hurry
        self._describe = describe

    @property
    def verbs(self) -> dict[str, Verb]:
        return {
            "status": self._status,
            "queue.summary": self._summary,
            "queue.list": self._list,
            "queue.count": self._count,
            "queue.hold": self._hold,
            "queue.release": self._release,
            "queue.retry": self._retry,
            "queue.suspend": self._suspend,
            "queue.resume": self._resume,
            "queue.suspensions": self._suspensions,
            "queue.explain": self._explain,
        }

    async def _status(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        yield End(self._describe() | {"accepting": self._queue.accepting, "queue": _builtins(self._queue.statistics())})

    # --- looking ---

    async def _summary(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        limit = _as(Filter, arguments).limit
        hops = await self._queue.search.summary()
        for hop in hops[: limit or None]:
            yield Row(_builtins(hop))
        figures = self._queue.statistics()
        yield End(
            {"messages": figures.messages, "queued": figures.queued, "next_hops": len(hops), "ages": list(AGES)}
        )

    async def _list(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        wanted = _as(Filter, arguments)
        count, more = 0, False
        async with aclosing(self._queue.search.find(_plain(wanted))) as found:
            async for message in found:
                if count == wanted.limit > 0:
                    more = True
                    break
                count += 1
                yield Row(_shown(message))
        yield End({"messages": count, "more": more})

    async def _count(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        messages = deliveries = octets = 0
        async with aclosing(self._queue.search.find(_plain(_as(Filter, arguments)))) as found:
            async for message in found:
                messages, octets = messages + 1, octets + message.size
                deliveries += len(message.deliveries)
        yield End({"messages": messages, "recipients": deliveries, "octets": octets})

    async def _explain(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        about = _as(Topic, arguments).about
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
                    yield Row(_builtins(why))
        if not count:
            raise Refused(f"nothing is queued that fits {about!r}: it was never here, or it is done")
        yield End({"messages": count, "more": more})

    # --- steering ---

    async def _places(self, arguments: dict[str, object]) -> tuple[Filter, list[int]]:
        wanted = _as(Filter, arguments)
        if _plain(wanted).anything:
            raise Refused("say which messages: a condition like --sender or --id, or --id '*' for all", 2)
        async with aclosing(self._queue.search.find(_plain(wanted))) as found:
            places = [message.place async for message in found]
        if not places:
            raise Refused("no queued message fits")
        return wanted, places

    async def _change(
        self, verb: str, arguments: dict[str, object], who: str, change: Callable[[list[int]], Any]
    ) -> dict[str, Any]:
        wanted, places = await self._places(arguments)
        if wanted.dry_run:
            return {"fit": len(places), "changed": 0, "dry_run": True}
        changed = await change(places)
        text = msgspec.json.encode(_plain(wanted)).decode()
        self._bus.emit(Steered(time=self._clock.now(), who=who, action=verb, what=text, changed=changed))
        return {"fit": len(places), "changed": changed, "dry_run": False}

    async def _hold(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        yield End(await self._change("hold", arguments, who, lambda places: self._queue.edit.hold(places, True)))

    async def _release(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        yield End(await self._change("release", arguments, who, lambda places: self._queue.edit.hold(places, False)))

    async def _retry(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        """Deferred messages are due now; next hops that could not be spoken to are probed now."""

        async def change(places: list[int]) -> int:
            changed = await self._queue.edit.retry(places)
            for next_hop in await self._queue.edit.next_hops(places):
                changed += self._queue.probe(next_hop)
                self._hurry(next_hop)
            return changed

        yield End(await self._change("retry", arguments, who, change))

    async def _suspend(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        target = _as(Target, arguments)
        if target.seconds < 0:
            raise Refused("a duration is not negative", 2)
        until = self._clock.now() + target.seconds if target.seconds else 0.0
        try:
            await self._queue.suspend(target.next_hop, until, target.reason)
        except SpoolFull as wrong:
            raise Refused(str(wrong)) from wrong
        self._steered("suspend", who, target)
        yield End({"next_hop": target.next_hop, "until": until})

    async def _resume(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        target = _as(Target, arguments)
        if not await self._queue.resume(target.next_hop):
            raise Refused(f"{target.next_hop} is not suspended; see tripost queue suspensions")
        self._steered("resume", who, target)
        yield End({"next_hop": target.next_hop})

    def _steered(self, verb: str, who: str, target: Target) -> None:
        self._bus.emit(Steered(time=self._clock.now(), who=who, action=verb, what=target.next_hop, changed=1))

    async def _suspensions(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        count = 0
        for next_hop, one in sorted(self._queue.suspensions.items()):
            count += 1
            yield Row({"next_hop": next_hop, "until": one.until, "reason": one.reason})
        yield End({"suspensions": count})


T = TypeVar("T")


def _as(kind: type[T], arguments: dict[str, object]) -> T:
    try:
        made = msgspec.convert(arguments, kind)
    except msgspec.ValidationError as wrong:
        raise Refused(f"not understood: {wrong}", 2) from wrong
    if isinstance(made, Wanted):
        try:
            made.check()
        except ValueError as wrong:
            raise Refused(str(wrong), 2) from wrong
    return made


def _plain(wanted: Filter) -> Wanted:
    """Without what is not a condition."""
    return Wanted(**{name: getattr(wanted, name) for name in Wanted.__struct_fields__})


def _about(text: str) -> Wanted:
    """A message's id, an address (of sender or recipient), or @domain."""
    if text.startswith("@"):
        return Wanted(domain=text[1:])
    return Wanted(address=text) if "@" in text else Wanted(id=text)


def _shown(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = _builtins(message)
    del row["place"]
    return row
