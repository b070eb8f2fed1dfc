"""lives of a queue, and what must be true after each of their steps

A life is a list of steps, done one after the other. `Model` says in plain
dictionaries what is queued; after a crash the queue must be as the model was
before the step that was under way, or as it would be after it.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from dataclasses import replace as dataclass_replace
from itertools import takewhile

import pytest
import trio
from msgspec.structs import replace

from support.fake_files import FakeFiles
from support.queues import SMALL, Bell, inlet_on, kill, new_board, queue_on, reporter, taken_in
from tripost.queue.board import Board
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolError, SpoolUnsure
from tripost.queue.events import Event
from tripost.queue.finding import Wanted
from tripost.queue.inlet import Inlet
from tripost.queue.manager import Queue
from tripost.queue.message import Deferred, Delivered, Envelope, Failed, News, Outcome, Recipient
from tripost.queue.opening import Others
from tripost.queue.planning import Order
from tripost.queue.rows import DOOMED, HELD
from tripost.queue.values import Lease

EAGER = replace(SMALL, compact_ratio=0.0, compact_slack=1, probe_first=20.0)
EXPIRE = 1_000_000.0
GRACE = 100.0  # seconds in which an action can be undone

OUTCOMES: dict[str, Outcome] = {
    "ok": Delivered("relayed", "250 ok", "h"),
    "no": Failed(550, "5.1.1", "no such user"),
    "later": Deferred(451, "4.3.0", "wait"),
    "down": Deferred(451, "4.4.1", "no answer", destination=True),
}


@dataclass(frozen=True)
class State:
    """One queued recipient."""

    hop: str
    attempts: int
    due: float
    held: bool = False
    priority: int = 0
    doomed: bool = False


@dataclass
class Deed:
    """An operator's action; `states` as they were before, of (message id, recipient id)."""

    verb: str
    until: float
    states: dict[tuple[str, int], State]
    undone: bool = False


@dataclass
class Model:
    """`queued`: message id → recipient id → state; `contents`, `envelopes` by message id; `suspended` next hops;
    `deeds` of operators."""

    queued: dict[str, dict[int, State]] = field(default_factory=dict[str, dict[int, State]])
    contents: dict[str, bytes] = field(default_factory=dict[str, bytes])
    envelopes: dict[str, Envelope] = field(default_factory=dict[str, Envelope])
    suspended: frozenset[str] = frozenset()
    deeds: list[Deed] = field(default_factory=list[Deed])

    def copy(self) -> Model:
        queued = {id: dict(states) for id, states in self.queued.items()}
        return Model(queued, dict(self.contents), self.envelopes, self.suspended, self.deeds)

    def enter(self, envelope: Envelope, content: bytes) -> None:
        due = max(envelope.accepted, envelope.release)
        self.queued[envelope.id] = {
            one.id: State(one.next_hop, 0, due, priority=envelope.priority) for one in envelope.recipients
        }
        self.contents[envelope.id], self.envelopes[envelope.id] = content, envelope

    def settle(self, lease: Lease, outcomes: dict[int, Outcome], now: float) -> None:
        left, failed = self.queued[lease.envelope.id], list[tuple[Recipient, Failed]]()
        for one in lease.recipients:
            outcome, state = outcomes[one.id], left[one.id]
            if isinstance(outcome, Deferred) and now >= lease.envelope.expires:
                outcome = Failed(outcome.code, "4.4.7", "over")
            if not isinstance(outcome, Deferred):
                del left[one.id]
                if isinstance(outcome, Failed):
                    failed.append((one, outcome))
            elif outcome.destination:
                left[one.id] = dataclass_replace(state, attempts=lease.attempt - 1, due=now)
            else:
                due = min(now + SMALL.retry.delay(lease.attempt, 0.5), max(lease.envelope.expires, now))
                left[one.id] = dataclass_replace(state, attempts=lease.attempt, due=due)
        if not left:
            del self.queued[lease.envelope.id]
        self.report(lease.envelope, failed)

    def report(self, envelope: Envelope, failed: list[tuple[Recipient, Failed]]) -> None:
        if failed and envelope.sender:
            header = self.contents[envelope.id].partition(b"\r\n\r\n")[0]
            made = reporter(envelope, [News(one, "failed", why) for one, why in failed], header)
            assert made is not None
            self.enter(*made)

    def act(self, step: Act, id: str, now: float) -> None:
        before: dict[tuple[str, int], State] = {}
        for n, one in self.queued[id].items():
            changed = changed_by(step, one, now)
            if changed != one and not one.doomed and not (step.part and n):
                before[id, n], self.queued[id][n] = one, changed
        if before:
            self.deeds.append(Deed(step.verb, now + GRACE, before))

    def undo(self, now: float) -> bool:
        """False where it cannot be done."""
        open_ = [deed for deed in self.deeds if not deed.undone and now < deed.until]
        if not open_ or open_[-1].verb == "retry":
            return False
        open_[-1].undone = True
        for (id, n), old in open_[-1].states.items():
            one = self.queued.get(id, {}).get(n)
            if one is not None:
                undone = UNDONE[open_[-1].verb]
                self.queued[id][n] = dataclass_replace(one, **{undone: getattr(old, undone)})
        return True

    def end(self, now: float) -> None:
        """What doomed messages come to."""
        for deed in self.deeds:
            if deed.undone or now < deed.until or deed.verb not in ("bounce", "delete"):
                continue
            deed.undone = True
            failed: dict[str, list[tuple[Recipient, Failed]]] = {}
            for id, n in deed.states:
                if self.queued.get(id, {}).pop(n, None) is not None and deed.verb == "bounce":
                    failed.setdefault(id, []).append((self.envelopes[id].recipients[n], Failed(554, "5.3.0", "")))
            for id, some in failed.items():
                self.report(self.envelopes[id], some)
            self.queued = {id: states for id, states in self.queued.items() if states}


