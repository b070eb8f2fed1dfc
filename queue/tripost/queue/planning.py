"""which recipients an action means, and what it is to make of each

Takes what a search finds and sorts it into the groups of an action's record.
Pure but for the columns that it reads.

Bounds   tripost.queue.actions.TARGETS and PARTS; beyond them `TooMany`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable

import msgspec

from tripost.queue import actions
from tripost.queue.actions import Group
from tripost.queue.ledger import Ledger
from tripost.queue.message import Recipient
from tripost.queue.rows import DOOMED, HELD, LEASED
from tripost.queue.search import Match

Way = Callable[[Recipient, str], str]  # and the sender


class TooMany(Exception):
    """One line."""


class Targets:
    """One group that is being filled."""

    __slots__ = ("parts", "places")

    def __init__(self) -> None:
        self.places: array[int] = array("Q")
        self.parts: dict[int, tuple[int, ...]] = {}


class Plan:
    """`groups` by (before, after); `fit`: messages that were found, `hops`: their next hops; `messages` and
    `recipients` that are meant, `skipped` recipients that are being delivered now and are left alone."""

    def __init__(self, does: str) -> None:
        self.does = does
        self.groups: dict[tuple[str, str], Targets] = {}
        self.hops: set[str] = set()
        self.fit = 0
        self.messages = 0
        self.recipients = 0
        self.skipped = 0

    @classmethod
    def of(cls, does: str, groups: tuple[Group, ...]) -> Plan:
        """To do that to targets that are known."""
        plan = cls(does)
        for one in groups:
            targets = plan.groups[one.before, one.after] = Targets()
            targets.places, targets.parts = actions.numbers(one.places), dict(one.parts)
        return plan

    def target(self, before: str, after: str) -> Targets:
        found = self.groups.get((before, after))
        if found is None:
            found = self.groups[before, after] = Targets()
        return found

    def encoded(self) -> tuple[Group, ...]:
        return tuple(
            Group(before, after, actions.octets(one.places), one.parts)
            for (before, after), one in self.groups.items()
            if one.places or one.parts
        )

    def drop(self, place: int) -> None:
        """A message that is meant whole is not to be touched."""
        for one in self.groups.values():
            at = bisect_left(one.places, place)
            if at < len(one.places) and one.places[at] == place:
                del one.places[at]

    def all_places(self) -> array[int]:
        """Rising."""
        if len(self.groups) == 1 and not any(one.parts for one in self.groups.values()):
            return next(iter(self.groups.values())).places
        found = {place for one in self.groups.values() for place in [*one.places, *one.parts]}
        return array("Q", sorted(found))


class Planner:
    """`to`: the priority, or "" ; `way`: a recipient's new next hop."""

    def __init__(self, ledger: Ledger, does: str, now: float, to: str, way: Way | None) -> None:
        self.plan = Plan(does)
        self._ledger = ledger
        self._rows = ledger.rows
        self._does = does
        self._now = now
        self._to = to
        self._way = way
        self._whole = 0
        self._parts = 0

    def take(self, match: Match) -> None:
        """Raises TooMany."""
        self.plan.fit += 1
        self.plan.hops.update([self._ledger.schedule.name(self._rows.hop[row]) for row, _ in match.deliveries])
        todo = [(row, chosen) for row, chosen in match.deliveries if self._concerns(row)]
        if not todo:
            return
        plan = self.plan
        every = len(todo) == len(match.deliveries) and match.whole == self._rows.shared.get(match.place, 1)
        sender = match.message.envelope.sender
        wanted = [(row, chosen, self._change(row, one, sender), one) for row, chosen in todo for one in chosen]
        changes = {change for *_, change, _ in wanted}
        if self._does == actions.REROUTE:
            wanted = [one for one in wanted if one[2][0] != one[2][1]]
            changes = {change for *_, change, _ in wanted}
            every = every and len(changes) == 1 and len(match.deliveries) == 1 and self._plain(match)
        if not wanted:
            return
        plan.messages += 1
        plan.recipients += len(wanted)
        if every and len(changes) == 1:
            plan.target(*changes.pop()).places.append(match.place)
            self._whole += 1
        else:
            self._parts += 1
            for change in changes:
                ids = tuple(one.id for *_, this, one in wanted if this == change)
                plan.target(*change).parts[match.place] = ids
        if self._whole > actions.TARGETS or self._parts > actions.PARTS:
            raise TooMany(
                f"more than {actions.TARGETS} messages, or {actions.PARTS} of which only some recipients are meant: "
                "do it in several steps"
            )

    def _plain(self, match: Match) -> bool:
        """One row for all of the message's recipients: it can be sent elsewhere without naming them."""
        row = match.deliveries[0][0]
        return row not in self._rows.subset and self._rows.recipients[row] == len(match.message.envelope.recipients)

    def _concerns(self, row: int) -> bool:
        """The verb would change something of the row."""
        rows, flags = self._rows, self._rows.flags[row]
        if flags & DOOMED:
            return False
        if self._does == actions.HOLD:
            return not flags & HELD
        if self._does == actions.RELEASE:
            return bool(flags & HELD)
        if self._does == actions.RETRY:
            return rows.due[row] > self._now and not flags & LEASED
        if self._does == actions.PRIORITY:
            return rows.priority[row] != int(self._to)
        return True

    def _change(self, row: int, one: Recipient, sender: str) -> tuple[str, str]:
        """(before, after)"""
        if self._does == actions.PRIORITY:
            return str(self._rows.priority[row]), self._to
        if self._does == actions.REROUTE and self._way is not None:
            return self._ledger.schedule.name(self._rows.hop[row]), self._way(one, sender)
        return "", ""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator wants. `filter` as JSON; `grace` in seconds; `to` and `way` as Planner has them."""

    verb: str
    who: str
    filter: str = ""
    reason: str = ""
    to: str = ""
    way: Way | None = None
    grace: float = 0.0

    def check(self) -> None:
        """Raises ValueError, one line."""
        if max(len(self.filter), len(self.reason)) > actions.TEXT_LIMIT or len(self.to) > actions.TEXT_LIMIT:
            raise ValueError(f"conditions and reason must be shorter than {actions.TEXT_LIMIT} characters")
        if self.verb == actions.PRIORITY and not -9 <= int(self.to) <= 9:
            raise ValueError("a priority is a number from -9 to 9")
        if self.verb == actions.REROUTE and self.way is None:
            raise ValueError("say where to")
