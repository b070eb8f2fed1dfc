"""no order of removals brings a settled message back"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tripost.queue.dropping import in_the_way, next_to_go


def test_the_rules_one_by_one() -> None:
    assert next_to_go({1: 0, 2: 0}, {}, (), 2) == 1
    assert next_to_go({1: 1, 2: 0, 3: 0}, {}, (), 3) is None  # what is old stays, and so what speaks of it
    assert next_to_go({1: 0, 2: 0, 3: 0}, {2: 1}, (), 3) == 2  # 1 may speak of 2
    assert next_to_go({1: 0, 2: 0, 3: 0}, {2: 1}, {2}, 3) is None
    assert next_to_go({1: 0, 2: 0}, {2: 1}, (), 1) is None  # the highest stays
    assert next_to_go({1: 1, 2: 1, 3: 0, 4: 0, 5: 0}, {2: 7, 3: 7, 4: 8}, (), 5) == 4  # 3 may void a part of 2
    assert in_the_way({3: 0, 4: 0}, {3}) == 3
    assert in_the_way({3: 0, 4: 0}, {4}) is None
    assert in_the_way({}, ()) is None


class World:
    """Segments as they are on the disk, what each says, and which numbers were ever used."""

    def __init__(self) -> None:
        self.live: dict[int, int] = {1: 0}
        self.others: dict[int, int] = {}
        self.growing: set[int] = set()
        self.active = 1  # the manager's
        self.of: dict[int, int] = {}  # writer → its segment
        self.holds: dict[int, set[int]] = {1: set()}  # segment → messages in it
        self.ends: dict[int, set[int]] = {1: set()}  # segment → messages whose end it tells
        self.queued: set[int] = set()
        self.used = {1}
        self.messages = 0

    def new(self, writer: int) -> None:
        number = max(self.live) + 1
        assert number not in self.used, "a number was used twice"
        self.used.add(number)
        self.live[number], self.holds[number], self.ends[number] = 0, set(), set()
        if writer:
            self.growing.discard(self.of.get(writer, 0))
            self.of[writer], self.others[number] = number, writer
            self.growing.add(number)
        else:
            self.active = number

    def accept(self, writer: int) -> None:
        if writer and self.of.get(writer) not in self.growing:
            self.new(writer)
        segment = self.of[writer] if writer else self.active
        self.messages += 1
        self.holds[segment].add(self.messages)
        self.live[segment] += 1
        self.queued.add(self.messages)

    def settle(self, which: int) -> None:
        if self.queued:
            message = sorted(self.queued)[which % len(self.queued)]
            self.queued.remove(message)
            self.ends[self.active].add(message)
            self.live[next(one for one, held in self.holds.items() if message in held)] -= 1

    def leave(self, writer: int) -> None:
        """The writer's death, or a segment that it was asked to leave."""
        self.growing.discard(self.of.get(writer, 0))

    def drop(self) -> None:
        while (number := next_to_go(self.live, self.others, self.growing, self.active)) is not None:
            del self.live[number], self.holds[number], self.ends[number]
            self.others.pop(number, None)
            self.check()

    def check(self) -> None:
        """What the files that are left say is what is queued."""
        told = set[int]().union(*self.holds.values()) - set[int]().union(*self.ends.values())
        assert told == self.queued


MOVES = st.lists(
    st.tuples(st.sampled_from(["accept", "settle", "settle", "new", "leave", "drop"]), st.integers(0, 3)), max_size=80
)


@given(MOVES)
def test_nothing_comes_back_and_no_number_is_used_twice(moves: list[tuple[str, int]]) -> None:
    world = World()
    for what, number in moves:
        if what == "drop":
            world.drop()
        else:
            getattr(world, what)(number)
        world.check()
    while world.queued:
        world.settle(0)
    for writer in (1, 2, 3):
        world.leave(writer)
    world.new(0)
    world.drop()
    assert list(world.live) == [world.active]
