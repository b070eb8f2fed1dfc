"""what each durable record changes in memory

Called with every record in the order in which the log made it durable: rows,
schedule, live counts and the index of the record's segment follow.
Pure: no clock, no disk.

Promise  applying the same records again (tripost.queue.replay) gives the same
         queued deliveries.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network

from msgspec.structs import replace

from tripost.queue import actions
from tripost.queue.actions import Action
from tripost.queue.entries import Acceptance, Later
from tripost.queue.index import SegmentIndex
from tripost.queue.lanes import SUBMITTERS
from tripost.queue.message import Envelope, Recipient
from tripost.queue.notes import Notes
from tripost.queue.rows import (
    ASIDE,
    DOOMED,
    HELD,
    IN_SETTLEMENT,
    LEASED,
    MOVING,
    NIL,
    PAUSED,
    Rows,
    offset_of,
    segment_of,
)
from tripost.queue.schedule import Schedule

MOST_ATTEMPTS = 65535


@lru_cache(4096)
def lane_of(account: str, client: str) -> int:
    """Which share of a next hop is this submitter's: its account, else its network (IPv4 /24, IPv6 /64)."""
    name = account
    if not name:
        try:
            address = ip_address(client)
            name = str(ip_network((address, 24 if address.version == 4 else 64), strict=False))
        except ValueError:
            name = client
    return zlib.crc32(name.encode("utf-8", "surrogateescape")) % SUBMITTERS


def first_due(envelope: Envelope) -> float:
    return max(envelope.accepted, envelope.release)


def by_hop(envelope: Envelope) -> dict[str, int]:
    """How many recipients each next hop has."""
    counts: dict[str, int] = {}
    for one in envelope.recipients:
        counts[one.next_hop] = counts.get(one.next_hop, 0) + 1
    return counts


