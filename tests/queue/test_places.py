"""expiry, holds, suspensions, pauses, actions, limits and restarts in every combination

Every accepted recipient is in one place: in one row of the queue, which is in one chain, aside or leased; or it has
ended, once. None outlives its time without an explanation.
"""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from trio.testing import MockClock

from support.fake_files import FakeFiles
from support.queues import SMALL, queue_on, unseal
from tripost.queue.clock import Clock
from tripost.queue.events import Accepted, Bounced, Deleted, Event, Relayed
from tripost.queue.finding import HELD, Wanted
from tripost.queue.manager import Queue
from tripost.queue.message import Deferred, Delivered, Envelope, Failed, Outcome, Recipient
from tripost.queue.planning import Order
from tripost.queue.retry import Schedule
from tripost.queue.rows import ASIDE, GONE, LEASED, NIL, STOPPED

EXPIRE = 3000.0
SETTINGS = replace(SMALL, retry=Schedule(longest=1000.0), compact_ratio=0.0, compact_slack=1, probe_first=20.0)
HOPS = ("mx:a", "mx:b")
OUTCOMES: dict[str, Outcome] = {
    "ok": Delivered("relayed", "250 ok", "h"),
    "no": Failed(550, "5.1.1", "no such user"),
    "later": Deferred(451, "4.3.0", "wait"),
    "down": Deferred(451, "4.4.1", "no answer", destination=True),
}
hop = st.sampled_from(HOPS)
STEP = st.one_of(
    st.tuples(st.just("accept"), st.lists(hop, min_size=1, max_size=3), st.integers(-1, 1)),
    st.tuples(st.just("work"), hop, st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=2)),
    st.tuples(st.just("lease"), hop, st.integers(1, 2)),
    st.tuples(st.just("return"), st.booleans()),
    st.tuples(
        st.just("act"), st.sampled_from(["hold", "release", "retry", "bounce", "delete", "expire"]), st.booleans()
    ),
    st.tuples(st.just("act"), st.sampled_from(["reroute", "priority"]), st.booleans()),
    st.tuples(st.just("undo")),
    st.tuples(st.just("suspend"), hop, st.sampled_from([0.0, 500.0])),
    st.tuples(st.just("resume"), hop),
    st.tuples(st.just("pause"), st.sampled_from(["s0@x.example", "s?@x.example"]), st.sampled_from([0.0, 500.0])),
    st.tuples(st.just("unpause"), st.sampled_from(["s0@x.example", "s?@x.example"])),
    st.tuples(st.just("sleep"), st.sampled_from([1.0, 130.0, 900.0, 4000.0])),
    st.tuples(st.just("restart"), st.booleans()),
)


