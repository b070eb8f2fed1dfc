"""who takes no mail: asked once, kept for its time, waited for shortly"""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tripost.delivery import null_mx
from tripost.delivery.null_mx import ASKING, PATIENCE, REST, UNSURE, NullMx


async def test_asked_once_and_kept(autojump_clock: MockClock) -> None:
    asked: list[str] = []

    async def ask(domain: str) -> tuple[bool, float]:
        asked.append(domain)
        await trio.sleep(0.5)
        return domain == "null.example", 100.0

    made, answers = NullMx(ask, trio.current_time), list[bool]()

    async def one(domain: str) -> None:
        answers.append(await made(domain))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(one, "null.example")
    assert answers == [True] * 50
    assert not await made("good.example")
    await trio.sleep(99)
    assert await made("null.example")
    assert asked == ["null.example", "good.example"]
    await trio.sleep(2)
    assert await made("null.example")
    assert asked[2:] == ["null.example"]
    for n in range(null_mx.MOST + 5):
        made._keep(f"d{n}", False, 1.0)
    assert len(made._known) == null_mx.MOST


async def test_who_does_not_answer_is_taken_to_take_mail(autojump_clock: MockClock) -> None:
    times: list[float] = []

    async def ask(domain: str) -> tuple[bool, float]:
        times.append(trio.current_time())
        await trio.sleep(20)
        return True, 100.0

    made = NullMx(ask, trio.current_time)
    for _ in range(3):
        start = trio.current_time()
        assert not await made("slow.example")
        assert trio.current_time() - start <= PATIENCE
    assert len(times) == 1
    await trio.sleep(UNSURE)
    assert not await made("slow.example")
    assert len(times) == 2


async def test_silence_is_waited_for_once(autojump_clock: MockClock) -> None:
    asked: list[str] = []

    async def ask(domain: str) -> tuple[bool, float]:
        asked.append(domain)
        await trio.sleep(20.0 if domain != "null.example" else 0.0)
        return True, 100.0

    made, start = NullMx(ask, trio.current_time), trio.current_time()
    assert await made("null.example")
    for n in range(1000):
        assert not await made(f"d{n}.example")
    assert trio.current_time() - start == PATIENCE
    assert asked == ["null.example", "d0.example"]
    assert await made("null.example")  # what is known is known
    await trio.sleep(REST)
    assert not await made("d1.example")
    assert asked[2:] == ["d1.example"]


async def test_so_many_questions_at_a_time(autojump_clock: MockClock) -> None:
    asked: list[str] = []

    async def ask(domain: str) -> tuple[bool, float]:
        asked.append(domain)
        await trio.sleep(PATIENCE / 2)
        return False, 100.0

    made = NullMx(ask, trio.current_time)
    async with trio.open_nursery() as nursery:
        for n in range(ASKING + 50):
            nursery.start_soon(made, f"d{n}.example")
    assert len(asked) == ASKING
