"""from the segments' records back to a ledger

Takes the segments in order, each as its index or record by record, and leaves a
Ledger as it was when the last of them became durable.

Messages whose recipients have come apart (settled or put off one by one) are
kept as *pieces*, recipient by recipient, until the end; all others stay rows,
found by bisection, because a segment's rows stand in the order of their places.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence

from tripost.queue import actions
from tripost.queue.actions import Action, decode_action
from tripost.queue.entries import (
    ACCEPT,
    ACTION,
    MOVE,
    NOTE,
    SETTLE,
    SNAPSHOT,
    Acceptance,
    Later,
    Left,
    Move,
    Settlement,
    decode_accept,
    decode_move,
    decode_settle,
)
from tripost.queue.index import ALIGN_BITS, SegmentIndex
from tripost.queue.ledger import MOST_ATTEMPTS, Ledger, by_hop, first_due, lane_of
from tripost.queue.pieces import Pieces, plainly
from tripost.queue.rows import DOOMED, GONE, HELD, IN_SETTLEMENT, NIL, OFFSET_BITS, offset_of, place_of, segment_of

Read = Callable[[int], Acceptance]  # the message at a place; raises SpoolError


class Replay:
    """`files`: body files that queued messages name, once `finish` was called."""

    def __init__(self, read: Read) -> None:
        self.ledger = Ledger()
        self.files: set[str] = set()
        self._read = read
        self._pieces: dict[int, Pieces] = {}
        self._named: list[tuple[int, str]] = []
        self._shared: list[int] = []
        self._starts: list[tuple[int, int]] = []  # segment, its first row
        self._spans: dict[int, tuple[int, int]] = {}  # segment → its rows, from and to before; -1: it is being read
        self._rerouted: dict[int, str] = {}  # place → next hop in the envelope, of messages that are in one row

    # --- a whole segment ---

    def load(self, segment: int, index: SegmentIndex, single: Callable[[int], tuple[int, bytes]]) -> None:
        """A sealed segment; `single(offset)` reads one of its records."""
        self.begin(segment)
        rows, schedule = self.ledger.rows, self.ledger.schedule
        count = len(index.at)
        base = segment << OFFSET_BITS
        inside = index.kind if any(index.kind) else bytes(count)
        rows.place.extend(
            [base | at << ALIGN_BITS | kind & IN_SETTLEMENT for at, kind in zip(index.at, inside, strict=True)]
        )
        numbers = [schedule.number(name) for name in index.hops]
        rows.hop.extend(array("I", [numbers[hop] for hop in index.hop]))
        rows.told.extend(array("Q", bytes(8 * count)))
        rows.after.extend(array("I", bytes(4 * count)))
        rows.due.extend(index.due)
        rows.expires.extend(index.expires)
        rows.size.extend(index.size)
        rows.recipients.extend(index.recipients)
        rows.attempts.extend(array("H", bytes(2 * count)))
        rows.lane.extend(index.lane)
        rows.priority.extend(index.priority)
        rows.flags.extend(array("B", bytes(count)))
        self._shared += [base | offset for offset in index.shared]
        self._named += [(base | offset, name) for offset, name in index.files.items()]
        self._changes(segment, index, single)

    def _changes(self, segment: int, index: SegmentIndex, single: Callable[[int], tuple[int, bytes]]) -> None:
        singles = iter(index.single)
        next_single = next(singles, None)
        for number, place in enumerate(index.later):
            at = index.later_at[number]
            while next_single is not None and next_single < at:
                self._single(segment, next_single << ALIGN_BITS, single)
                next_single = next(singles, None)
            told = place_of(segment, at << ALIGN_BITS)
            self._put_off(place, index.later_attempts[number], index.later_due[number], told)
        while next_single is not None:
            self._single(segment, next_single << ALIGN_BITS, single)
            next_single = next(singles, None)
        for place in index.done:
            self._end(place)
        for place in index.moved:
            self._end(place)

    def _single(self, segment: int, offset: int, single: Callable[[int], tuple[int, bytes]]) -> None:
        kind, payload = single(offset)
        if kind == SETTLE:
            settlement = decode_settle(payload)
            self._settle_pieces(settlement, place_of(segment, offset))
        elif kind == MOVE:
            self._scatter(place_of(segment, offset), decode_move(payload))
        elif kind == ACTION:
            self._act(decode_action(payload))
        elif kind == NOTE:
            self.ledger.notes.apply(payload)
        elif kind == SNAPSHOT:
            self.ledger.notes.restore(payload)

    # --- record by record ---

    def begin(self, segment: int) -> None:
        """What follows stands in this segment."""
        here = len(self.ledger.rows)
        if self._starts:
            last, start = self._starts[-1]
            self._spans[last] = start, here
        self._starts.append((segment, here))
        self._spans[segment] = here, -1

    def record(self, segment: int, kind: int, offset: int, payload: bytes) -> bool:
        """One record of a segment without an index (an index is made); False for a type not known here."""
        index = self.ledger.index(segment)
        at = place_of(segment, offset)
        if kind == ACCEPT:
            self._enter(at, decode_accept(payload), index)
        elif kind == SETTLE:
            settlement = decode_settle(payload)
            self._settle(settlement, at, index)
            if settlement.report is not None:
                self._enter(at | IN_SETTLEMENT, settlement.report, index)
        elif kind == MOVE:
            self._move(at, decode_move(payload), index)
        elif kind == ACTION:
            index.add_single(offset)
            self._act(decode_action(payload))
        elif kind in (NOTE, SNAPSHOT):
            index.add_single(offset)
            self.ledger.notes.apply(payload) if kind == NOTE else self.ledger.notes.restore(payload)
        else:
            return False
        return True

    def _enter(self, place: int, message: Acceptance, index: SegmentIndex) -> None:
        envelope, offset = message.envelope, offset_of(place)
        due, expires = first_due(envelope), envelope.expires
        lane = lane_of(envelope.account, envelope.client)
        counts = by_hop(envelope)
        for name, count in counts.items():
            hop = self.ledger.schedule.number(name)
            self.ledger.rows.new(place, hop, due, expires, count, lane, envelope.priority, envelope.size)
            inside = bool(place & IN_SETTLEMENT)
            index.add_row(
                offset,
                hop,
                self.ledger.schedule.name(hop),
                due,
                expires,
                count,
                lane,
                envelope.priority,
                envelope.size,
                in_settlement=inside,
            )
        if len(counts) > 1:
            index.shared[offset] = len(counts)
            self._shared.append(place)
        self._name(place, message.file, index)

    def _name(self, place: int, file: str, index: SegmentIndex) -> None:
        if file:
            index.files[offset_of(place)] = file
            self._named.append((place, file))

    def _settle(self, settlement: Settlement, at: int, index: SegmentIndex) -> None:
        place, later = settlement.place, settlement.later
        found = self._find(place)
        rows = self.ledger.rows
        if place not in self._pieces and len(found) == 1:
            whole = rows.recipients[found[0]]
            if len(settlement.done) == whole:
                index.done.append(place)
                self._end(place)
                return
            if len(later) == whole and len({(one.attempts, one.due) for one in later}) == 1:
                index.add_later(place, offset_of(at), later[0].due, later[0].attempts)
                self._put_off(place, later[0].attempts, later[0].due, at)
                return
        index.add_single(offset_of(at))
        self._settle_pieces(settlement, at)

    def _move(self, at: int, move: Move, index: SegmentIndex) -> None:
        envelope, offset = move.message.envelope, offset_of(at)
        hop_of = {one.id: one.next_hop for one in envelope.recipients}
        lane = lane_of(envelope.account, envelope.client)
        counts: dict[str, int] = {}
        for left in move.left:
            counts[hop_of[left.recipient]] = counts.get(hop_of[left.recipient], 0) + 1
        due, expires, priority, size = move.left[0].due, envelope.expires, move.left[0].priority, envelope.size
        for name, count in counts.items():
            hop = self.ledger.schedule.number(name)
            self.ledger.rows.new(at, hop, due, expires, count, lane, priority, size)
            index.add_row(offset, hop, self.ledger.schedule.name(hop), due, expires, count, lane, priority, size)
        self._name(at, move.message.file, index)
        index.moved.append(move.place)
        if len(counts) > 1:
            index.shared[offset] = len(counts)
            self._shared.append(at)
        index.add_single(offset)  # plain ones too: a later start finds the states in the record
        self._scatter(at, move)
        self._end(move.place)

    # --- what they do ---

    def _find(self, place: int) -> range:
        """The rows of the message at `place`."""
        places, flags = self.ledger.rows.place, self.ledger.rows.flags
        start, stop = self._spans.get(segment_of(place), (0, 0))
        first = end = bisect_left(places, place, start, stop if stop >= 0 else len(places))
        while end < len(places) and places[end] == place and not flags[end] & GONE:
            end += 1
        return range(first, end)

    def _end(self, place: int) -> None:
        for row in self._find(place):
            self.ledger.rows.flags[row] = GONE
        self._pieces.pop(place, None)

    def _put_off(self, place: int, attempts: int, due: float, told: int) -> None:
        pieces = self._pieces.get(place)
        if pieces is not None:
            for piece in pieces.left.values():
                piece.attempts, piece.due, piece.told = attempts, due, told
            return
        rows = self.ledger.rows
        for row in self._find(place):
            rows.attempts[row], rows.due[row], rows.told[row] = min(attempts, MOST_ATTEMPTS), due, told

    def _apart(self, place: int) -> Pieces | None:
        """The message recipient by recipient; None when it is not queued any more."""
        pieces = self._pieces.get(place)
        found = self._find(place)
        if pieces is not None or not found:
            return pieces
        pieces = self._pieces[place] = Pieces(self._read(place).envelope)
        rows = self.ledger.rows
        states = {self._rerouted.get(place) or self.ledger.schedule.name(rows.hop[row]): row for row in found}
        for id, piece in list(pieces.left.items()):
            row = states.get(piece.hop)
            if row is None:  # that next hop's recipients had ended before the message was moved
                del pieces.left[id]
                continue
            piece.hop = self.ledger.schedule.name(rows.hop[row])
            piece.due, piece.attempts, piece.told = rows.due[row], rows.attempts[row], rows.told[row]
            piece.flags, piece.priority = rows.flags[row] & (HELD | DOOMED), rows.priority[row]
        for row in found:
            rows.flags[row] = GONE
        return pieces

    def _settle_pieces(self, settlement: Settlement, at: int) -> None:
        pieces = self._apart(settlement.place)
        if pieces is None:
            return
        for id in settlement.done:
            pieces.left.pop(id, None)
        self._states(pieces, settlement.later, at)
        if not pieces.left:
            del self._pieces[settlement.place]

    def _states(self, pieces: Pieces, later: Sequence[Later | Left], at: int) -> None:
        for one in later:
            piece = pieces.left.get(one.recipient)
            if piece is not None:
                piece.attempts, piece.due = one.attempts, one.due
                piece.told = at

    def _scatter(self, at: int, move: Move) -> None:
        for row in self._find(at):
            self.ledger.rows.flags[row] = GONE
        pieces = self._pieces[at] = Pieces(move.message.envelope)
        queued = {one.recipient: one for one in move.left}
        pieces.left = {id: piece for id, piece in pieces.left.items() if id in queued}
        for id, piece in pieces.left.items():
            piece.flags, piece.priority = HELD if queued[id].held else 0, queued[id].priority
        self._states(pieces, move.left, at)

    # --- what operators did ---

    def _act(self, action: Action) -> None:
        self.ledger.note_action(action)
        for group in action.groups:
            for place in actions.numbers(group.places):
                self._act_on_whole(place, action, group.after)
            for place, ids in group.parts.items():
                pieces = self._apart(place)
                if pieces is not None:
                    for piece in [pieces.left[id] for id in ids if id in pieces.left]:
                        piece.change(action.does, group.after, action.kept.at)

    def _act_on_whole(self, place: int, action: Action, after: str) -> None:
        pieces = self._pieces.get(place)
        if pieces is not None:
            for piece in pieces.left.values():
                piece.change(action.does, after, action.kept.at)
            return
        rows, schedule = self.ledger.rows, self.ledger.schedule
        for row in self._find(place):
            if action.does == actions.REROUTE:
                self._rerouted.setdefault(place, schedule.name(rows.hop[row]))
                rows.hop[row] = schedule.number(after)
            else:
                self.ledger.change(row, action.does, after, action.kept.at)

    # --- the end ---

    def finish(self, now: float) -> Ledger:
        """Count what is left and put it into the schedule."""
        ledger = self.ledger
        self._count()
        self.files = {name for place, name in self._named if place in self._pieces or self._find(place)}
        rows = ledger.rows
        for place in self._shared:
            left = len(self._find(place))
            if left > 1:
                rows.shared[place] = left
                ledger.messages -= left - 1
                ledger.octets -= (left - 1) * rows.size[self._find(place)[0]]
        for place, pieces in self._pieces.items():
            self._gather(place, pieces)
        ledger.queued = sum(ledger.schedule.link(now))
        ledger.octets += sum(rows.size)
        return ledger

    def _count(self) -> None:
        ledger, flags = self.ledger, self.ledger.rows.flags
        ends = [*[start for _, start in self._starts], len(ledger.rows)][1:]
        for (segment, start), end in zip(self._starts, ends, strict=True):
            gone = flags[start:end].tobytes().count(GONE)
            ledger.records[segment] = end - start
            ledger.live[segment] = end - start - gone
            ledger.messages += end - start - gone

    def _gather(self, place: int, pieces: Pieces) -> None:
        """Rows of those recipients that have next hop and state in common."""
        ledger, envelope = self.ledger, pieces.envelope
        groups: dict[tuple[str, float, int, int, int, int], list[int]] = {}
        for id, piece in pieces.left.items():
            groups.setdefault(piece.state(), []).append(id)
        for (name, due, attempts, told, flags, priority), ids in groups.items():
            hop, lane = ledger.schedule.number(name), lane_of(envelope.account, envelope.client)
            row = ledger.rows.new(place, hop, due, envelope.expires, len(ids), lane, priority, envelope.size)
            ledger.rows.attempts[row], ledger.rows.told[row] = min(attempts, MOST_ATTEMPTS), told
            ledger.rows.flags[row] = flags
            if ids != plainly(envelope.recipients, name, len(ids)):
                ledger.rows.subset[row] = tuple(ids)
        if len(groups) > 1:
            ledger.rows.shared[place] = len(groups)
            ledger.octets -= (len(groups) - 1) * min(envelope.size, NIL)
        ledger.live[segment_of(place)] += len(groups)
        ledger.messages += 1
