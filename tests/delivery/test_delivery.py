"""workers, connections and what replies mean, against a peer in memory"""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from support.lab import Lab, lab
from tripost.delivery.links import Unroutable
from tripost.delivery.settings import DeliverySettings, Destination
from tripost.queue import events

pytestmark = pytest.mark.usefixtures("processes")

SETTINGS = DeliverySettings(
    hostname="smtp.truc.fr", default=Destination(connections=3, messages_per_connection=4, idle=5.0)
)


async def _settled(one: Lab, patience: float = 30.0) -> None:
    end = trio.current_time() + patience
    while one.queue.statistics().queued and trio.current_time() < end:  # noqa: ASYNC110 - asks from outside
        await trio.sleep(0.01)


async def test_relayed_with_dots_and_reply(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, answers={".": "250 2.0.0 taken as 42"}) as one:
        await one.send("marc@machin.com", text="..leading dots")
        await _settled(one)
        (content,) = one.peer.messages
        assert content.endswith(b"Subject: ..leading dots\r\n\r\n..leading dots\r\n")  # ours was unstuffed, theirs is
        (relayed,) = one.events(events.Relayed)
        assert (relayed.host, relayed.reply) == ("mx.machin.com", "250 2.0.0 taken as 42")
        assert one.events(events.Resolved)[0].hosts == ["mx.machin.com"]


async def test_connections_are_reused_and_renewed(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    one_slot = DeliverySettings(hostname="x", default=Destination(connections=1, messages_per_connection=4))
    async with lab(tmp_path, delivery=one_slot) as one:
        for n in range(9):
            await one.send(f"u{n}@machin.com")
        await _settled(one)
        assert len(one.peer.messages) == 9
        assert one.peer.connections == 3
        await trio.sleep(10)
        assert one.peer.open == 0
        assert one.peer.lines.count("QUIT") == 3


async def test_never_more_connections_than_allowed(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, delivery=SETTINGS) as one:
        one.peer.refused = True
        for n in range(30):
            await one.send(f"u{n}@machin.com")
        one.peer.refused = False
        await _settled(one, 300)
        assert len(one.peer.messages) == 30
        assert 1 <= one.peer.most_open <= 3


async def test_an_idle_connection_takes_the_next_message(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path) as one:
        await one.send("a@machin.com")
        await _settled(one)
        await trio.sleep(2)
        await one.send("b@machin.com")
        await _settled(one)
        assert one.peer.connections == 1


async def test_a_stale_connection_is_not_a_failure(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path) as one:
        await one.send("a@machin.com")
        await _settled(one)
        first = True

        def mail(line: str) -> str:
            nonlocal first
            was, first = first, False
            return "" if was else "250 ok"  # the peer closes the idle connection as we speak

        one.peer.answers["MAIL"] = mail
        await one.send("b@machin.com")
        await _settled(one, 5)
        assert len(one.peer.messages) == 2
        assert not one.events(events.BackedOff)


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ({"RCPT": "550 5.1.1 nobody"}, "550 5.1.1 nobody"),
        ({"MAIL": "553 no such sender"}, "553 5.0.0 no such sender"),
        ({"DATA": "554 5.7.1 no"}, "554 5.7.1 no"),
        ({".": "554 5.6.0 spam"}, "554 5.6.0 spam"),
        ({".": "451 4.3.0 busy"}, "451 4.3.0 busy"),
        ({"MAIL": "450 wait"}, "450 4.0.0 wait"),
        ({"RCPT": "552 too many"}, "451 4.0.0 too many"),
        ({".": ""}, "451 4.4.2 connection lost while sending: connection closed by the peer"),
        ({"DATA": "250 what"}, "451 4.0.0 unexpected reply to DATA: 250 what"),
        ({"DATA": "354 go", "RCPT": "550 5.1.1 nobody", ".": "554 no"}, "550 5.1.1 nobody"),
    ],
)
@pytest.mark.parametrize("pipelining", [True, False])
async def test_verdicts(
    autojump_clock: MockClock, tmp_path: pathlib.Path, answers: dict[str, Any], outcome: str, pipelining: bool
) -> None:
    extra = {} if pipelining else {"EHLO": "250 peer"}
    async with lab(tmp_path, answers=answers | extra) as one:
        await one.send("marc@machin.com")
        await trio.sleep(1)
        rows = one.events(events.Bounced) + one.events(events.DeferredUntil)
        assert [row.reply for row in rows] == [outcome]
        assert isinstance(rows[0], events.Bounced) == outcome.startswith("55")
        assert not one.events(events.BackedOff)