class World:
    """A queue over its restarts, and what became of everything that it took."""

    def __init__(self) -> None:
        self.files = FakeFiles()
        self.wall = 1_800_000_000.0
        self.seen: list[Event] = []
        self.count = 0
        self.leases: list[object] = []

    async def live(self, steps: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
        """Until the next restart; the steps that are left."""
        async with (
            queue_on(self.files, SETTINGS, self.seen, clock=Clock(lambda: self.wall)) as queue,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._dispatch, queue)
            self.check(queue)
            for number, step in enumerate(steps):
                if step[0] == "restart":
                    self.leases.clear()
                    self.wall = queue._clock.now()
                    nursery.cancel_scope.cancel()
                    return steps[number + 1 :]
                await getattr(self, str(step[0]))(queue, *step[1:])
                self.check(queue)
            await self.outlive(queue)
            nursery.cancel_scope.cancel()
        return []

    async def _dispatch(self, queue: Queue) -> None:
        while True:
            await queue.wait_ready()
            while queue.next_ready() is not None:
                pass

    # --- steps ---

    async def accept(self, queue: Queue, hops: list[str], priority: int) -> None:
        self.count += 1
        people = tuple(Recipient(n, f"u{n}@m{self.count}.example", one) for n, one in enumerate(hops))
        now, content = queue._clock.now(), b"Subject: x\r\n\r\n" + b"x" * 90 * (self.count % 4)
        sender = f"s{self.count % 2}@x.example"
        envelope = Envelope(f"M{self.count}", sender, people, now, now + EXPIRE, len(content), priority=priority)
        body = queue.new_body()
        await body.write(content)
        await queue.accept(envelope, body)

    async def work(self, queue: Queue, name: str, outcomes: list[str]) -> None:
        for lease in await queue.claim(name, 3):
            await queue.settle(
                lease, {one.id: OUTCOMES[outcomes[n % len(outcomes)]] for n, one in enumerate(lease.recipients)}
            )

    async def lease(self, queue: Queue, name: str, most: int) -> None:
        self.leases += await queue.claim(name, most)

    async def give_back(self, queue: Queue, settle: bool) -> None:
        for lease in self.leases:
            if settle:
                await queue.settle(lease, {})  # type: ignore[arg-type]  # a lease
            else:
                queue.release(lease)  # type: ignore[arg-type]
        self.leases.clear()

    async def act(self, queue: Queue, verb: str, part: bool) -> None:
        order = Order(verb=verb, who="op", to="1" if verb == "priority" else "mx:b", way=lambda *_: "mx:b", grace=100.0)
        await queue.edit.act(order, Wanted(recipient="u0@*") if part else Wanted(id=f"M{self.count}"))

    async def undo(self, queue: Queue) -> None:
        try:
            await queue.edit.undo("op")
        except ValueError:
            pass  # nothing that can be undone

    async def suspend(self, queue: Queue, name: str, seconds: float) -> None:
        await queue.suspend(name, queue._clock.now() + seconds if seconds else 0.0, "because")

    async def resume(self, queue: Queue, name: str) -> None:
        await queue.resume(name)

    async def pause(self, queue: Queue, what: str, seconds: float) -> None:
        await queue.pause("sender", what, queue._clock.now() + seconds if seconds else 0.0, "because")

    async def unpause(self, queue: Queue, what: str) -> None:
        await queue.unpause(("sender", what))

    async def sleep(self, queue: Queue, seconds: float) -> None:
        await trio.sleep(seconds)

    # --- what is true ---

    def check(self, queue: Queue) -> None:
        self._in_one_chain(queue)
        ended, taken = self._ended(), self._taken()
        assert len(ended) == len(set(ended)), "ended twice"
        queued = queue.statistics().queued
        assert len(taken) == len(ended) + queued, (len(taken), len(ended), queued)

    def _taken(self) -> list[tuple[str, str]]:
        return [(one.id, who) for one in self.seen if isinstance(one, Accepted) for who in one.recipients]

    def _ended(self) -> list[tuple[str, str]]:
        return [(one.id, one.recipient) for one in self.seen if isinstance(one, Relayed | Bounced | Deleted)]

    def _in_one_chain(self, queue: Queue) -> None:
        rows, schedule = queue._ledger.rows, queue._schedule
        places: dict[int, int] = {}
        for name in list(schedule._numbers):
            number = schedule._numbers[name]
            due = list(schedule.due_rows(number)) if schedule.waiting(number) else []
            assert len(due) == schedule.waiting(number)
            assert all(rows.hop[row] == number for row in due)
            for row in due:
                places[row] = places.get(row, 0) + 1
        for first in schedule._calendar.values():
            row = first
            while row != NIL:
                places[row] = places.get(row, 0) + 1
                row = rows.after[row]
        for row, flags in enumerate(rows.flags):
            if not flags & GONE:
                outside = bool(flags & ASIDE) + bool(flags & LEASED)
                assert places.get(row, 0) + outside == 1, (row, flags, places.get(row, 0))
                assert not flags & ASIDE or flags & STOPPED

    async def outlive(self, queue: Queue) -> None:
        """After everything's time, and one try of each next hop, only what an operator holds is left."""
        await self.give_back(queue, True)
        for _ in range(2):
            for name in HOPS:
                await queue.resume(name)
                queue.probe(name)
                await self.work(queue, name, ["later"])
            await trio.sleep(EXPIRE + 1500)
            self.check(queue)
        for message in [one async for one in queue.search.find(Wanted())]:
            if message.id.startswith("M"):
                assert {each.state for each in message.deliveries} == {HELD}, message


@given(st.lists(STEP, min_size=1, max_size=14))
def test_nothing_is_in_no_place_or_in_two(steps: list[tuple[object, ...]]) -> None:
    named = [("give_back", *step[1:]) if step[0] == "return" else step for step in steps]

    async def live() -> None:
        world, left = World(), named
        while left:
            unsealed = len(left) % 2 == 0
            left = await world.live(left)
            if unsealed:
                unseal(world.files)
            world.files.crash(lambda durable, now: now)

    trio.run(live, clock=MockClock(autojump_threshold=0))
