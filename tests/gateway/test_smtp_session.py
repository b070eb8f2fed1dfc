"""what SMTP clients get, good ones and others"""

from __future__ import annotations

import pathlib

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from support.fake_files import FakeFiles
from support.lab import Lab, lab
from support.smtp_play import cuts
from tripost.gateway.ingress.smtp_session import serve_smtp
from tripost.gateway.ingress.smtp_states import COMMAND_LIMIT
from tripost.gateway.ingress.trace import HeaderReader, Hop, received_line, with_protocol
from tripost.gateway.lifecycle import Draining
from tripost.gateway.peer import Peer
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
        "250-ENHANCEDSTATUSCODES",
        "250-SMTPUTF8",
        "250-CHUNKING",
        "250-BINARYMIME",
        "250-DSN",
        "250-DELIVERBY",
        "250-LIMITS RCPTMAX=10",
        "250-MT-PRIORITY",
        "250 FUTURERELEASE 2592000 2027-02-14T00:00:00Z",
    ]
    assert await one.talk(b"HELO client\r\n") == ["220 smtp.truc.fr ESMTP tripost", "250 smtp.truc.fr"]


@pytest.mark.parametrize("bytewise", [False, True])
async def test_a_pipelined_session(one: Lab, bytewise: bool) -> None:
    text = RCPT + "DATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nMAIL FROM:<>\r\nRSET\r\nNOOP\r\nVRFY x\r\nHELP\r\nQUIT\r\n"
    replies = await one.talk(text.encode(), bytewise=bytewise)
    assert [row[:3] for row in replies[14:]] == ["250", "250", "354", "250", "250", "250", "250", "252", "214", "221"]
    (accepted,) = one.events(events.Accepted)
    assert replies[17] == f"250 2.0.0 queued as {accepted.id}"
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
        (MAIL + "RCPT TO:<a@b.example> FOO=NEVER\r\n", "555 5.5.4"),
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
    await serve_smtp(theirs, peer=Peer(client="127.0.0.1"), context=one.ingress())
    assert 300 <= trio.current_time() - start <= 301
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


FULL = (
    "EHLO c\r\n"
    "MAIL FROM:<é@truc.fr> BODY=BINARYMIME SMTPUTF8 RET=HDRS ENVID=Q1 BY=60;RT HOLDFOR=30 MT-PRIORITY=4 SIZE=9\r\n"
    "RCPT TO:<a@bücher.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b.example\r\nRCPT TO:<fred@truc.fr>\r\n"
)


async def test_what_is_asked_for_is_in_the_envelope(autojump_clock: MockClock, one: Lab) -> None:
    replies = await one.talk(FULL.encode() + b"BDAT 4\r\nS: \nBDAT 3 LAST\r\n\r\0x")
    assert [row[:9] for row in replies[-5:]] == ["250 2.1.0", "250 2.1.5", "250 2.1.5", "250 2.0.0", "250 2.0.0"]
    assert one.queue.ready() == []
    await trio.sleep(31)
    assert sorted(one.queue.ready()) == ["local", "mx:xn--bcher-kva.example"]
    (lease,) = await one.queue.claim("mx:xn--bcher-kva.example", 1)
    got = lease.envelope
    now = one.clock.now() - 31
    assert (got.sender, got.binary, got.eight_bit, got.smtputf8) == ("é@truc.fr", True, True, True)
    assert (got.ret, got.envid, got.by_mode, got.priority) == ("HDRS", "Q1", "RT", 4)
    assert got.deliver_by == pytest.approx(now + 60, abs=1)
    assert got.release == pytest.approx(now + 30, abs=1)
    assert got.expires == got.deliver_by  # it is to come back then (RFC 2852)
    first, second = got.recipients
    assert (first.address, first.notify, first.orcpt) == ("a@bücher.example", 5, "rfc822;a@b.example")
    assert (second.address, second.next_hop, second.notify) == ("fred@truc.fr", "local", 0)
    content = await (await one.queue.open_body(lease)).read()
    assert content.endswith(b"+0000\r\nS: \n\r\0x")
    assert b" with UTF8SMTP id " in content
    assert got.size == len(content)


