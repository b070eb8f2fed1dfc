"""what the sender is told, and when: NOTIFY, delays, success, over restarts"""

from __future__ import annotations

import pathlib
import random
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from support.fake_files import FakeFiles
from support.lab import Lab, lab
from support.queues import EXPIRE, SMALL
from tripost.queue import events
from tripost.queue.message import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    Envelope,
    Recipient,
)

HOUR, DAY = 3600.0, 86_400.0
SETTINGS = replace(SMALL, warn=4 * HOUR)


CONTENT = b"Subject: told\r\n\r\nhi\r\n"


async def _put(
    one: Lab, *people: Recipient, sender: str = "fred@truc.fr", content: bytes = CONTENT, **more: Any
) -> None:
    body = one.queue.new_body()
    await body.write(content)
    now = one.clock.now()
    envelope = Envelope(one.queue.new_id(), sender, people, now, now + EXPIRE, len(content), **more)
    await one.queue.accept(envelope, body)


def _person(id: int, address: str, notify: int = 0) -> Recipient:
    return Recipient(id, address, f"mx:{address.partition('@')[2]}", notify)


def _subjects(one: Lab) -> list[str]:
    return [
        next(line for line in text.splitlines() if line.startswith("Subject:")) for text in one.mailbox("fred@truc.fr")
    ]


@pytest.mark.parametrize(
    ("notify", "told"),
    [
        (0, True),
        (NOTIFY_FAILURE, True),
        (NOTIFY_FAILURE | NOTIFY_SUCCESS, True),
        (NOTIFY_NEVER, False),
        (NOTIFY_SUCCESS, False),
        (NOTIFY_DELAY, False),
    ],
)
async def test_failures_are_told_as_asked(
    autojump_clock: MockClock, tmp_path: pathlib.Path, notify: int, told: bool
) -> None:
    async with lab(tmp_path, answers={"RCPT": "550 5.1.1 nobody"}) as one:
        await _put(one, _person(0, "a@far.example", notify))
        await trio.sleep(5)
        assert len(one.mailbox("fred@truc.fr")) == told
        statistics = one.queue.statistics()
        assert (statistics.reported, statistics.suppressed, statistics.queued) == (told, not told, 0)
        assert bool(one.events(events.Bounced)[0].report) == told


@pytest.mark.parametrize("dsn", [True, False])
async def test_success_is_told_where_the_host_does_not(
    autojump_clock: MockClock, tmp_path: pathlib.Path, dsn: bool
) -> None:
    async with lab(tmp_path, answers={"EHLO": "250-peer\r\n250 DSN" if dsn else "250 peer"}) as one:
        await _put(one, _person(0, "a@far.example", NOTIFY_SUCCESS), _person(1, "b@far.example", NOTIFY_FAILURE))
        await trio.sleep(5)
        reports = one.mailbox("fred@truc.fr")
        assert len(reports) == (not dsn)
        if reports:
            assert "Action: relayed" in reports[0]
            assert "a@far.example" in reports[0]
            assert "b@far.example" not in reports[0]
        assert any("NOTIFY=SUCCESS" in line for line in one.peer.lines) == dsn


async def test_local_success(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path) as one:
        await _put(one, Recipient(0, "post@truc.fr", "local", NOTIFY_SUCCESS))
        await trio.sleep(5)
        (report,) = one.mailbox("fred@truc.fr")
        assert "Action: delivered" in report
        assert "Subject: Mail was delivered" in report


