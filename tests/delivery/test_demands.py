"""what a message asks of a host: parameters, failures, chunks and LIMITS"""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from support.lab import Lab, lab
from support.queues import put
from tripost.delivery.demands import Content, Host, Plan, limits, needs_look, plan
from tripost.queue import events
from tripost.queue.message import Deferred, Envelope, Failed, Recipient

pytestmark = pytest.mark.usefixtures("processes")

NOW = 1000.0
ALL = {
    "SIZE": "5000",
    "8BITMIME": "",
    "SMTPUTF8": "",
    "CHUNKING": "",
    "BINARYMIME": "",
    "DSN": "",
    "REQUIRETLS": "",
    "DELIVERBY": "30",
    "MT-PRIORITY": "",
}
RCPT = Recipient(0, "marc@machin.com", "mx:machin.com")
PLAIN = Envelope("I", "fred@truc.fr", (RCPT,), 0.0, 9e9, 100)


def _plan(offers: dict[str, str], content: Content | None = None, *, verified: bool = False, **more: Any) -> Any:
    envelope = replace(PLAIN, **more)
    return plan(envelope, envelope.recipients, Host(offers, "mx", verified), content or Content(100), NOW)


@pytest.mark.parametrize(
    ("more", "mail"),
    [
        ({}, b"MAIL FROM:<fred@truc.fr> SIZE=100"),
        ({"eight_bit": True}, b"MAIL FROM:<fred@truc.fr> SIZE=100 BODY=8BITMIME"),
        ({"binary": True}, b"MAIL FROM:<fred@truc.fr> SIZE=100 BODY=BINARYMIME"),
        ({"smtputf8": True}, b"MAIL FROM:<fred@truc.fr> SIZE=100 SMTPUTF8"),
        ({"require_tls": True}, b"MAIL FROM:<fred@truc.fr> SIZE=100 REQUIRETLS"),
        ({"deliver_by": 1090.0, "by_mode": "RT"}, b"MAIL FROM:<fred@truc.fr> SIZE=100 BY=90;RT"),
        ({"deliver_by": 990.0, "by_mode": "N"}, b"MAIL FROM:<fred@truc.fr> SIZE=100 BY=-10;N"),
        ({"ret": "HDRS", "envid": "q+2B1"}, b"MAIL FROM:<fred@truc.fr> SIZE=100 RET=HDRS ENVID=q+2B1"),
        ({"priority": -3}, b"MAIL FROM:<fred@truc.fr> SIZE=100 MT-PRIORITY=-3"),
    ],
)
def test_what_the_host_offers_is_passed_on(more: dict[str, Any], mail: bytes) -> None:
    answer = _plan(ALL, verified=True, **more)
    assert isinstance(answer, Plan)
    assert answer.mail == mail
    assert answer.chunking


@pytest.mark.parametrize(
    ("more", "content", "enhanced"),
    [
        ({"eight_bit": True}, Content(100, ascii=False), "5.6.3"),
        ({"binary": True}, Content(100), "5.6.3"),
        ({"smtputf8": True}, Content(100, ascii_header=False), "5.6.7"),
        ({"sender": "frédéric@truc.fr"}, Content(100), "5.6.7"),
        ({"require_tls": True}, Content(100), "5.7.30"),
        ({"deliver_by": 1090.0, "by_mode": "R"}, Content(100), "5.3.3"),
        ({"deliver_by": 999.0, "by_mode": "R"}, Content(100), "5.4.7"),
    ],
)
def test_what_the_host_lacks_is_a_failure_that_says_so(more: dict[str, Any], content: Content, enhanced: str) -> None:
    answer = _plan({}, content, **more)
    assert isinstance(answer, Failed)
    assert (answer.enhanced, answer.host) == (enhanced, "mx")


def test_what_is_not_really_needed_is_left_out() -> None:
    for more in ({"eight_bit": True}, {"smtputf8": True}, {"deliver_by": 1090.0, "by_mode": "N"}, {"priority": 4}):
        answer = _plan({}, **more)
        assert isinstance(answer, Plan)
        assert answer.mail == b"MAIL FROM:<fred@truc.fr>"


def test_limits_in_time_size_and_trust() -> None:
    late = _plan(ALL, deliver_by=1020.0, by_mode="R")
    assert isinstance(late, Failed)
    assert late.enhanced == "5.4.7"
    large = _plan(ALL, Content(5001))
    assert isinstance(large, Failed)
    assert large.enhanced == "5.3.4"
    assert isinstance(_plan(ALL, require_tls=True), Deferred)


