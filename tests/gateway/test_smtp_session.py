"""what SMTP clients get, good ones and others"""

from __future__ import annotations

import pathlib

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from support.fake_files import FakeFiles
from support.lab import Lab, lab
from tripost.gateway.ingress.smtp_protocol import COMMAND_LIMIT, Answer, Data, EndOfData, Mail, Rcpt, ServerProtocol
from tripost.gateway.ingress.smtp_session import serve_smtp
from tripost.gateway.ingress.trace import HopCounter
from tripost.queue import events

HELLO = "EHLO client\r\n"
MAIL = HELLO + "MAIL FROM:<fred@truc.fr>\r\n"
RCPT = MAIL + "RCPT TO:<fred@truc.fr>\r\n"


@pytest.fixture
async def one(autojump_clock: MockClock, tmp_path: pathlib.Path):  # type: ignore[no-untyped-def]
    async with lab(tmp_path) as made:
        made.dispatcher.stop()
        yield made


def _last(replies: list[str]) -> str:
    return replies[-1]


async def test_ehlo_offers(one: Lab) -> None:
    replies = await one.talk(HELLO.encode())
    assert replies == [
        "220 smtp.truc.fr ESMTP tripost",
        "250-smtp.truc.fr",
        "250-PIPELINING",
        "250-SIZE 100000",
        "250-8BITMIME",
        "250 ENHANCEDSTATUSCODES",
    ]
    assert await one.talk(b"HELO client\r\n") == ["220 smtp.truc.fr ESMTP tripost", "250 smtp.truc.fr"]


@pytest.mark.parametrize("bytewise", [False, True])
async def test_a_pipelined_session(one: Lab, bytewise: bool) -> None:
    text = RCPT + "DATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nMAIL FROM:<>\r\nRSET\r\nNOOP\r\nVRFY x\r\nHELP\r\nQUIT\r\n"
    replies = await one.talk(text.encode(), bytewise=bytewise)
    assert [row[:3] for row in replies[6:]] == ["250", "250", "354", "250", "250", "250", "250", "252", "214", "221"]
    (accepted,) = one.events(events.Accepted)
    assert replies[9] == f"250 2.0.0 queued as {accepted.id}"
    (lease,) = await one.queue.claim("local", 1)
    content = await (await one.queue.open_body(lease)).read()
    assert content.startswith(b"Received: from client ([127.0.0.1])\r\n\tby smtp.truc.fr with ESMTP id ")
    assert content.endswith(b"\r\nSubject: x\r\n\r\n.dot\r\n")
    assert accepted.size == len(content)


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("HELLO\r\n", "500 5.5.2"),
        ("MAIL FROM:<a@b.example>\r\n", "503 5.5.1"),
        ("EHLO\r\n", "501 5.5.4"),
        ("EHLO a b\r\n", "501 5.5.4"),
        (HELLO + "RCPT TO:<fred@truc.fr>\r\n", "503 5.5.1"),
        (HELLO + "DATA\r\n", "503 5.5.1"),
        (HELLO + "MAIL <a@b.example>\r\n", "501 5.5.4"),
        (HELLO + "MAIL FROM:a@b.example\r\n", "501 5.1.7"),
        (HELLO + "MAIL FROM:<a@b.example> FOO=1\r\n", "555 5.5.4"),
        (HELLO + "MAIL FROM:<a@b.example> SIZE=100001\r\n", "552 5.3.4"),
        (MAIL + "MAIL FROM:<a@b.example>\r\n", "503 5.5.1"),
        (MAIL + "RCPT <a@b.example>\r\n", "501 5.5.4"),
        (MAIL + "RCPT TO:<>\r\n", "501 5.1.3"),
        (MAIL + "RCPT TO:<a@b.example> NOTIFY=NEVER\r\n", "555 5.5.4"),
        (MAIL + "RCPT TO:<nobody@truc.fr>\r\n", "550 5.1.1"),
        (MAIL + "DATA\r\n", "554 5.5.1"),
        (RCPT + "DATA now\r\n", "501 5.5.4"),
        (HELLO + "RSET x\r\n", "501 5.5.4"),
        (HELLO + "QUIT x\r\n", "501 5.5.4"),
        (HELLO + "VRFY\r\n", "501 5.5.4"),
        (HELLO + "EXPN list\r\n", "502 5.5.1"),
        (HELLO + "NOOP \x01\r\n", "501 5.5.4"),
        ("NOOP " + "x" * COMMAND_LIMIT + "\r\n", "500 5.5.2"),
        (HELLO + "é\r\n", "500 5.5.2"),
    ],
)
async def test_refusals_leave_the_session_alive(one: Lab, text: str, reply: str) -> None:
    replies = await one.talk((text + "NOOP\r\n").encode())
    assert replies[-2].startswith(reply), replies
    assert replies[-1].startswith("250 2.0.0")
    assert one.events(events.Refused)[-1].reply.startswith(reply)


async def test_relaying_is_for_those_who_may(one: Lab) -> None:
    text = (MAIL + "RCPT TO:<a@far.example>\r\n").encode()
    assert (await one.talk(text))[-1].startswith("250 2.1.5")
    assert (await one.talk(text, client="192.0.2.1"))[-1].startswith("550 5.7.1")
    assert (await one.talk((MAIL + "RCPT TO:<Postmaster>\r\n").encode(), client="192.0.2.1"))[-1].startswith("250")


