"""sessions that become others: TLS, proxies, LMTP; and what all of them share"""

from __future__ import annotations

import pathlib
import ssl
from functools import partial

import msgspec
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from support.fake_files import FakeFiles
from support.lab import Lab, lab
from support.queues import SMALL
from tripost.gateway.ingress.memory import MemoryPool
from tripost.gateway.ingress.quotas import Quotas, shown
from tripost.gateway.ingress.smtp_session import serve_smtp
from tripost.gateway.peer import Peer, TlsFacts
from tripost.gateway.tls import Certificates, self_signed
from tripost.gateway.windows import Rate
from tripost.queue import events
from tripost.queue.body import Body
from tripost.queue.errors import SpoolFull

HELLO = b"EHLO client\r\n"
RCPT = HELLO + b"MAIL FROM:<fred@truc.fr>\r\nRCPT TO:<fred@truc.fr>\r\n"
LETTER = RCPT + b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"


@pytest.fixture
async def one(autojump_clock: MockClock, tmp_path: pathlib.Path):  # type: ignore[no-untyped-def]
    async with lab(tmp_path) as made:
        made.dispatcher.stop()
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return Certificates(self_signed(str(tmp_path_factory.mktemp("tls")), "smtp.truc.fr")).context


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _until(stream: trio.abc.Stream, last: bytes) -> str:
    """Read until a line begins with `last`."""
    got = b""
    while not (got.endswith(b"\r\n") and got.split(b"\r\n")[-2].startswith(last)):
        part = await stream.receive_some()
        assert part, got
        got += part
    return got.decode()


# --- TLS ---


async def test_starttls(autojump_clock: MockClock, one: Lab, server: ssl.SSLContext) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_smtp(theirs, peer=Peer(client="192.0.2.1", context=server), context=one.ingress())

        nursery.start_soon(serve)
        await ours.send_all(HELLO)
        offered = await _until(ours, b"250 ")
        assert "STARTTLS" in offered
        assert "REQUIRETLS" not in offered
        await ours.send_all(b"STARTTLS\r\nMAIL FROM:<evil@truc.fr>\r\nRCPT TO:<fred@truc.fr>\r\n")
        assert await _until(ours, b"220") == "220 2.0.0 go ahead\r\n"
        client = trio.SSLStream(ours, _trusting(), server_hostname="smtp.truc.fr", https_compatible=True)
        await client.do_handshake()
        await client.send_all(b"MAIL FROM:<fred@truc.fr>\r\n" + HELLO)
        got = await _until(client, b"250 ")
        assert got.startswith("503 5.5.1 say EHLO first\r\n")  # what was said before counts no more
        assert "STARTTLS" not in got.replace("REQUIRETLS", "")
        assert "REQUIRETLS" in got
        await client.send_all(b"STARTTLS\r\n" + LETTER.replace(HELLO, b"") + b"QUIT\r\n")
        got = await _until(client, b"221")
        assert [row[:9] for row in got.split("\r\n")[:3]] == ["503 5.5.1", "250 2.1.0", "250 2.1.5"]
        await client.aclose()
    (told,) = one.events(events.Noticed)
    assert told.reason.startswith("50 octets behind STARTTLS")
    (lease,) = await one.queue.claim("local", 1)
    content = await (await one.queue.open_body(lease)).read()
    assert b"\r\n\t(TLSv1.3 TLS_" in content
    assert b" with ESMTPS id " in content
    assert lease.envelope.sender == "fred@truc.fr"


async def test_a_handshake_that_is_none(autojump_clock: MockClock, one: Lab, server: ssl.SSLContext) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_smtp(theirs, peer=Peer(client="192.0.2.1", context=server), context=one.ingress())

        nursery.start_soon(serve)
        await ours.send_all(HELLO + b"STARTTLS\r\n")
        await _until(ours, b"220 2.0.0")
        await ours.send_all(b"MAIL FROM:<evil@truc.fr>\r\n")
        with trio.fail_after(5):
            while await ours.receive_some():
                pass
    assert one.events(events.Noticed)[0].reason.startswith("no TLS: ")