@pytest.mark.parametrize("how", ["message", "destination", "suspended"])
async def test_one_warning_and_one_failure_in_five_days(
    autojump_clock: MockClock, tmp_path: pathlib.Path, how: str
) -> None:
    """Of a message that gets 4xx; of fifty behind a host that is down, or suspended, that are not tried at all."""
    async with lab(tmp_path, settings=SETTINGS, answers={"RCPT": "451 4.2.1 later"}) as one:
        one.peer.refused = how == "destination"
        if how == "suspended":
            await one.queue.suspend("mx:far.example", reason="closed")
        count = 1 if how == "message" else 50
        for _ in range(count):
            await _put(one, _person(0, "a@far.example"))
        await _put(one, _person(0, "a@far.example", NOTIFY_NEVER))
        await trio.sleep(4 * HOUR - 60)
        assert _subjects(one) == []
        await trio.sleep(4 * HOUR + 120)
        assert _subjects(one) == ["Subject: Mail is delayed"] * count
        text = one.mailbox("fred@truc.fr")[0]
        assert "Action: delayed" in text
        assert "Will-Retry-Until" in text
        await trio.sleep(4.5 * DAY)
        assert _subjects(one) == ["Subject: Mail is delayed"] * count
        await trio.sleep(DAY)
        assert sorted(_subjects(one)) == ["Subject: Mail is delayed"] * count + ["Subject: Undelivered mail"] * count
        assert one.queue.statistics().queued == 0


async def test_a_warning_is_remembered(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    files = FakeFiles()
    for start in range(6):
        now = 1_800_000_000.0 + trio.current_time()
        async with lab(tmp_path, files=files, settings=SETTINGS, answers={"RCPT": "451 4.2.1 later"}, begin=now) as one:
            if not start:
                for _ in range(3):
                    await _put(one, _person(0, "a@far.example"), _person(1, "b@far.example"))
            await trio.sleep(6 * HOUR)
            assert _subjects(one) == ["Subject: Mail is delayed"] * 3
            assert {row.attempt for row in one.events(events.DeferredUntil)} <= set(range(60))


async def test_attempts_of_one_outage_follow_the_schedule(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    """A host that is down for five days: one probe at a time, ever less often, whatever waits."""
    async with lab(tmp_path, settings=SETTINGS, random=random.Random(8).random) as one:
        one.peer.refused = True
        for _ in range(200):
            await _put(one, _person(0, "a@far.example"))
        await trio.sleep(6 * DAY)
        backoffs = one.events(events.BackedOff)
        plain = [min(1800.0, 60.0 * 2**n) for n in range(len(backoffs))]
        ratios = [row.delay / expected for row, expected in zip(backoffs, plain, strict=True)]
        assert all(0.79 <= one <= 1.21 for one in ratios)
        assert len({round(one, 3) for one in ratios}) > 50  # jittered
        assert len(backoffs) < 5 * DAY / 1800 * 1.3 + 10
        assert len(one.peer.addresses) <= len(backoffs) + 2
        failed = one.events(events.Bounced)
        assert len(failed) == 200
        assert all(row.time <= 1_800_000_000.0 + 5 * DAY + 400 for row in failed)


@pytest.mark.parametrize("eight_bit_host", [True, False])
async def test_a_full_report_of_eight_bits(
    autojump_clock: MockClock, tmp_path: pathlib.Path, eight_bit_host: bool
) -> None:
    """Where the way back takes 7 bits only, the report comes with the header alone, rather than not at all."""
    hello = "250-peer\r\n250-8BITMIME\r\n250 PIPELINING" if eight_bit_host else "250 peer"
    rcpt = {"RCPT": lambda line: "550 5.1.1 nobody" if "<x@" in line else "250 ok"}
    content = b"Subject: told\r\nX-Long: " + b"y" * 990 + b"\r\n\r\n" + b"caf\xe9\r\n" * 20_000
    settings = replace(SETTINGS, most_original=1 << 20)
    async with lab(tmp_path, settings=settings, answers={"EHLO": hello, **rcpt}) as one:
        await _put(
            one, _person(0, "x@far.example"), sender="u@away.example", content=content, eight_bit=True, ret="FULL"
        )
        await trio.sleep(5)
        report = one.peer.messages[-1]
        assert b"Final-Recipient: rfc822; x@far.example" in report
        assert (content in report + b"\r\n") is eight_bit_host
        if not eight_bit_host:
            assert report.isascii()
            assert b"Content-Type: text/rfc822-headers; charset=us-ascii\r\n\r\nSubject: told\r\nX-Long: yy" in report
            assert report.count(b"\r\n--=_") == 4
            assert report.endswith(b"--\r\n")
        assert one.queue.statistics().queued == 0
        assert not one.mailbox("post@truc.fr")