def test_reports_are_asked_of_the_host_only_where_it_can() -> None:
    some = (replace(RCPT, notify=1 | 2, orcpt="rfc822;m@x"), replace(RCPT, id=1, notify=8))
    answer = _plan({"DSN": ""}, recipients=some)
    assert [line for _, line in answer.rcpts] == [
        b"RCPT TO:<marc@machin.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;m@x",
        b"RCPT TO:<marc@machin.com> NOTIFY=NEVER",
    ]
    assert answer.dsn
    bare = _plan({}, recipients=some, ret="FULL", envid="x")
    assert (bare.mail, bare.dsn) == (b"MAIL FROM:<fred@truc.fr>", False)
    assert {line for _, line in bare.rcpts} == {b"RCPT TO:<marc@machin.com>"}


def test_the_content_is_looked_at_only_where_it_matters() -> None:
    assert not needs_look(replace(PLAIN, eight_bit=True, smtputf8=True), ALL)
    assert needs_look(replace(PLAIN, eight_bit=True), {})
    assert not needs_look(PLAIN, {})


def test_limits_that_are_no_numbers_are_not_there() -> None:
    assert limits({"LIMITS": "RCPTMAX=20 MAILMAX=x FOO rcptdomainmax=0"}) == {"RCPTMAX": 20}


CHUNKS = "250-peer\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 LIMITS RCPTMAX=2 MAILMAX=2"


async def _done(one: Lab) -> None:
    with trio.fail_after(60):
        while one.queue.statistics().queued:  # noqa: ASYNC110 - asks from outside
            await trio.sleep(0.01)


async def test_chunks_carry_the_content_without_added_dots(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, answers={"EHLO": CHUNKS}) as one:
        await one.send("marc@machin.com", text="..x\r\n\r\n...y" + "z" * 200)
        await _done(one)
        (content,) = one.peer.messages
        assert b"\r\n\r\n..yz" in content  # the client's own stuffing is gone, none is added
        assert "DATA" not in one.peer.lines
        assert f"BDAT {len(content)} LAST" in one.peer.lines


async def test_nothing_is_sent_when_no_recipient_is_taken(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, answers={"EHLO": CHUNKS, "RCPT": "550 5.1.1 nobody"}) as one:
        await put(one.queue, "large", "mx:machin.com", content=b"Subject: x\r\n\r\n" + b"y" * 70_000, accepted=1.8e9)
        await _done(one)
        assert not one.peer.messages
        assert one.events(events.Bounced)[0].reply == "550 5.1.1 nobody"


async def test_a_small_message_goes_out_in_one_piece(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    """Whoever has no recipient for it refuses it, and the connection is as good as before."""
    refused = {"RCPT": "550 5.1.1 nobody", "BDAT": "503 5.5.1 no recipients"}
    async with lab(tmp_path, answers={"EHLO": CHUNKS} | refused) as one:
        await one.send("marc@machin.com")
        await _done(one)
        assert one.events(events.Bounced)[0].reply == "550 5.1.1 nobody"
        one.peer.answers |= {"RCPT": "250 ok", "BDAT": "250 2.0.0 taken"}
        await one.send("marc@machin.com")
        await _done(one)
        assert one.events(events.Relayed)[0].reply == "250 2.0.0 taken"
        assert one.peer.connections == 1
        assert "RSET" not in one.peer.lines


async def test_the_hosts_limits_are_kept(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, answers={"EHLO": CHUNKS}) as one:
        rcpts = "".join(f"RCPT TO:<u{n}@machin.com>\r\n" for n in range(7))
        await one.talk(f"EHLO x\r\nMAIL FROM:<fred@truc.fr>\r\n{rcpts}DATA\r\nhi\r\n.\r\nQUIT\r\n".encode())
        await _done(one)
        sizes = [len(part.split("RCPT")) - 1 for part in "\n".join(one.peer.lines).split("MAIL")[1:]]
        assert sizes == [2, 2, 2, 1]
        assert one.peer.connections == 2
        assert not one.events(events.BackedOff)


async def test_a_connection_lost_between_batches_repeats_none(
    autojump_clock: MockClock, tmp_path: pathlib.Path
) -> None:
    mails = 0

    def mail(line: str) -> str:
        nonlocal mails
        mails += 1
        return "" if mails == 2 else "250 ok"

    many = CHUNKS.replace(" MAILMAX=2", "")
    async with lab(tmp_path, answers={"EHLO": many, "MAIL": mail}) as one:
        rcpts = "".join(f"RCPT TO:<u{n}@machin.com>\r\n" for n in range(4))
        await one.talk(f"EHLO x\r\nMAIL FROM:<fred@truc.fr>\r\n{rcpts}DATA\r\nhi\r\n.\r\nQUIT\r\n".encode())
        await _done(one)
        assert sorted(row.recipient for row in one.events(events.Relayed)) == [f"u{n}@machin.com" for n in range(4)]
        assert len(one.peer.messages) == 2