async def test_silence_instead_of_a_handshake(autojump_clock: MockClock, one: Lab, server: ssl.SSLContext) -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(HELLO + b"STARTTLS\r\n")
    began = trio.current_time()
    await serve_smtp(theirs, peer=Peer(client="192.0.2.1", context=server), context=one.ingress())
    assert trio.current_time() - began == pytest.approx(30, abs=1)


async def test_tls_first(autojump_clock: MockClock, one: Lab, server: ssl.SSLContext) -> None:
    peer = Peer(client="127.0.0.1", context=server, require_tls=True)
    replies = await one.talk(RCPT + b"DATA\r\nVRFY x\r\nQUIT\r\n", peer=peer)
    assert [row[:9] for row in replies[-5:]] == ["530 5.7.0"] * 4 + ["221 2.0.0"]
    secured = msgspec.structs.replace(peer, tls=TlsFacts("TLSv1.3", "X", 256))
    assert any(row.startswith("250 2.0.0 queued as") for row in await one.talk(LETTER, peer=secured))


# --- LMTP ---


async def test_lmtp_answers_for_each_recipient(autojump_clock: MockClock, one: Lab) -> None:
    peer = Peer(service="lmtp")  # on a Unix socket
    mail = b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<fred@truc.fr>\r\nRCPT TO:<no@truc.fr>\r\nRCPT TO:<post@truc.fr>\r\n"
    replies = await one.talk(mail + b"DATA\r\nx\r\n.\r\nQUIT\r\n", peer=peer)
    assert [row[:9] for row in replies[-8:-4]] == ["250 2.1.0", "250 2.1.5", "550 5.1.1", "250 2.1.5"]
    assert replies[-3] == replies[-2]
    assert replies[-2].startswith("250 2.0.0 queued as")
    assert len(one.events(events.Accepted)[0].recipients) == 2
    replies = await one.talk(mail + b"BDAT 3 LAST\r\na\nbQUIT\r\n", peer=peer)
    assert [row[:9] for row in replies[-3:]] == ["554 5.6.0", "554 5.6.0", "221 2.0.0"]
    replies = await one.talk(mail + b"DATA\r\na\nb\r\n.\r\nQUIT\r\n", peer=peer)
    assert [row[:9] for row in replies[-3:]] == ["354 end d", "554 5.6.0", "554 5.6.0"]
    (lease,) = await one.queue.claim("local", 1)
    content = await (await one.queue.open_body(lease)).read()
    assert content.startswith(b"Received: from c (Unix socket)\r\n\tby smtp.truc.fr with LMTP id ")


async def test_nobody_relays_by_a_unix_socket(autojump_clock: MockClock, one: Lab) -> None:
    text = b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@far.example>\r\n"
    assert (await one.talk(text, peer=Peer(service="lmtp")))[-1].startswith("550 5.7.1")


# --- proxies ---

PROXY = Peer(client="192.0.2.9", xclient=True)


async def test_xclient_makes_the_session_the_clients(autojump_clock: MockClock, one: Lab) -> None:
    far = b"MAIL FROM:<fred@truc.fr>\r\nRCPT TO:<a@far.example>\r\n"
    claim = b"EHLO p\r\nXCLIENT ADDR=127.0.0.1 PORT=5 NAME=c.example\r\n"
    replies = await one.talk(claim + b"NOOP\r\nEHLO q\r\n" + far + b"DATA\r\n\r\n.\r\n", peer=PROXY)
    assert [row[:9] for row in replies[-4:-2]] == ["250 2.1.0", "250 2.1.5"]
    assert replies.count("220 smtp.truc.fr ESMTP tripost") == 2
    (lease,) = await one.queue.claim("mx:far.example", 1)
    assert lease.envelope.client == "127.0.0.1"
    content = await (await one.queue.open_body(lease)).read()
    assert content.startswith(b"Received: from q (c.example [127.0.0.1])")
    replies = await one.talk(b"EHLO p\r\n" + far, peer=PROXY)
    assert replies[-1].startswith("550 5.7.1")
    assert (await one.talk(claim, peer=Peer(client="192.0.2.9")))[-1].startswith("550 5.7.0")
    lost = b"EHLO p\r\nXCLIENT ADDR=[UNAVAILABLE]\r\nEHLO q\r\n"
    assert (await one.talk(lost + far, peer=Peer(client="127.0.0.1", xclient=True)))[-1].startswith("550 5.7.1")


