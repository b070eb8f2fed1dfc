"""whatever is done to a queue, it does what a dictionary would, and finds the same when it is opened again"""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from support.fake_files import FakeFiles
from support.life import EAGER, Accept, Act, Life, Release, Sleep, Step, Undo, Work, alike, queued
from support.queues import queue_on, unseal
from tripost.queue.clock import Clock

HOPS = st.sampled_from(["mx:a", "mx:b", "local"])
ACCEPT = st.builds(
    Accept,
    st.lists(HOPS, min_size=1, max_size=4).map(tuple),
    size=st.sampled_from([0, 50, 3000]),
    priority=st.integers(-2, 2),
    null=st.booleans(),
    release=st.sampled_from([0.0, 0.0, 100.0]),
    waiters=st.integers(1, 3),
)
WORK = st.builds(
    Work,
    st.just("") | HOPS,
    st.lists(st.sampled_from(["ok", "no", "later", "down"]), min_size=1, max_size=3).map(tuple),
    st.integers(1, 5),
)
ACT = st.one_of(
    st.builds(Act, st.sampled_from(["hold", "release", "retry", "delete"]), st.integers(0, 9), part=st.booleans()),
    st.builds(Act, st.just("reroute"), st.integers(0, 9), HOPS, st.booleans()),
    st.builds(Act, st.just("priority"), st.integers(0, 9), st.sampled_from(["-2", "3"]), st.booleans()),
)
STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(Accept, st.tuples(HOPS)),
    ACCEPT,
    WORK,
    WORK,
    st.builds(Release, HOPS),
    st.builds(Sleep, st.sampled_from([0.1, 15.0, 400.0, 9000.0])),
    ACT,
    ACT,
    st.builds(Undo),
)
LIVES = st.lists(st.lists(STEPS, min_size=1, max_size=12), min_size=1, max_size=4)


async def _several(lives: list[list[Step]], sealed: list[bool]) -> None:
    files, life = FakeFiles(), Life()
    for steps, keep_index in zip(lives, sealed, strict=True):
        await life.live(files, steps)
        if not keep_index:
            unseal(files)
        files.crash(lambda durable, now: now)
        async with queue_on(files, EAGER, clock=Clock(lambda: life.wall)) as queue:
            assert alike(await queued(queue), life.after)


@given(st.data(), LIVES)
def test_a_queue_is_what_a_dictionary_would_be(data: st.DataObject, lives: list[list[Step]]) -> None:
    sealed = data.draw(st.lists(st.booleans(), min_size=len(lives), max_size=len(lives)))
    trio.run(_several, lives, sealed, clock=MockClock(autojump_threshold=0))