def changed_by(step: Act, one: State, now: float) -> State:
    verb = step.verb
    if verb in ("hold", "release"):
        return dataclass_replace(one, held=verb == "hold")
    if verb == "retry":
        return dataclass_replace(one, due=min(one.due, now))
    if verb == "priority":
        return dataclass_replace(one, priority=int(step.to))
    return dataclass_replace(one, hop=step.to) if verb == "reroute" else dataclass_replace(one, doomed=True)


UNDONE = {
    "hold": "held",
    "release": "held",
    "priority": "priority",
    "reroute": "hop",
    "bounce": "doomed",
    "delete": "doomed",
}


@dataclass(frozen=True)
class Accept:
    hops: tuple[str, ...]
    size: int = 10
    priority: int = 0
    null: bool = False
    release: float = 0.0
    waiters: int = 1  # so many at once, each with a message of its own
    writer: int = 0  # taken in by this ingress process


@dataclass(frozen=True)
class Work:
    """Claim up to `most` at `hop` ("": the first that is ready) and settle each, recipient n of each with outcome n
    (in turns)."""

    hop: str
    outcomes: tuple[str, ...]
    most: int = 1


@dataclass(frozen=True)
class Release:
    hop: str


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class Act:
    """On message `number`, or, `part`, only on its first recipient."""

    verb: str
    number: int
    to: str = ""
    part: bool = False


@dataclass(frozen=True)
class Undo:
    """The newest action."""


@dataclass(frozen=True)
class Suspend:
    """Or resume."""

    hop: str
    on: bool = True


@dataclass(frozen=True)
class Reopen:
    """The manager stops, `meanwhile` comes in, and it starts again."""

    meanwhile: tuple[Accept, ...] = ()


@dataclass(frozen=True)
class Die:
    """An ingress process is killed, and its death is known."""

    writer: int


Step = Accept | Work | Release | Sleep | Act | Undo | Suspend | Reopen | Die


def _accepts(step: Step) -> tuple[Accept, ...]:
    if isinstance(step, Reopen):
        return step.meanwhile
    return (step,) if isinstance(step, Accept) else ()


