"""lives of a queue, and what must be true after each of their steps

A life is a list of steps, done one after the other. `Model` says in plain
dictionaries what is queued; after a crash the queue must be as the model was
before the step that was under way, or as it would be after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio
from msgspec.structs import replace

from support.fake_files import FakeFiles
from support.queues import SMALL, queue_on, reporter
from tripost.queue.errors import SpoolError, SpoolUnsure
from tripost.queue.events import Event
from tripost.queue.manager import Queue
from tripost.queue.message import Deferred, Delivered, Envelope, Failed, News, Outcome, Recipient
from tripost.queue.values import Lease

EAGER = replace(SMALL, compact_ratio=0.0, compact_slack=1, probe_first=20.0)
EXPIRE = 1_000_000.0

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


@dataclass
class Model:
    """`queued`: message id → recipient id → state; `contents`, `envelopes` by message id; `suspended` next hops."""

    queued: dict[str, dict[int, State]] = field(default_factory=dict[str, dict[int, State]])
    contents: dict[str, bytes] = field(default_factory=dict[str, bytes])
    envelopes: dict[str, Envelope] = field(default_factory=dict[str, Envelope])
    suspended: frozenset[str] = frozenset()

    def copy(self) -> Model:
        queued = {id: dict(states) for id, states in self.queued.items()}
        return Model(queued, dict(self.contents), self.envelopes, self.suspended)

    def enter(self, envelope: Envelope, content: bytes) -> None:
        due = max(envelope.accepted, envelope.release)
        self.queued[envelope.id] = {one.id: State(one.next_hop, 0, due) for one in envelope.recipients}
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
                left[one.id] = State(state.hop, lease.attempt - 1, now, state.held)
            else:
                due = min(now + SMALL.retry.delay(lease.attempt, 0.5), max(lease.envelope.expires, now))
                left[one.id] = State(state.hop, lease.attempt, due, state.held)
        if not left:
            del self.queued[lease.envelope.id]
        if failed and lease.envelope.sender:
            header = self.contents[lease.envelope.id].partition(b"\r\n\r\n")[0]
            made = reporter(lease.envelope, [News(one, "failed", why) for one, why in failed], header)
            assert made is not None
            self.enter(*made)


@dataclass(frozen=True)
class Accept:
    hops: tuple[str, ...]
    size: int = 10
    priority: int = 0
    null: bool = False
    release: float = 0.0
    waiters: int = 1  # so many at once, each with a message of its own


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
class Hold:
    number: int
    held: bool


@dataclass(frozen=True)
class Suspend:
    """Or resume."""

    hop: str
    on: bool = True


@dataclass(frozen=True)
class Retry:
    """Everything that is deferred, now."""


Step = Retry | Accept | Work | Release | Sleep | Hold | Suspend


class Life:
    """`before` and `after`: the model on both sides of the step under way."""

    def __init__(self) -> None:
        self.before = Model()
        self.after = Model()
        self.unsure: dict[str, dict[int, State]] = {}  # whose client got no reply
        self.steps = 0
        self.each = False  # the step under way changes messages one by one

    async def live(self, files: FakeFiles, steps: list[Step], seen: list[Event] | None = None) -> None:
        async with queue_on(files, EAGER, seen) as queue:
            for step in steps:
                self.steps += 1
                self.each = isinstance(step, Retry)
                await self._step(queue, step)
                self.before = self.after.copy()

    async def _step(self, queue: Queue, step: Step) -> None:
        if isinstance(step, Accept):
            async with trio.open_nursery() as nursery:
                for n in range(step.waiters):
                    nursery.start_soon(self._accept, queue, step, f"m{self.steps}-{n}")
        elif isinstance(step, Work):
            await self._work(queue, step)
        elif isinstance(step, Release):
            for lease in await queue.claim(step.hop, 2):
                queue.release(lease)
        elif isinstance(step, Sleep):
            await trio.sleep(step.seconds)
        elif isinstance(step, Retry):
            await self._retry(queue)
        elif isinstance(step, Suspend):
            await self._suspend(queue, step)
        elif self.after.queued:
            await self._hold(queue, step)

    async def _accept(self, queue: Queue, step: Accept, id: str) -> None:
        now = queue._clock.now()
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
            assert not any(self.after.queued[lease.envelope.id][one.id].held for one in lease.recipients)
            assert all(self.after.queued[lease.envelope.id][one.id].hop == hop for one in lease.recipients)
            outcomes = {
                one.id: OUTCOMES[step.outcomes[n % len(step.outcomes)]] for n, one in enumerate(lease.recipients)
            }
            self.before = self.after.copy()
            self.after.settle(lease, outcomes, queue._clock.now())
            await queue.settle(lease, outcomes)

    async def _retry(self, queue: Queue) -> None:
        now, rows = queue._clock.now(), queue._ledger.rows
        for states in self.after.queued.values():
            for n, one in states.items():
                states[n] = State(one.hop, one.attempts, min(one.due, now), one.held)
        await queue.edit.retry({rows.place[row] for row in rows.live()})

    async def _suspend(self, queue: Queue, step: Suspend) -> None:
        others = self.after.suspended - {step.hop}
        self.after.suspended = others | {step.hop} if step.on else others
        await (queue.suspend(step.hop, reason="test") if step.on else queue.resume(step.hop))

    async def _hold(self, queue: Queue, step: Hold) -> None:
        rows = queue._ledger.rows
        ids = {(await queue._store.read(rows.place[row])).envelope.id: rows.place[row] for row in list(rows.live())}
        id = sorted(ids)[step.number % len(ids)]
        left = self.after.queued[id]
        self.after.queued[id] = {n: State(one.hop, one.attempts, one.due, step.held) for n, one in left.items()}
        await queue.edit.hold([ids[id]], step.held)


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
            states[one.id] = State(hop, rows.attempts[row], rows.due[row], bool(rows.flags[row] & 2))
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