async def test_too_large_is_read_to_its_end(one: Lab) -> None:
    text = RCPT + "DATA\r\n" + "x" * 70 * 2000 + "\r\n.\r\nNOOP\r\n"
    replies = await one.talk(text.encode())
    assert replies[-2].startswith("552 5.3.4")
    assert replies[-1].startswith("250")
    assert not one.events(events.Accepted)


async def test_too_many_recipients(one: Lab) -> None:
    text = MAIL + "".join(f"RCPT TO:<u{n}@far.example>\r\n" for n in range(12))
    replies = await one.talk(text.encode())
    assert [row[:9] for row in replies[-3:]] == ["250 2.1.5", "452 4.5.3", "452 4.5.3"]


async def test_a_recipient_named_twice_gets_one(one: Lab) -> None:
    await one.talk((RCPT + "RCPT TO:<fred@truc.fr>\r\nDATA\r\nx\r\n.\r\n").encode())
    assert one.events(events.Accepted)[0].recipients == ["fred@truc.fr"]


async def test_a_message_that_goes_in_circles(one: Lab) -> None:
    hops = "received: from a by b\r\n" * 100
    replies = await one.talk((RCPT + f"DATA\r\n{hops}\r\nbody\r\n.\r\n").encode())
    assert replies[-1].startswith("554 5.4.6")


@pytest.mark.parametrize("bare", ["a\nb", "a\rb", "\n.\n", "\r\n.\n", "\n"])
async def test_bare_newlines_end_the_session_after_the_message(one: Lab, bare: str) -> None:
    replies = await one.talk((RCPT + f"DATA\r\nSubject: x\r\n\r\n{bare}more\r\n.\r\nNOOP\r\nNOOP\r\n").encode())
    assert replies[-1].startswith("554 5.6.0")
    assert replies[-2].startswith("354")
    assert not one.events(events.Accepted)


async def test_too_many_errors_and_too_much_junk(one: Lab) -> None:
    replies = await one.talk(b"WHAT\r\n" * 50)
    assert len(replies) == 22
    assert replies[-1].startswith("421 4.7.0")
    replies = await one.talk(b"NOOP\r\n" * 200)
    assert replies[-1].startswith("421 4.7.0")
    assert len(replies) == 103


async def test_silence_is_ended(autojump_clock: MockClock, one: Lab) -> None:
    ours, theirs = memory_stream_pair()
    start = trio.current_time()
    await serve_smtp(theirs, client="127.0.0.1", context=one.ingress())
    assert trio.current_time() - start == pytest.approx(300)
    assert (await ours.receive_some()).decode().split("\r\n")[1].startswith("421 4.4.2")


async def test_a_full_disk_is_452_and_nothing_is_accepted(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    files = FakeFiles()
    async with lab(tmp_path, files=files) as one:
        files.room = -1
        assert (await one.talk((RCPT + "DATA\r\nx\r\n.\r\n").encode()))[-1].startswith("452 4.3.1")
        files.room = 1 << 40
        files.fail["create"] = 28
        assert (await one.talk((RCPT + f"DATA\r\n{'x' * 900}\r\n.\r\n").encode()))[-1].startswith("452 4.3.1")
        assert (await one.talk((RCPT + "DATA\r\nx\r\n.\r\n").encode()))[-1].startswith("250 2.0.0")
        assert len(one.events(events.Accepted)) == 1
        assert len(files.names("spool/bodies")) <= 1


async def test_a_broken_connection_leaves_nothing(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    files = FakeFiles()
    async with lab(tmp_path, files=files) as one:
        await one.talk((RCPT + "DATA\r\n" + "x" * 5000).encode())
        assert not one.events(events.Accepted)
        assert files.names("spool/bodies") == []


def _run(pieces: list[bytes]) -> list[str]:
    """The protocol alone, everything allowed; what came out as texts."""
    protocol, found = ServerProtocol("h", 1000), []
    content = b""
    for piece in pieces:
        protocol.feed(piece)
        while (event := protocol.next()) is not None:
            if isinstance(event, Mail):
                protocol.mail_accepted()
            elif isinstance(event, Rcpt):
                protocol.recipient_accepted()
            elif isinstance(event, Data):
                protocol.data_begins()
            elif isinstance(event, EndOfData):
                found.append(f"content {content!r}")
                content = b""
            if hasattr(event, "content"):
                content += event.content
            else:
                found.append(str(event))
            if isinstance(event, Answer) and event.close:
                return found
    return found


WORDS = st.lists(
    st.sampled_from(
        [
            "EHLO x",
            "MAIL FROM:<a@b>",
            "RCPT TO:<c@d>",
            "DATA",
            ".",
            "..",
            "",
            "text",
            "QUIT",
            "RSET",
            "NOOP",
            "a\nb",
            "\0",
        ]
    ),
    max_size=15,
)


@given(WORDS, st.integers(1, 7))
def test_the_protocol_does_not_depend_on_the_cuts(words: list[str], step: int) -> None:
    data = "".join(f"{word}\r\n" for word in words).encode()
    assert _run([data[n : n + step] for n in range(0, len(data), step)]) == _run([data])


@given(st.binary(max_size=300))
def test_no_octets_surprise_the_protocol(data: bytes) -> None:
    _run([b"EHLO x\r\n", data])


def test_hops_are_counted_at_any_cut() -> None:
    header = b"Received: a\r\n b\r\nX: received:\r\nRECEIVED: c\r\n\r\nReceived: not me\r\n"
    for cut in range(len(header)):
        counter = HopCounter()
        counter.feed(header[:cut])
        counter.feed(header[cut:])
        assert counter.hops == 2