class Life:
    """`before` and `after`: the model on both sides of the step under way."""

    def __init__(self) -> None:
        self.before = Model()
        self.after = Model()
        self.wall = 1_800_000_000.0
        self.unsure: dict[str, dict[int, State]] = {}  # whose client got no reply
        self.steps = 0
        self.inlets: dict[int, Inlet] = {}
        self.each = False  # the step under way changes messages one by one

    async def live(self, files: FakeFiles, steps: list[Step], seen: list[Event] | None = None) -> None:
        writers = {one.writer for step in steps for one in _accepts(step)} - {0}
        board, bell, clock = new_board(), Bell(), Clock(lambda: self.wall)
        async with AsyncExitStack() as stack:
            for writer in sorted(writers):
                inlet = inlet_on(files, board, writer, EAGER, ring=bell.ring, clock=clock)
                self.inlets[writer] = await stack.enter_async_context(inlet)
            others = Others(board, bell.wait) if writers else None
            left = steps
            while left:
                group = list(takewhile(lambda one: not isinstance(one, Reopen), left))
                async with queue_on(files, EAGER, seen, clock=Clock(lambda: self.wall), others=others) as queue:
                    for step in group:
                        await self._one(step, queue, board)
                left = left[len(group) :]
                for step in left[:1]:
                    assert isinstance(step, Reopen)
                    for one in step.meanwhile:
                        await self._one(one, None, board)
                left = left[1:]

    async def _one(self, step: Step, queue: Queue | None, board: Board) -> None:
        self.steps += 1
        self.each = isinstance(step, Sleep)  # what ends by itself ends one by one
        if isinstance(step, Die):
            kill(self.inlets[step.writer], board)
        elif isinstance(step, Accept) and step.writer:
            inlet = self.inlets[step.writer]
            await self._accept_all(inlet, step)
            if queue is not None and board.run(step.writer):
                await taken_in(inlet)
        else:
            assert queue is not None
            await self._step(queue, step)
        if queue is not None:
            self.wall = queue._clock.now()
        self.before = self.after.copy()

    async def _step(self, queue: Queue, step: Step) -> None:
        if isinstance(step, Accept):
            await self._accept_all(queue, step)
        elif isinstance(step, Work):
            await self._work(queue, step)
        elif isinstance(step, Release):
            for lease in await queue.claim(step.hop, 2):
                queue.release(lease)
        elif isinstance(step, Sleep):
            self.after.end(queue._clock.now() + step.seconds)
            await trio.sleep(step.seconds)
        elif isinstance(step, Undo):
            await self._undo(queue)
        elif isinstance(step, Suspend):
            await self._suspend(queue, step)
        elif isinstance(step, Act) and self.after.queued:
            await self._act(queue, step)

    async def _accept_all(self, queue: Queue | Inlet, step: Accept) -> None:
        async with trio.open_nursery() as nursery:
            for n in range(step.waiters):
                nursery.start_soon(self._accept, queue, step, f"m{self.steps}-{n}")

    async def _accept(self, queue: Queue | Inlet, step: Accept, id: str) -> None:
        now = queue._clock.now() if isinstance(queue, Queue) else self.wall
        recipients = tuple(Recipient(n, f"u{n}@x.example", hop) for n, hop in enumerate(step.hops))
        release = now + step.release if step.release else 0.0
        sender = "" if step.null else "fred@truc.fr"
        content = b"Subject: " + id.encode() + b"\r\n\r\n" + b"x" * step.size + b"\r\n"
        envelope = Envelope(
            id, sender, recipients, now, now + EXPIRE, len(content), priority=step.priority, release=release
        )
        self.after.enter(envelope, content)
        body = queue.new_body()
        try:
            await body.write(content)
            await queue.accept(envelope, body)
        except SpoolUnsure:
            self.unsure[id] = self.after.queued.pop(id)
        except SpoolError:  # refused: it must not be seen again
            del self.after.queued[id]
            try:
                await body.discard()
            except SpoolError:
                pass

    async def _work(self, queue: Queue, step: Work) -> None:
        hop = step.hop or next(iter(queue.ready()), "")
        for lease in await queue.claim(hop, step.most):
            assert hop not in self.after.suspended
            states = [self.after.queued[lease.envelope.id][one.id] for one in lease.recipients]
            assert not any(one.held or one.doomed for one in states)
            assert all(one.hop == hop for one in states)
            assert all(one.next_hop == hop for one in lease.recipients)
            outcomes = {
                one.id: OUTCOMES[step.outcomes[n % len(step.outcomes)]] for n, one in enumerate(lease.recipients)
            }
            self.before = self.after.copy()
            self.after.settle(lease, outcomes, queue._clock.now())
            await queue.settle(lease, outcomes)

    async def _suspend(self, queue: Queue, step: Suspend) -> None:
        others = self.after.suspended - {step.hop}
        self.after.suspended = others | {step.hop} if step.on else others
        await (queue.suspend(step.hop, reason="test") if step.on else queue.resume(step.hop))

    async def _act(self, queue: Queue, step: Act) -> None:
        ids = sorted(self.after.queued)
        id = ids[step.number % len(ids)]
        self.after.act(step, id, queue._clock.now())
        order = Order(verb=step.verb, who="op", to=step.to, way=lambda *_: step.to, grace=GRACE)
        first = self.after.envelopes[id].recipients[0].address
        await queue.edit.act(order, Wanted(id=id, recipient=first if step.part else ""))

    async def _undo(self, queue: Queue) -> None:
        if self.after.undo(queue._clock.now()):
            await queue.edit.undo("op")
        else:
            with pytest.raises(ValueError, match="undone"):
                await queue.edit.undo("op")


