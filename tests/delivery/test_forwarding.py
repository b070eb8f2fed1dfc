"""mail that an alias forwards to another host"""

from __future__ import annotations

import pathlib

import pytest
import trio
from trio.testing import MockClock

from support.fake_files import run_here
from support.lab import lab
from tripost.delivery.forwarding import marked, was_delivered_to
from tripost.queue import events
from tripost.queue.body import BodyReader

pytestmark = pytest.mark.usefixtures("processes")

ALIASES = {"out@truc.fr": ["away@machin.com", "fred@truc.fr"], "two@truc.fr": ["b@machin.com", "c@machin.com"]}


async def test_the_sender_is_kept_and_a_line_added(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, aliases=ALIASES) as one:
        await one.send("out@truc.fr", sender="ann@partner.test")
        await trio.sleep(1)
        assert [line for line in one.peer.lines if line.startswith(("MAIL", "RCPT"))] == [
            "MAIL FROM:<ann@partner.test>",
            "RCPT TO:<away@machin.com>",
        ]
        [message] = one.peer.messages
        assert message.startswith(b"Delivered-To: out@truc.fr\r\nReceived: ")
        [local] = one.mailbox("fred@truc.fr")
        assert "Delivered-To: out@" not in local
        assert one.queue.statistics().queued == 0


async def test_one_transaction_for_those_of_one_alias(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, aliases=ALIASES) as one:
        await one.talk(
            b"EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<two@truc.fr>\r\nRCPT TO:<plain@machin.com>\r\n"
            b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
        )
        await trio.sleep(1)
        marks = sorted(message.startswith(b"Delivered-To: two@truc.fr\r\n") for message in one.peer.messages)
        assert marks == [False, True]  # who was written to directly does not learn of the alias
        assert len([line for line in one.peer.lines if line.startswith("RCPT")]) == 3


async def test_circles_end_and_the_sender_is_told(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, aliases=ALIASES) as one:
        await one.talk(
            b"EHLO x\r\nMAIL FROM:<fred@truc.fr>\r\nRCPT TO:<out@truc.fr>\r\nDATA\r\n"
            b"Delivered-To: Out@truc.fr\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
        )
        await trio.sleep(1)
        assert one.peer.messages == []
        [failed] = one.events(events.Bounced)
        assert failed.recipient == "away@machin.com"
        assert failed.reply.startswith("554 5.4.6")
        assert len(one.mailbox("fred@truc.fr")) == 2  # the copy that went nowhere else, and the report


async def test_the_line_comes_first_whatever_is_asked_for() -> None:
    async def plain() -> BodyReader:
        return BodyReader(b"abc", None, 3, run_here)

    for step in (1, 7, 100):
        reader = await marked(plain, "a@b.c")()
        got = b""
        while part := await reader.read(step):
            got += part
        assert got == b"Delivered-To: a@b.c\r\nabc"
        assert reader.size == len(got)
        reader.close()


def test_only_the_header_counts() -> None:
    assert was_delivered_to("a@b.c", b"x: y\r\ndelivered-to: A@B.C\r\n\r\n")
    assert not was_delivered_to("a@b.c", b"x: y\r\n\r\nDelivered-To: a@b.c\r\n")
    assert not was_delivered_to("a@b.c", b"x: y\r\n Delivered-To: a@b.c\r\n\r\n")
    assert not was_delivered_to("a@b.c", b"Delivered-To: a@b.cc\r\n\r\n")
