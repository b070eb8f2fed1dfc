"""451 for five days: tried less and less often, then the sender is told, once"""

from __future__ import annotations

import pathlib
import random

import pytest
import trio
from trio.testing import MockClock

from support.lab import lab
from tripost.queue import events

DAY = 86_400.0


async def test_five_days_of_451_then_a_report(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    answers = {"RCPT": "451 4.2.1 come back later"}
    async with lab(tmp_path, answers=answers, random=random.Random(5).random) as one:
        await one.send("marc@machin.com", text="five days")
        start = trio.current_time()
        while not one.mailbox("fred@truc.fr"):
            assert trio.current_time() - start < 6 * DAY
            await trio.sleep(600)
        deferred = one.events(events.DeferredUntil)
        delays = [row.delay for row in deferred]
        assert [row.attempt for row in deferred] == list(range(1, len(delays) + 1))
        plain = [min(14_400.0, 300.0 * 2**n) for n in range(len(delays) - 1)]
        assert len(delays) > 30
        assert all(0.8 <= delay / one <= 1.2 for delay, one in zip(delays, plain, strict=False))
        assert len({round(delay / one, 3) for delay, one in zip(delays, plain, strict=False)}) > 20  # jittered
        assert all("451 4.2.1 come back later" in row.reply for row in deferred)
        (failed,) = one.events(events.Bounced)
        assert failed.time - one.events(events.Accepted)[0].time == pytest.approx(5 * DAY, abs=60)
        assert failed.report
        (report,) = one.mailbox("fred@truc.fr")
        assert "Return-Path: <>" in report
        assert "Status: 4.4.7" in report
        assert "Final-Recipient: rfc822; marc@machin.com" in report
        assert "come back later" in report
        assert "Subject: five days" in report
        await trio.sleep(DAY)
        assert one.queue.statistics().queued == 0
        assert len(one.mailbox("fred@truc.fr")) == 1


async def test_no_report_about_a_report(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, answers={"RCPT": "550 5.1.1 nobody"}) as one:
        await one.send("marc@machin.com", sender="gone@far.example")  # its report cannot be delivered either
        await one.send("marc@machin.com", sender="")
        await trio.sleep(DAY)
        failed = one.events(events.Bounced)
        assert sorted(bool(row.report) for row in failed) == [False, False, True]
        statistics = one.queue.statistics()
        assert (statistics.queued, statistics.reported, statistics.suppressed) == (0, 1, 2)
        assert one.mailbox("post@truc.fr") == []


@pytest.mark.parametrize("unit", [0.0, 0.25, 0.999])
def test_delays_are_jittered(unit: float) -> None:
    from tripost.queue.retry import Schedule

    plain = [min(14_400.0, 300.0 * 2**n) for n in range(12)]
    got = [Schedule().delay(n, unit) for n in range(1, 13)]
    assert got == pytest.approx([one * (0.8 + 0.4 * unit) for one in plain])
    assert Schedule(schedule=(60.0, 120.0)).delay(9, 0.5) == 120.0