async def test_each_recipient_has_its_own_verdict(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    replies = {"a@machin.com": "250 ok", "b@machin.com": "550 5.1.1 no", "c@machin.com": "450 4.2.0 wait"}

    def rcpt(line: str) -> str:
        return next(reply for address, reply in replies.items() if address in line)

    async with lab(tmp_path, answers={"RCPT": rcpt}) as one:
        rcpts = "".join(f"RCPT TO:<{address}>\r\n" for address in replies)
        await one.talk(f"EHLO x\r\nMAIL FROM:<fred@truc.fr>\r\n{rcpts}DATA\r\nhi\r\n.\r\nQUIT\r\n".encode())
        await trio.sleep(1)
        assert [row.recipient for row in one.events(events.Relayed)] == ["a@machin.com"]
        assert [row.recipient for row in one.events(events.Bounced)] == ["b@machin.com"]
        assert [row.recipient for row in one.events(events.DeferredUntil)] == ["c@machin.com"]
        assert len(one.peer.messages) == 1
        assert "b@machin.com" in one.mailbox("fred@truc.fr")[0]


@pytest.mark.parametrize(
    "answers",
    [{"greeting": "554 go away"}, {"greeting": ""}, {"EHLO": "421 busy"}, {"MAIL": "421 closing"}, {"MAIL": ""}],
)
async def test_a_destination_that_is_down_backs_off(
    autojump_clock: MockClock, tmp_path: pathlib.Path, answers: dict[str, str]
) -> None:
    async with lab(tmp_path, answers=answers) as one:
        await one.send("marc@machin.com")
        await trio.sleep(1)
        assert [row.failures for row in one.events(events.BackedOff)] == [1]
        for key in answers:
            one.peer.answers[key] = {"greeting": "220 hi", "EHLO": "250 peer"}.get(key, "250 ok")
        await trio.sleep(100)
        assert len([content for content in one.peer.messages if content]) == 1
        assert one.events(events.DeferredUntil)[0].attempt == 0


async def test_helo_where_ehlo_is_not_known(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, answers={"EHLO": "502 what", "HELO": "250 peer"}) as one:
        await one.send("marc@machin.com")
        await _settled(one)
        assert len(one.peer.messages) == 1


async def test_a_message_too_large_for_the_host(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, answers={"EHLO": "250-peer\r\n250 SIZE 100"}) as one:
        await one.send("marc@machin.com", text="x" * 200)
        await trio.sleep(1)
        assert one.events(events.Bounced)[0].reply.startswith("552 5.3.4")
        assert not one.peer.messages


@pytest.mark.parametrize(
    ("wrong", "event"),
    [
        (Unroutable("5.1.10", "null MX"), events.Bounced),
        (Unroutable("5.1.2", "no such domain"), events.Bounced),
        (Unroutable("4.4.3", "no answer"), events.BackedOff),
    ],
)
async def test_dns_trouble(
    autojump_clock: MockClock, tmp_path: pathlib.Path, wrong: Unroutable, event: type[Any]
) -> None:
    async with lab(tmp_path) as one:
        one.names.wrong["machin.com"] = wrong
        await one.send("marc@machin.com")
        await trio.sleep(1)
        assert len(one.events(event)) == 1


async def test_the_next_host_is_tried(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path) as one:
        one.names.hosts["machin.com"] = ["mx1.machin.com", "mx2.machin.com"]
        one.names.wrong["mx1.machin.com"] = Unroutable("5.4.4", "no address")
        await one.send("marc@machin.com")
        await _settled(one)
        assert one.events(events.Relayed)[0].host == "mx2.machin.com"


async def test_an_address_literal_needs_no_dns(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path) as one:
        one.names.wrong["[192.0.2.7]"] = Unroutable("5.1.2", "asked DNS for a literal")
        await one.send("u@[192.0.2.7]")
        await _settled(one)
        assert len(one.peer.messages) == 1


async def test_a_silent_peer_is_given_up(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, delivery=DeliverySettings(hostname="x", default=Destination(connect_timeout=30.0))) as one:
        one.peer.silent = True
        await one.send("marc@machin.com")
        await trio.sleep(31)
        assert "no connection within 30 s" in one.events(events.BackedOff)[0].reply


async def test_stop_waits_for_what_is_under_way(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path) as one:
        await one.send("marc@machin.com")
        await trio.testing.wait_all_tasks_blocked()
        one.dispatcher.stop()
        await trio.sleep(1)
        await one.send("late@machin.com")
        await trio.sleep(20)
        assert one.queue.statistics().relayed == 1
        assert one.queue.statistics().queued == 1


async def test_local_delivery_is_idempotent(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    from support.fake_files import run_here
    from support.queues import letter
    from tripost.delivery.mailbox.maildir import MaildirDelivery
    from tripost.queue.body import BodyReader
    from tripost.queue.message import Delivered

    async def reader() -> BodyReader:
        return BodyReader(b"content\r\n", None, 9, run_here)

    envelope = letter("ID1", "local", "local")
    for again in range(3):  # each time a new process that knows only the disk
        local = MaildirDelivery(str(tmp_path), "h", run_sync=run_here)
        outcomes = await local.deliver(envelope, envelope.recipients, reader)
        assert all(isinstance(one, Delivered) for one in outcomes.values())
        found = sorted(tmp_path.glob("*/new/*"))
        assert len(found) == (2 if again == 0 else 1)
        found[0].unlink(missing_ok=True) if again == 0 else None  # a reader removed one