async def test_chunks_without_size_in_front_are_bounded(one: Lab) -> None:
    text = RCPT + "BDAT 60000\r\n" + "x" * 60_000 + "BDAT 60000 LAST\r\n" + "x" * 60_000
    replies = await one.talk(text.encode() + b"NOOP\r\n")
    assert [row[:9] for row in replies[-3:]] == ["250 2.0.0", "552 5.3.4", "250 2.0.0"]
    assert not one.events(events.Accepted)


async def test_a_dozen_chunks_under_way_are_one_mistake(one: Lab) -> None:
    chunk = "BDAT 4000\r\n" + "x" * 4000
    replies = await one.talk((RCPT + chunk * 50 + "BDAT 0 LAST\r\n" + "NOOP\r\n").encode())
    assert [row[:9] for row in replies[-28:]] == ["250 2.0.0"] + ["552 5.3.4"] * 26 + ["250 2.0.0"]
    assert not one.events(events.Accepted)


async def test_bare_newlines_in_chunks_refuse_the_message_only(one: Lab) -> None:
    replies = await one.talk((RCPT + "BDAT 4 LAST\r\na\nb\nNOOP\r\n").encode())
    assert [row[:9] for row in replies[-2:]] == ["554 5.6.0", "250 2.0.0"]


async def test_normalize_makes_lines_and_says_so(one: Lab) -> None:
    replies = await one.talk((RCPT + "DATA\r\na\n.\nb\rc\r\n.\r\nNOOP\r\n").encode(), normalize=True)
    assert [row[:9] for row in replies[-2:]] == ["250 2.0.0", "250 2.0.0"]
    (lease,) = await one.queue.claim("local", 1)
    content = await (await one.queue.open_body(lease)).read()
    assert content.endswith(b"\r\na\r\n.\r\nb\r\nc\r\n")
    (told,) = one.events(events.Noticed)
    assert lease.envelope.id in told.reason


async def test_much_too_large_is_not_read_for_ever(one: Lab) -> None:
    replies = await one.talk(RCPT.encode() + b"DATA\r\n" + b"x" * 500_000)
    assert replies[-1].startswith("552 5.3.4")
    replies = await one.talk(RCPT.encode() + b"BDAT 300000\r\n")
    assert replies[-1].startswith("552 5.3.4")


async def test_who_speaks_first_is_refused(autojump_clock: MockClock, one: Lab) -> None:
    more = {"greet_delay": 5.0, "client": "192.0.2.1"}
    assert await one.talk(b"EHLO x\r\n", **more) == ["554 5.5.1 smtp.truc.fr you spoke before the greeting"]
    start = trio.current_time()
    assert (await one.talk(b"", **more | {"client": "127.0.0.1"}))[0].startswith("220")
    assert trio.current_time() == start
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_smtp(theirs, peer=Peer(client="192.0.2.1"), context=one.ingress(greet_delay=5.0))

        nursery.start_soon(serve)
        assert (await ours.receive_some()).startswith(b"220")
        assert trio.current_time() - start == pytest.approx(5)
        await ours.aclose()


async def _until_closed(one: Lab, pieces: list[tuple[float, bytes]], **more: object) -> tuple[str, float]:
    """Send pieces, each after its pause; the last reply and when the connection was closed."""
    ours, theirs = memory_stream_pair()
    start, got = trio.current_time(), bytearray()

    async def send() -> None:
        try:
            for pause, piece in pieces:
                await trio.sleep(pause)
                await ours.send_all(piece)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await serve_smtp(theirs, peer=Peer(client="192.0.2.1"), context=one.ingress(**more))
        ended = trio.current_time() - start
        await theirs.aclose()
        while part := await ours.receive_some():
            got += part
        nursery.cancel_scope.cancel()
    return got.decode().split("\r\n")[-2], ended


async def test_a_command_that_never_ends_has_no_more_time_than_another(autojump_clock: MockClock, one: Lab) -> None:
    last, ended = await _until_closed(one, [(60.0, b"N")] * 20)
    assert last.startswith("421 4.4.2")
    assert 300 <= ended <= 301