async def test_xforward_is_for_one_transaction(autojump_clock: MockClock, one: Lab) -> None:
    text = b"EHLO p\r\nXFORWARD ADDR=198.51.100.7 NAME=x\r\nXFORWARD PROTO=SMTP\r\n"
    letter = LETTER.removeprefix(HELLO)
    await one.talk(text + letter + letter, peer=PROXY)
    found = await one.queue.claim("local", 9)
    assert [lease.envelope.client for lease in found] == ["198.51.100.7", "192.0.2.9"]


# --- limits that all sessions share ---


async def test_so_many_messages_of_a_client(autojump_clock: MockClock, one: Lab) -> None:
    quotas = Quotas(Rate(2, 3600))
    more = {"client": "192.0.2.1", "quotas": quotas}
    aborted = RCPT + b"RSET\r\nMAIL FROM:<>\r\nRSET\r\n"  # nothing came of them: not counted
    assert sum("queued as" in row for row in await one.talk(aborted + LETTER * 2, **more)) == 2
    last = (await one.talk(RCPT, **more))[-2]
    assert last.startswith("450 4.7.1 limit of 2 messages per hour for your address; again in ")
    assert one.events(events.Refused)[-2].phase == "mail"
    assert (await one.talk(RCPT, client="192.0.2.2", quotas=quotas))[-1].startswith("250")
    assert (await one.talk(RCPT, client="127.0.0.1", quotas=quotas))[-1].startswith("250")
    await trio.sleep(7200)
    assert (await one.talk(RCPT, **more))[-1].startswith("250")


def test_times_as_people_say_them() -> None:
    found = [shown(one) for one in (0.001, 59.2, 119, 121, 7000, 7201)]
    assert found == ["1 s", "60 s", "119 s", "3 min", "117 min", "3 h"]