class Ledger:
    """`live`: segment → rows that stand in it, in the order of their numbers; `indexes`: of the segments that are not
    sealed yet; `others`: segment → the ingress process that wrote it; `growing`: those of them of which more may come.
    """

    def __init__(self) -> None:
        self.notes = Notes()
        self.rows = Rows()
        self.schedule = Schedule(self.rows, self.notes)
        self.live: dict[int, int] = {}
        self.others: dict[int, int] = {}
        self.growing: set[int] = set()
        self.records: dict[int, int] = {}  # segment → rows that ever stood in it
        self.indexes: dict[int, SegmentIndex] = {}
        self.actions: dict[str, Action] = {}  # those that can be undone yet, or have not ended what they are to end
        self.messages = 0
        self.queued = 0  # recipients
        self.octets = 0  # of the queued messages' contents

    def index(self, segment: int) -> SegmentIndex:
        found = self.indexes.get(segment)
        if found is None:
            found = self.indexes[segment] = SegmentIndex()
        return found

    def begin(self, segment: int, snapshot: int, abandoned: Iterable[int]) -> None:
        """A segment is being written; its notes stand at offset `snapshot`, 0 for none.

        It is counted even if nothing will ever be good in it: what is void in it is said by the next one, which
        therefore must not be removed before it."""
        self.know(segment)
        for number in abandoned:
            self.indexes.pop(number, None)  # it will be read record by record
        if snapshot:
            self.index(segment).add_single(snapshot)

    def know(self, segment: int, writer: int = 0) -> None:
        """There is this segment; `writer`: of the ingress process that writes it."""
        live = self.live
        late = segment < next(reversed(live), 0)
        live.setdefault(segment, 0)
        if late:  # another writer took a number before us, and its file was found later
            in_order = sorted(live.items())
            live.clear()
            live.update(in_order)
        if writer:
            self.others[segment] = writer
            self.growing.add(segment)

    def complete(self, segment: int) -> None:
        """All of another writer's segment was taken in."""
        self.growing.discard(segment)

    def note(self, payload: bytes, at: int) -> None:
        """Some notes became durable."""
        self.index(segment_of(at)).add_single(offset_of(at))
        self.notes.apply(payload)

    def enter(self, place: int, message: Acceptance, now: float) -> None:
        """The message became durable at `place`."""
        envelope = message.envelope
        recipients = envelope.recipients
        counts = {recipients[0].next_hop: 1} if len(recipients) == 1 else by_hop(envelope)
        segment, offset = segment_of(place), offset_of(place)
        index = self.index(segment)
        due, expires = first_due(envelope), envelope.expires
        lane, priority, size = lane_of(envelope.account, envelope.client), envelope.priority, envelope.size
        inside = bool(place & IN_SETTLEMENT)
        schedule = self.schedule
        for name, count in counts.items():
            hop = schedule.number(name)
            row = self.rows.new(place, hop, due, expires, count, lane, priority, size)
            schedule.enrol(hop)
            index.add_row(
                offset, hop, schedule.name(hop), due, expires, count, lane, priority, size, in_settlement=inside
            )
            schedule.add(row, now)
        if len(counts) > 1:
            self.rows.share(place, len(counts) - 1)
            index.shared[offset] = len(counts)
        if message.file:
            index.files[offset] = message.file
        self.live[segment] += len(counts)
        self.records[segment] = self.records.get(segment, 0) + len(counts)
        self.messages += 1
        self.queued += len(recipients)
        self.octets += min(size, NIL)

    def seal(self, segment: int) -> bytes:
        """The index of a full segment, encoded; it is not kept."""
        index = self.indexes.pop(segment, None) or SegmentIndex()
        index.records = self.records.get(segment, 0)
        return index.encode()

    def lease(self, row: int) -> None:
        self.rows.flags[row] = self.rows.flags[row] & ~ASIDE | LEASED

    def put_back(self, row: int) -> None:
        """Leased, but not tried: the row keeps its turn."""
        self.rows.flags[row] &= ~LEASED
        self.schedule.add_first(row)

    def postpone(self, row: int, due: float, now: float) -> None:
        """Leased, but nothing could be done with it now."""
        self.rows.flags[row] &= ~LEASED
        self.rows.due[row] = due
        self.schedule.add(row, now)

    def chosen(self, row: int, envelope: Envelope) -> tuple[Recipient, ...]:
        """The recipients for whom the row stands."""
        only = self.rows.subset.get(row)
        if only is not None:
            return tuple(one for one in envelope.recipients if one.id in only)
        if len(envelope.recipients) == self.rows.recipients[row]:
            return envelope.recipients
        name = self.schedule.name(self.rows.hop[row])
        return tuple(one for one in envelope.recipients if one.next_hop == name)

    def settle(self, row: int, at: int, done: int, later: Sequence[Later], now: float) -> bool:
        """The row's settlement became durable at `at`: `done` recipients ended. True when the message is gone."""
        rows = self.rows
        place = rows.place[row]
        index = self.index(segment_of(at))
        self.queued -= done
        rows.flags[row] &= ~LEASED
        if not later:
            gone = self.end(row)
            if gone:
                index.done.append(place)
            else:
                index.add_single(offset_of(at))
            return gone
        groups: dict[tuple[int, float], list[int]] = {}
        for one in later:
            groups.setdefault((one.attempts, one.due), []).append(one.recipient)
        if not done and len(groups) == 1 and row not in rows.subset and place not in rows.shared:
            index.add_later(place, offset_of(at), later[0].due, later[0].attempts)
        else:
            index.add_single(offset_of(at))
            first = next(iter(groups.values()))
            rows.subset[row] = tuple(first)
            rows.recipients[row] = len(first)
        self._put_off(row, at, groups, now)
        return False

    def _put_off(self, row: int, at: int, groups: dict[tuple[int, float], list[int]], now: float) -> None:
        rows, hop = self.rows, self.rows.hop[row]
        for number, ((attempts, due), ids) in enumerate(groups.items()):
            one = row
            if number:
                one = rows.like(row, tuple(ids))
                self.live[segment_of(rows.place[row])] += 1
                self.schedule.enrol(hop)
            rows.attempts[one] = min(attempts, MOST_ATTEMPTS)
            rows.due[one] = due
            rows.told[one] = at
            if due <= now:
                self.schedule.add_first(one)  # the next hop's trouble: the message keeps its turn
            else:
                self.schedule.add(one, now)

    def end(self, row: int) -> bool:
        """The row is in no chain and owes nothing any more; True when its message is gone."""
        self.live[segment_of(self.rows.place[row])] -= 1
        hop, size = self.rows.hop[row], self.rows.size[row]
        gone = self.rows.free(row)
        self.schedule.leave(hop)
        if gone:
            self.messages -= 1
            self.octets -= size
        return gone

    def moved(self, found: Iterable[int], at: int, file: str, *, same: bool) -> None:
        """The message of these rows stands at `at` now; `same`: in one row for all of its recipients."""
        rows, offset = self.rows, offset_of(at)
        segment = segment_of(at)
        index = self.index(segment)
        old = NIL
        counts: dict[str, list[int]] = {}
        for row in found:
            old = rows.place[row]
            self.live[segment_of(old)] -= 1
            self.live[segment] += 1
            self.records[segment] = self.records.get(segment, 0) + 1
            rows.place[row] = at
            rows.told[row] = at if rows.told[row] else 0
            counts.setdefault(self.schedule.name(rows.hop[row]), []).append(row)
        for name, some in counts.items():
            row, whole = some[0], sum(rows.recipients[one] for one in some)
            lane, priority = rows.lane[row], rows.priority[row]
            due, expires, size = rows.due[row], rows.expires[row], rows.size[row]
            index.add_row(offset, rows.hop[row], name, due, expires, whole, lane, priority, size)
            if same and rows.attempts[row]:
                index.add_later(at, offset, rows.due[row], rows.attempts[row])
        if not same or rows.flags[next(iter(counts.values()))[0]] & HELD:
            index.add_single(offset)
        if len(counts) > 1:
            index.shared[offset] = len(counts)
        if old in rows.shared:
            rows.shared[at] = rows.shared.pop(old)
        if file:
            index.files[offset] = file
        index.moved.append(old)

    # --- what operators do ---

    def act(self, action: Action, at: int) -> None:
        """The action's record became durable: it is known, and `change` follows for each row."""
        self.index(segment_of(at)).add_single(offset_of(at))
        self.note_action(action)

    def note_action(self, action: Action) -> None:
        """An action is part of the notes."""
        kept, durable = action.kept, self.notes.durable
        durable[actions.NOTE + action.id] = actions.encode_kept(kept)
        self.actions[action.id] = action
        undone = self.actions.pop(kept.to, None) if kept.verb == actions.UNDO else None
        if undone is not None:
            old = actions.decode_kept(durable[actions.NOTE + kept.to])
            over = replace(old, state=actions.UNDONE, undone_by=action.id)
            durable[actions.NOTE + kept.to] = actions.encode_kept(over)

    def change(self, row: int, does: str, after: str, at: float) -> None:
        """What an action does to a row that is in no chain, or leased."""
        flags = self.rows.flags
        if does == actions.HOLD:
            flags[row] |= HELD
        elif does == actions.RELEASE:
            flags[row] &= ~HELD
        elif does == actions.RETRY:
            self.rows.due[row] = min(self.rows.due[row], at)
        elif does == actions.PRIORITY:
            self.rows.priority[row] = int(after)
        elif does == actions.REROUTE:
            self._reroute(row, after)
        elif does == actions.SPARE:
            flags[row] &= ~DOOMED
        else:
            flags[row] |= DOOMED

    def _reroute(self, row: int, to: str) -> None:
        old, new = self.rows.hop[row], self.schedule.number(to)
        self.schedule.enrol(new)
        self.rows.hop[row] = new
        self.schedule.leave(old)

    def split(self, row: int, ids: tuple[int, ...], rest: tuple[int, ...]) -> int:
        """Some recipients of a row, which is in no chain, get one of their own."""
        twin = self.rows.like(row, ids)
        self.rows.flags[twin] |= ASIDE
        self.rows.subset[row] = rest
        self.rows.recipients[row] = len(rest)
        self.live[segment_of(self.rows.place[row])] += 1
        self.schedule.enrol(self.rows.hop[row])
        return twin

    def changed(self, row: int, now: float) -> None:
        """A row that was being changed is so no more."""
        self.rows.flags[row] &= ~MOVING
        self.schedule.let_out(row, now)

    def pause(self, row: int) -> None:
        """Leased, but where it comes from is suspended."""
        self.rows.flags[row] |= PAUSED

    def resumed(self, row: int, now: float) -> None:
        """What paused the row is over."""
        self.rows.flags[row] &= ~PAUSED
        self.schedule.let_out(row, now)