async def test_content_that_trickles_is_ended(autojump_clock: MockClock, one: Lab) -> None:
    start = RCPT.encode() + b"DATA\r\n"
    last, ended = await _until_closed(one, [(0.0, start)] + [(10.0, b"x" * 500)] * 100, minimum_rate=100.0)
    assert last.startswith("421 4.4.2 smtp.truc.fr slower than 100 octets")
    assert 30 <= ended <= 75
    last, ended = await _until_closed(one, [(0.0, start)] + [(10.0, b"x" * 1500)] * 30, minimum_rate=100.0)
    assert last.startswith("421 4.4.2 smtp.truc.fr nothing came")  # fast enough, until it stopped
    assert ended >= 300


async def test_draining_ends_those_who_wait_and_lets_content_finish(autojump_clock: MockClock, one: Lab) -> None:
    draining = Draining()

    async def drain() -> None:
        await trio.sleep(50)
        draining.begin()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        last, ended = await _until_closed(one, [(0.0, b"EHLO x\r\n")], draining=draining)
    assert last.startswith("421 4.3.2")
    assert ended == pytest.approx(50)
    draining = Draining()
    pieces = [(0.0, RCPT.encode() + b"DATA\r\n"), (100.0, b"x\r\n.\r\n")]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        last, ended = await _until_closed(one, pieces, draining=draining)
    assert last.startswith("421 4.3.2")
    assert ended == pytest.approx(100)
    assert len(one.events(events.Accepted)) == 1


def test_hops_are_counted_at_any_cut() -> None:
    header = b"Received: a\r\n b\r\nX: received:\r\nRECEIVED: c\r\n\r\nReceived: not me\r\n"
    for cut in range(len(header)):
        if header[cut - 1 : cut + 1] == b"\r\n":
            continue  # readers of content never cut there
        reader = HeaderReader()
        at = reader.feed(header[:cut])
        more = reader.feed(header[cut:])
        assert reader.hops == 2
        assert (at if at >= 0 else cut + more) == header.index(b"\r\n\r\n") + 2 or cut > header.index(b"\r\n\r\n") + 2


@pytest.mark.parametrize(
    ("header", "lines"),
    [(b"A: b", 2), (b"date: x", 1), (b"Message-Id: x", 1), (b"X: y\r\nDATE: x\r\nMESSAGE-ID: y", 0), (b"X-Date: x", 2)],
)
def test_what_a_submitted_message_lacks(header: bytes, lines: int) -> None:
    for step in (1, 3, 100):
        reader = HeaderReader()
        for piece in cuts(header + b"\r\n\r\nDate: body\r\n", step):
            reader.feed(piece)
        missing = reader.missing(id="ID", hostname="h.example", now=0)
        assert missing.count(b"\r\n") == lines, step
        assert (b"Message-ID: <ID@h.example>" in missing) == (b"essage" not in header.lower())


@pytest.mark.parametrize(
    ("utf8", "extended", "lmtp", "secured", "authenticated", "name"),
    [
        (False, False, False, False, False, "SMTP"),
        (False, False, False, True, False, "SMTP"),
        (False, True, False, False, False, "ESMTP"),
        (False, True, False, True, True, "ESMTPSA"),
        (True, True, False, True, False, "UTF8SMTPS"),
        (False, True, True, False, True, "LMTPA"),
        (True, True, True, True, True, "UTF8LMTPSA"),
    ],
)
def test_with_protocol(
    utf8: bool, extended: bool, lmtp: bool, secured: bool, authenticated: bool, name: str
) -> None:
    got = with_protocol(lmtp=lmtp, extended=extended, utf8=utf8, secured=secured, authenticated=authenticated)
    assert got == name


def test_a_received_line() -> None:
    hop = Hop(
        helo="we<i>rd\"", client="2001:db8::1", name="c.example", hostname="h.example", protocol="ESMTPS",
        tls="TLSv1.3 TLS_AES_256_GCM_SHA384", id="ID", recipient="a@b.example", now=0,
    )  # fmt: skip
    assert received_line(hop) == (
        b"Received: from we?i?rd? (c.example [IPv6:2001:db8::1])\r\n\t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        b"\tby h.example with ESMTPS id ID\r\n\tfor <a@b.example>;\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
    )
