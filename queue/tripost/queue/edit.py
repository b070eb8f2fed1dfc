"""queued mail, changed by an operator

An action is decided (tripost.queue.planning), its targets are marked and taken out
of every chain, its one record is made durable, and then each target is changed.
All of it yields: a million targets stall nobody.

Promise  one record per action: a crash leaves all of it or nothing. What is being
         delivered is not torn away from its worker: a hold or an ending lets the
         attempt end and keeps what it leaves; what names only some recipients of
         a delivery, or another next hop, leaves one that is under way alone, and
         tells how many.
Fails    TooMany, ValueError for what cannot be done; SpoolUnsure when the queue
         stops before.
Why      marked first and changed last, because the record is written between:
         nothing may be claimed that a durable record says is held.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import aclosing

import msgspec
import trio

from tripost.queue import actions
from tripost.queue.actions import Action, Kept
from tripost.queue.clock import Clock
from tripost.queue.entries import ACTION
from tripost.queue.errors import SpoolError
from tripost.queue.finding import Wanted
from tripost.queue.ledger import Ledger
from tripost.queue.log import Log
from tripost.queue.planning import Order, Plan, Planner
from tripost.queue.rows import ASIDE, DOOMED, GONE, LEASED, MOVING, PAUSED
from tripost.queue.scanning import breathe, pieces
from tripost.queue.schedule import STEP
from tripost.queue.search import Search
from tripost.queue.store import Store

OPEN = 1000  # actions that can be undone yet…
OPEN_TARGETS = 10_000_000  # …and messages that they name, 8 octets each

# of a delivery of which only some recipients are meant: (row, those, the others, after)
_Part = tuple[int, tuple[int, ...], tuple[int, ...], str]


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """`id` "" where there was nothing to do; recipients `skipped` are being delivered now."""

    id: str = ""
    fit: int = 0  # messages that the conditions fit, whether there was something to do or not
    next_hops: frozenset[str] = frozenset()  # theirs
    messages: int = 0
    recipients: int = 0
    skipped: int = 0
    until: float = 0.0


class Edit:
    """Of one queue; `moving` is held by whoever changes messages that are not leased."""

    def __init__(
        self,
        moving: trio.Lock,
        ledger: Ledger,
        log: Log,
        store: Store,
        clock: Clock,
        search: Search,
        ring: Callable[[], None],
    ) -> None:
        self._moving = moving
        self._ledger = ledger
        self._rows = ledger.rows
        self._log = log
        self._store = store
        self._clock = clock
        self._search = search
        self._ring = ring
        self.news = trio.Event()  # something ends at a time that was not known

    # --- verbs ---

    async def count(self, order: Order, wanted: Wanted) -> Done:
        """What `act` would do."""
        order.check()
        plan = await self._plan(order, wanted)
        return _done(plan, messages=plan.messages, recipients=plan.recipients)

    async def act(self, order: Order, wanted: Wanted) -> Done:
        """Durable when it returns. Raises TooMany, ValueError."""
        order.check()
        async with self._moving:
            if len(self._ledger.actions) >= OPEN or sum(map(len, self._ledger.actions.values())) > OPEN_TARGETS:
                raise ValueError("too many actions can be undone yet: wait until their grace time is over")
            plan = await self._plan(order, wanted)
            if not plan.messages:
                return _done(plan)
            now = self._clock.now()
            kept = Kept(
                verb=order.verb,
                who=order.who,
                at=now,
                until=now + order.grace,
                filter=order.filter,
                reason=order.reason,
                to=order.to,
                messages=plan.messages,
                recipients=plan.recipients,
                state=actions.PENDING if plan.does == actions.DOOM else actions.APPLIED,
            )
            return await self._carry_out(kept, plan)

    async def undo(self, who: str, id: str = "", reason: str = "") -> Done:
        """Take back an action: the one named, or the newest of `who`. Raises ValueError."""
        async with self._moving:
            id = id or self._newest(who)
            old, now = self._ledger.actions.get(id), self._clock.now()
            known = self.actions().get(id)
            if known is None:
                raise ValueError(
                    f"no action {id} is remembered" if id else f"{who} has done nothing that can be undone"
                )
            if known.state == actions.UNDONE:
                raise ValueError(f"action {id} was undone by action {known.undone_by}")
            if old is None or known.state == actions.DONE or now >= known.until:
                raise ValueError(f"action {id} cannot be undone any more: its grace time is over")
            if old.does not in actions.REVERSE:
                raise ValueError(f"action {id} cannot be undone: what was tried was tried")
            groups = tuple(msgspec.structs.replace(one, before=one.after, after=one.before) for one in old.groups)
            plan = Plan.of(actions.REVERSE[old.does], groups)
            kept = msgspec.structs.replace(
                known, verb=actions.UNDO, who=who, at=now, until=now, to=id, reason=reason, state=actions.APPLIED
            )
            return await self._carry_out(kept, plan)

    def names(self, id: str, place: int) -> bool:
        """The action is one that can be undone, or has not ended yet, and means the message at `place`."""
        return id in self._ledger.actions and self._ledger.actions[id].names(place)

    def notes(self, prefix: str) -> dict[str, bytes]:
        """What else is kept over restarts: rest of the name → value."""
        return dict(self._ledger.notes.under(prefix))

    def actions(self) -> dict[str, Kept]:
        """The audit trail, oldest first."""
        found = {name: actions.decode_kept(value) for name, value in self._ledger.notes.under(actions.NOTE)}
        return dict(sorted(found.items(), key=lambda one: int(one[0])))

    def _newest(self, who: str) -> str:
        now = self._clock.now()
        open_ = [
            id
            for id, one in self.actions().items()
            if one.who == who and one.state in (actions.APPLIED, actions.PENDING) and now < one.until
        ]
        return open_[-1] if open_ else ""

    # --- how ---

    async def _plan(self, order: Order, wanted: Wanted) -> Plan:
        does = actions.DOES.get(order.verb, order.verb)
        planner = Planner(self._ledger, does, self._clock.now(), order.to, order.way)
        async with aclosing(self._search.matches(wanted)) as found:
            async for match in found:
                planner.take(match)
        return planner.plan

    async def _carry_out(self, kept: Kept, plan: Plan) -> Done:
        try:
            hops, later = await self._mark(plan)
            await self._take_out(hops, later=later)
            parts = await self._parts(plan)
            groups = plan.encoded()
            if not groups and kept.verb != actions.UNDO:  # an undo is told even where all that was meant is gone
                self._unmark()
                return _done(plan)
            id = actions.next_id(self._names())
            action = Action(id, kept, plan.does, groups)
            payload = actions.encode_action(action)
            await self._log.append(ACTION, payload, lambda at: self._ledger.act(action, at), essential=True)
            self.news.set()
            await self._change(plan, parts, kept.at)
            self._forget_old()
        except BaseException:
            self._unmark()
            raise
        return _done(plan, id, kept.messages, kept.recipients, kept.until)

    def _names(self) -> Iterator[str]:
        return (name for name, _ in self._ledger.notes.under(actions.NOTE))

    async def _mark(self, plan: Plan) -> tuple[set[int], bool]:
        """Whoever claims a target puts it aside from now on. Their next hops, and whether some are not due yet."""
        rows, places, now = self._rows, plan.all_places(), self._clock.now()
        hops, later, leased = set[int](), False, list[int]()
        for start, end in pieces(rows):
            for row, place in enumerate(rows.place[start:end], start):
                at = bisect_left(places, place)
                if at == len(places) or places[at] != place or rows.flags[row] & GONE:
                    continue
                if plan.does != actions.SPARE and rows.flags[row] & DOOMED:
                    continue
                rows.flags[row] |= MOVING
                if rows.flags[row] & LEASED:
                    leased.append(place)
                elif not rows.flags[row] & ASIDE:
                    hops.add(rows.hop[row])
                    later = later or rows.due[row] > now
            await breathe()
        if plan.does == actions.REROUTE:
            plan.skipped += len(leased)
            for place in leased:
                plan.drop(place)
        return hops, later

    async def _take_out(self, hops: set[int], *, later: bool) -> None:
        """What is marked stands aside, in no chain."""
        schedule = self._ledger.schedule
        for name in [schedule.name(hop) for hop in hops]:
            hop = schedule.find(name)
            chains = schedule.detach(hop) if hop is not None else []
            try:
                while chains:
                    schedule.sift(chains, STEP, self._put_aside)
                    await breathe()
            finally:
                while chains:
                    schedule.sift(chains, STEP, self._put_aside)
        looked = 0
        for slot in schedule.slots() if later else []:
            looked += schedule.part_slot(slot) + 1
            if looked > STEP:
                looked = 0
                await breathe()

    def _put_aside(self, row: int) -> bool:
        flags = self._rows.flags
        if not flags[row] & MOVING:
            return False
        flags[row] |= ASIDE
        return True

    async def _parts(self, plan: Plan) -> dict[int, list[_Part]]:
        """Place → what is meant of its deliveries. Those that are being delivered are taken out of the plan."""
        wanted = {place for one in plan.groups.values() for place in one.parts}
        found: dict[int, list[int]] = {}
        if wanted:
            for start, end in pieces(self._rows):
                for row, place in enumerate(self._rows.place[start:end], start):
                    if self._rows.flags[row] & MOVING and place in wanted:
                        found.setdefault(place, []).append(row)
                await breathe()
        parts: dict[int, list[_Part]] = {place: [] for place in found}  # so that none passes for a whole one
        for place, rows in found.items():
            try:
                envelope = (await self._store.read(place)).envelope
            except SpoolError:
                continue  # it cannot be read now, and so not be tried either
            for row in rows:
                self._part(plan, place, row, tuple([one.id for one in self._ledger.chosen(row, envelope)]), parts)
        for one in plan.groups.values():
            one.parts = {place: ids for place, ids in one.parts.items() if ids and place in found}
        return parts

    def _part(self, plan: Plan, place: int, row: int, have: tuple[int, ...], parts: dict[int, list[_Part]]) -> None:
        rest = have
        for (_, after), targets in plan.groups.items():
            ids = tuple([one for one in have if one in targets.parts.get(place, ())])
            if not ids:
                continue
            if self._rows.flags[row] & LEASED:
                targets.parts[place] = tuple([one for one in targets.parts[place] if one not in ids])
                plan.skipped += len(ids)
                continue
            rest = tuple([one for one in rest if one not in ids])
            parts[place].append((row, ids, rest, after))

    async def _change(self, plan: Plan, parts: dict[int, list[_Part]], at: float) -> None:
        """Do it to what is marked, again until none is left: a delivery that ended meanwhile may have left two."""
        rows = self._rows
        afters = {after for _, after in plan.groups}
        after = next(iter(afters)) if len(afters) == 1 else ""
        by_place: dict[int, str] = {}
        if len(afters) > 1:
            by_place = {place: to for (_, to), one in plan.groups.items() for place in one.places}
        for place in list(parts):
            for part in parts[place]:
                self._change_part(plan.does, part, at)
        left = True
        while left:
            left = False
            for start, end in pieces(rows):
                now = self._clock.now()
                for row, flags in enumerate(rows.flags[start:end], start):
                    if flags & MOVING and not flags & GONE:
                        left = True
                        self._change_row(row, plan, by_place.get(rows.place[row], after), parts, at, now)
                self._ring()
                await breathe()

    def _change_row(
        self, row: int, plan: Plan, after: str, parts: dict[int, list[_Part]], at: float, now: float
    ) -> None:
        place, flags = self._rows.place[row], self._rows.flags[row]
        if place not in parts and (plan.does not in (actions.RETRY, actions.REROUTE) or not flags & LEASED):
            self._ledger.change(row, plan.does, after, at)
        self._ledger.changed(row, now)

    def _change_part(self, does: str, part: _Part, at: float) -> None:
        row, ids, rest, after = part
        one = row
        if rest:
            one = self._ledger.split(row, ids, rest)
        elif does == actions.REROUTE:
            self._rows.subset[row] = ids
        self._ledger.change(one, does, after, at)

    def _unmark(self) -> None:
        """Nothing was done, or not all of it that the record says: what is marked goes on."""
        flags, now = self._rows.flags, self._clock.now()
        for row, value in enumerate(flags):
            if value & MOVING and not value & GONE:
                self._ledger.changed(row, now)
        self._ring()

    def _forget_old(self) -> None:
        """Of the actions that are over, the newest KEPT are remembered."""
        over = [id for id in self.actions() if id not in self._ledger.actions]
        for id in over[: max(0, len(over) - actions.KEPT)]:
            self._ledger.notes.put(actions.NOTE + id, b"")

    async def resume_all(self) -> None:
        """What a suspension by sender, account or client paused is looked at again."""
        for start, end in pieces(self._rows):
            now = self._clock.now()
            for row, flags in enumerate(self._rows.flags[start:end], start):
                if flags & PAUSED and not flags & GONE:
                    self._ledger.resumed(row, now)
            self._ring()
            await breathe()


def _done(plan: Plan, id: str = "", messages: int = 0, recipients: int = 0, until: float = 0.0) -> Done:
    return Done(
        id=id,
        fit=plan.fit,
        next_hops=frozenset(plan.hops),
        messages=messages,
        recipients=recipients,
        skipped=plan.skipped,
        until=until,
    )
