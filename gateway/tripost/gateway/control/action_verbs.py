"""what an operator may do to queued mail and to where it goes

Each verb is an async generator of rows and an End, as in queue_verbs.

Promise  what a verb does is one durable record with who asked for it, and one
         `steered` event. `dry_run` changes nothing.
Fails    `Refused` for what cannot be meant, or where nothing fits.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec

from tripost.delivery.dispatcher import Dispatcher
from tripost.delivery.settings import Rate
from tripost.delivery.site import Said
from tripost.gateway import units
from tripost.gateway.control.arguments import as_, plain
from tripost.gateway.control.frames import Answer, End, Row
from tripost.gateway.control.server import Refused, Verb
from tripost.queue import actions
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.edit import Done
from tripost.queue.errors import SpoolFull
from tripost.queue.events import Steered
from tripost.queue.finding import Wanted
from tripost.queue.manager import Queue
from tripost.queue.planning import Order, TooMany, Way

VERBS = ("hold", "release", "retry", "reroute", "priority", "bounce", "delete", "expire")
DESTINATION = "destination"


class Change(Wanted, frozen=True, kw_only=True):
    """`to`: the new next hop or priority. `now`: without the time in which it can be undone."""

    to: str = ""
    reason: str = ""
    dry_run: bool = False
    now: bool = False


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`kind`: destination (`what` is a next hop), or as tripost.queue.pausing has it."""

    kind: str = DESTINATION
    what: str
    seconds: float = 0.0  # 0: until it is resumed
    reason: str = ""


class Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`site`: or one of its next hops. Rates as in the configuration, "none" for none. Nothing: as configured."""

    site: str
    connections: int | None = None
    rate: str = ""
    connection_rate: str = ""


class Taking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    action: str = ""  # "": the newest of who asks
    reason: str = ""


class ActionVerbs:
    """`way(to)` gives each recipient's next hop, or raises ValueError; `grace()` in seconds."""

    def __init__(
        self,
        queue: Queue,
        bus: Bus,
        clock: Clock,
        *,
        way: Callable[[str], Way],
        sites: Dispatcher,
        grace: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._bus = bus
        self._clock = clock
        self._way = way
        self._sites = sites
        self._grace = grace

    @property
    def verbs(self) -> dict[str, Verb]:
        changes: dict[str, Verb] = {f"queue.{verb}": self._changing(verb) for verb in VERBS}
        return changes | {
            "queue.undo": self._undo,
            "queue.audit": self._audit,
            "queue.suspend": self._suspend,
            "queue.resume": self._resume,
            "queue.suspensions": self._suspensions,
            "queue.limit": self._limit,
            "queue.limits": self._limits,
        }

    # --- messages ---

    def _changing(self, verb: str) -> Verb:
        async def change(arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
            wanted = as_(Change, arguments)
            conditions = plain(wanted)
            if conditions.anything:
                raise Refused("say which messages: a condition like --sender or --id, or --id '*' for all", 2)
            order = self._order(verb, wanted, who)
            try:
                done = await (self._queue.edit.count if wanted.dry_run else self._queue.edit.act)(order, conditions)
            except (ValueError, TooMany) as wrong:
                raise Refused(str(wrong), 2) from wrong
            if not done.fit:
                raise Refused("no queued message fits")
            if verb == actions.RETRY and not wanted.dry_run:
                done = self._probe(done)
            if not wanted.dry_run and (done.id or done.messages):
                self._steered(verb, who, order.filter, done.messages, done.id)
            yield End(_summed(done, dry_run=wanted.dry_run))

        return change

    def _order(self, verb: str, wanted: Change, who: str) -> Order:
        way: Way | None = None
        if verb == actions.REROUTE:
            try:
                way = self._way(wanted.to)
            except ValueError as wrong:
                raise Refused(f"--to: {wrong}", 2) from wrong
        if verb == actions.PRIORITY and wanted.to.lstrip("-+") not in tuple("0123456789"):
            raise Refused("a priority is a number from -9 to 9", 2)
        return Order(
            verb=verb,
            who=who,
            filter=msgspec.json.encode(plain(wanted)).decode(),
            reason=wanted.reason,
            to=str(int(wanted.to)) if verb == actions.PRIORITY else wanted.to,
            way=way,
            grace=0.0 if wanted.now else self._grace(),
        )

    def _probe(self, done: Done) -> Done:
        """Next hops that could not be spoken to are probed now, and those that rest go on."""
        probed = 0
        for next_hop in done.next_hops:
            probed += self._queue.probe(next_hop)
            self._sites.hurry(next_hop)
        return msgspec.structs.replace(done, messages=max(done.messages, min(probed, 1) * done.fit))

    async def _undo(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        taking = as_(Taking, arguments)
        try:
            done = await self._queue.edit.undo(who, taking.action, taking.reason)
        except ValueError as wrong:
            raise Refused(str(wrong)) from wrong
        undone = self._queue.edit.actions()[done.id].to if done.id else ""
        self._steered(actions.UNDO, who, undone, done.messages, done.id)
        yield End(_summed(done, dry_run=False) | {"undone": undone})

    async def _audit(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        found, now = self._queue.edit.actions(), self._clock.now()
        for id, one in found.items():
            row: dict[str, Any] = {"action": id} | msgspec.structs.asdict(one)
            row["can_be_undone"] = one.state in (actions.APPLIED, actions.PENDING) and now < one.until
            row["filter"] = {name: value for name, value in msgspec.json.decode(one.filter or "{}").items() if value}
            yield Row(row)
        yield End({"actions": len(found)})

    # --- where mail goes, and where it comes from ---

    async def _suspend(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        target = as_(Target, arguments)
        if target.seconds < 0:
            raise Refused("a duration is not negative", 2)
        until = self._clock.now() + target.seconds if target.seconds else 0.0
        try:
            if target.kind == DESTINATION:
                await self._queue.suspend(target.what, until, target.reason)
            else:
                await self._queue.pause(target.kind, target.what, until, target.reason)
        except SpoolFull as wrong:
            raise Refused(str(wrong)) from wrong
        except ValueError as wrong:
            raise Refused(str(wrong), 2) from wrong
        self._steered("suspend", who, _named(target), 1)
        yield End({"kind": target.kind, "what": target.what, "until": until})

    async def _resume(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        target = as_(Target, arguments)
        if target.kind == DESTINATION:
            found = await self._queue.resume(target.what)
        else:
            found = await self._queue.unpause((target.kind, target.what))
        if not found:
            raise Refused(f"{_named(target)} is not suspended; see tripost queue suspensions")
        self._steered("resume", who, _named(target), 1)
        yield End({"kind": target.kind, "what": target.what})

    async def _suspensions(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        rows = [(DESTINATION, hop, one.until, one.reason) for hop, one in self._queue.suspensions.items()]
        rows += [(kind, what, one.until, one.reason) for (kind, what), one in self._queue.pauses.known.items()]
        for kind, what, until, reason in sorted(rows):
            yield Row({"kind": kind, "what": what, "until": until, "reason": reason})
        yield End({"suspensions": len(rows)})

    async def _limit(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        limit = as_(Limit, arguments)
        try:
            said = Said(limit.connections, _rate(limit.rate), _rate(limit.connection_rate), who)
        except ValueError as wrong:
            raise Refused(str(wrong), 2) from wrong
        if limit.connections is not None and limit.connections < 1:
            raise Refused("at least one connection; to stop a site, suspend its next hops", 2)
        if not await self._sites.limit(limit.site, said):
            raise Refused(f"nothing is known of a site or next hop {limit.site}; see tripost queue summary")
        self._steered("limit", who, msgspec.json.encode(limit).decode(), 1)
        yield End({"site": limit.site, "as_configured": said.empty})

    async def _limits(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        found = self._sites.limits()
        for site, said in sorted(found.items()):
            yield Row(
                {"site": site, "connections": said.connections, "who": said.who}
                | {"rate": _rate_text(said.rate), "connection_rate": _rate_text(said.connection_rate)}
            )
        yield End({"limits": len(found)})

    def _steered(self, verb: str, who: str, what: str, changed: int, action: str = "") -> None:
        now = self._clock.now()
        self._bus.emit(Steered(time=now, who=who, action=verb, what=what, changed=changed, id=action))


def _rate(text: str) -> Rate | None:
    """Raises ValueError."""
    if not text or text == "none":
        return Rate() if text else None
    found = units.rate(text)
    return Rate(found.count, found.seconds)


def _rate_text(rate: Rate | None) -> str:
    if rate is None:
        return ""
    return f"{rate.count}/{rate.seconds:g}s" if rate.count else "none"


def _named(target: Target) -> str:
    return target.what if target.kind == DESTINATION else f"{target.kind} {target.what}"


def _summed(done: Done, *, dry_run: bool) -> dict[str, Any]:
    return {
        "action": done.id,
        "fit": done.fit,
        "changed": 0 if dry_run else done.messages,
        "recipients": done.recipients,
        "skipped": done.skipped,
        "until": done.until,
        "dry_run": dry_run,
    }