async def queued(queue: Queue) -> Model:
    """What the queue holds; it must agree with its own counts."""
    found, rows, ledger = Model(suspended=frozenset(queue.suspensions)), queue._ledger.rows, queue._ledger
    per_segment: dict[int, int] = {}
    for row in list(rows.live()):
        per_segment[rows.place[row] >> 40] = per_segment.get(rows.place[row] >> 40, 0) + 1
        message = await queue._store.read(rows.place[row])
        envelope = message.envelope
        reader = queue._store.open_body(message)
        found.contents[envelope.id] = await reader.read(1 << 20)
        reader.close()
        found.envelopes[envelope.id] = envelope
        states = found.queued.setdefault(envelope.id, {})
        hop = ledger.schedule.name(rows.hop[row])
        chosen = ledger.chosen(row, envelope)
        assert len(chosen) == rows.recipients[row]
        for one in chosen:
            assert one.id not in states, "a recipient queued twice"
            held, doomed = bool(rows.flags[row] & HELD), bool(rows.flags[row] & DOOMED)
            states[one.id] = State(hop, rows.attempts[row], rows.due[row], held, rows.priority[row], doomed)
    statistics = queue.statistics()
    assert statistics.messages == len(found.queued)
    assert statistics.queued == sum(len(one) for one in found.queued.values())
    assert {n: count for n, count in ledger.live.items() if count} == per_segment
    assert list(ledger.live) == sorted(ledger.live)
    return found


def alike(found: Model, wanted: Model) -> bool:
    same = found.queued == wanted.queued and found.suspended == wanted.suspended
    return same and all(found.contents[id] == wanted.contents[id] for id in found.queued)


def between(found: Model, life: Life) -> bool:
    """Nothing lost, nothing invented: all is as before the step under way, or as after it; of several messages
    that were on their way in, each for itself."""
    before, after = life.before.queued, life.after.queued
    if found.suspended not in (life.before.suspended, life.after.suspended):
        return False
    for id, states in life.unsure.items():
        if found.queued.pop(id, states) != states:
            return False
    if any(found.contents[id] != life.after.contents[id] for id in found.queued):
        return False
    if found.queued in (before, after):
        return True
    if life.each:
        return all(found.queued.get(id) in (before.get(id), after.get(id)) for id in before | after | found.queued)
    known = all(found.queued.get(id) == states for id, states in before.items())
    return known and all(after.get(id) == states for id, states in found.queued.items())