async def test_bodies_go_to_files_when_memory_is_short(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    files, pool = FakeFiles(), MemoryPool(1000)
    async with lab(tmp_path, files=files, settings=msgspec.structs.replace(SMALL, inline=32_768)) as one:
        one.dispatcher.stop()
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await serve_smtp(theirs, peer=Peer(client="192.0.2.1"), context=one.ingress(memory=pool))

            nursery.start_soon(serve)
            await ours.send_all(RCPT + b"DATA\r\n" + b"x" * 100)
            await trio.sleep(1)
            assert 100 <= pool.used <= 300
            assert not pool.short
            assert files.names("spool/bodies") == []
            assert pool.take(1000 - pool.used)  # others need it all
            assert pool.short
            await ours.send_all(b"x" * 100)
            await trio.sleep(1)
            assert len(files.names("spool/bodies")) == 1
            pool.give(pool.used)
            await ours.send_all(b"x\r\n.\r\nQUIT\r\n")
            await _until(ours, b"221")
            await ours.aclose()
        assert pool.used == 0
        assert len(one.events(events.Accepted)) == 1
        # a small one comes back out of its file, into the record
        assert files.names("spool/bodies") == []
        (lease,) = await one.queue.claim("local", 1)
        content = await (await one.queue.open_body(lease)).read()
        assert content.endswith(b"\r\n" + b"x" * 201 + b"\r\n")


async def test_what_waits_for_its_file_counts_too(
    autojump_clock: MockClock, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, bodies = MemoryPool(20_000), list[Body]()
    async with lab(tmp_path, settings=msgspec.structs.replace(SMALL, inline=32_768)) as one:
        one.dispatcher.stop()
        new_body = one.queue.new_body

        def watched() -> Body:
            bodies.append(new_body())
            return bodies[-1]

        monkeypatch.setattr(one.queue, "new_body", watched)
        context = one.ingress(memory=pool)

        async def client(number: int) -> None:
            ours, theirs = memory_stream_pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(serve_smtp, theirs, peer=Peer(client="192.0.2.1"), context=context))
                await ours.send_all(RCPT + b"DATA\r\n")
                for piece in range(20):
                    await ours.send_all(b"%07d\r\n" % piece * 111)
                    await trio.sleep(1)
                    assert sum(body.waiting for body in bodies) <= pool.used <= pool.limit
                await ours.send_all(b".\r\nQUIT\r\n")
                await _until(ours, b"221")
                await ours.aclose()

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(client, number)
        assert pool.used == 0
        assert {event.size for event in one.events(events.Accepted)} == {bodies[0].size}


async def test_large_contents_come_through_in_pieces(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    files = FakeFiles()
    letter = b"Subject: x\r\n\r\n" + b"".join(b"%07d\r\n" % number for number in range(80_000))
    async with lab(tmp_path, files=files) as one:
        one.dispatcher.stop()
        replies = await one.talk(RCPT + b"DATA\r\n" + letter + b".\r\nQUIT\r\n", message_size=1 << 20)
        assert replies[-2].startswith("250 2.0.0 queued as")
        assert len(files.names("spool/bodies")) == 1
        (lease,) = await one.queue.claim("local", 1)
        reader = await one.queue.open_body(lease)
        found = b""
        while piece := await reader.read():
            found += piece
        assert found.endswith(b"+0000\r\n" + letter)
        assert len(found) == lease.envelope.size


async def test_no_memory_is_kept_for_what_was_forgotten(autojump_clock: MockClock, one: Lab) -> None:
    pool = MemoryPool(10_000)
    for end in (b"", b"\r\n.\r\n", b"\n.\r\n.\r\n"):
        await one.talk(RCPT + b"DATA\r\n" + b"x" * 300 + end, memory=pool)
        assert pool.used == 0, end
    await one.talk(RCPT + b"BDAT 5\r\nabcdeRSET\r\n", memory=pool)
    assert pool.used == 0


async def test_what_cannot_be_stored_is_not_asked_for(
    autojump_clock: MockClock, one: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def full(more: int) -> None:
        asked.append(more)
        raise SpoolFull("as many as allowed")

    monkeypatch.setattr(one.queue, "check_room", full)
    assert (await one.talk(HELLO + b"MAIL FROM:<> SIZE=77\r\n"))[-1].startswith("452 4.3.1")
    assert asked == [77]
    monkeypatch.setattr(type(one.queue), "accepting", False)
    assert await one.talk(HELLO) == ["421 4.3.2 smtp.truc.fr cannot store mail now"]
    assert one.events(events.Refused)[-1].phase == "connect"


async def test_a_session_without_mail_ends(autojump_clock: MockClock, one: Lab) -> None:
    ours, theirs = memory_stream_pair()
    began = trio.current_time()

    async def chatter() -> None:
        try:
            while True:
                await ours.send_all(b"NOOP\r\n")
                await trio.sleep(100)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(chatter)
        await serve_smtp(theirs, peer=Peer(client="127.0.0.1"), context=one.ingress())
        assert 3600 <= trio.current_time() - began <= 3700
        await theirs.aclose()
        got = b""
        while part := await ours.receive_some():
            got += part
    assert got.decode().split("\r\n")[-2] == "421 4.4.2 smtp.truc.fr no message for 3600 s, closing"
