"""POP3, from the first line to what is left in the mailbox"""

from __future__ import annotations

import base64
import os
import pathlib
from contextlib import suppress
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from tripost.delivery.mailbox import removal
from tripost.delivery.mailbox.folders import lock_mailbox
from tripost.delivery.mailbox.places import make_mailbox
from tripost.delivery.mailbox.session import MailboxInUse, open_mailbox
from tripost.delivery.mailbox.uids import file_name
from tripost.gateway import guard
from tripost.gateway.accounts import Accounts
from tripost.gateway.egress import pop3_session
from tripost.gateway.egress.pop3_context import Pop3Context
from tripost.gateway.egress.pop3_protocol import Pop3Protocol
from tripost.gateway.egress.pop3_session import serve_pop3
from tripost.gateway.egress.pop3_top import Top
from tripost.gateway.guard import Guard
from tripost.gateway.login import Logins
from tripost.gateway.peer import Peer
from tripost.gateway.windows import Rate
from tripost.queue import events
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Event

MARC = "marc@machin.com"
LOGIN = f"USER {MARC}\r\nPASS my secret\r\n"
LETTERS = [b"Subject: one\r\n\r\n.dot\r\n..\r\nlast\r\n", b"Subject: two\r\n\r\n" + b"line\r\n" * 30_000]


class House:
    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.seen: list[Event] = []
        bus = Bus()
        bus.add_sink(self.seen.append)
        self.accounts = Accounts(str(folder / "accounts"))
        self.accounts.add(MARC, "my secret")
        self.mail = folder / "mail"
        self.logins = Logins(self.accounts, Guard(Rate(10, 600.0), 900.0), bus, Clock())
        self.context = Pop3Context("h", self.logins, str(self.mail), bus, Clock())
        make_mailbox(str(self.mail / MARC))
        for n, letter in enumerate(LETTERS):
            (self.mail / MARC / "new" / file_name(f"ID{n}_0", 100 + n, "h", len(letter))).write_bytes(letter)

    def left(self) -> int:
        return len(list((self.mail / MARC / "new").iterdir()))

    async def talk(self, text: str, client: str = "127.0.0.1") -> bytes:
        ours, theirs = memory_stream_pair()
        got = bytearray()

        async def serve() -> None:
            await serve_pop3(theirs, peer=Peer(service="pop3", client=client), context=self.context)
            await theirs.aclose()

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                await ours.send_all(text.encode())
                await ours.send_stream.aclose()
                async for part in ours.receive_stream:
                    got += part
        return bytes(got)


@pytest.fixture
async def house(tmp_path: pathlib.Path) -> House:
    return House(tmp_path)


async def test_a_whole_session(house: House) -> None:
    sizes = [len(one) for one in LETTERS]
    got = await house.talk(
        LOGIN + "STAT\r\nLIST\r\nUIDL\r\nLIST 1\r\nUIDL 2\r\nDELE 1\r\nSTAT\r\nLIST 1\r\nNOOP\r\nQUIT\r\n"
    )
    assert got.decode().split("\r\n")[3:-1] == [
        f"+OK 2 {sum(sizes)}",
        "+OK",
        f"1 {sizes[0]}",
        f"2 {sizes[1]}",
        ".",
        "+OK",
        f"1 100.ID0_0.h,S={sizes[0]},W={sizes[0]}",
        f"2 101.ID1_0.h,S={sizes[1]},W={sizes[1]}",
        ".",
        f"+OK 1 {sizes[0]}",
        f"+OK 2 101.ID1_0.h,S={sizes[1]},W={sizes[1]}",
        "+OK to be deleted at QUIT",
        f"+OK 1 {sizes[1]}",
        "-ERR no such message",
        "+OK",
        "+OK bye, 1 deleted",
    ]
    assert house.left() == 1
    assert [type(one) for one in house.seen] == [events.Connected, events.LoggedIn, events.Fetched]


async def test_retr_and_top_are_exact(house: House) -> None:
    got = await house.talk(LOGIN + "RETR 1\r\nRETR 2\r\nTOP 1 1\r\nTOP 2 0\r\nTOP 1 99\r\nQUIT\r\n")
    rest = got.split(b"\r\n", 3)[3]
    stuffed = LETTERS[0].replace(b"\r\n.", b"\r\n..")
    assert rest == (
        b"+OK %d octets\r\n" % len(LETTERS[0])
        + stuffed
        + b".\r\n+OK %d octets\r\n" % len(LETTERS[1])
        + LETTERS[1]
        + b".\r\n+OK\r\nSubject: one\r\n\r\n..dot\r\n.\r\n"
        + b"+OK\r\nSubject: two\r\n\r\n.\r\n"
        + b"+OK\r\n"
        + stuffed
        + b".\r\n+OK bye, 0 deleted\r\n"
    )
    assert house.left() == 2


async def test_deletes_only_at_quit(house: House) -> None:
    await house.talk(LOGIN + "DELE 1\r\nDELE 2\r\n")  # the connection ends without QUIT
    assert house.left() == 2
    got = await house.talk(LOGIN + "DELE 1\r\nRSET\r\nSTAT\r\nQUIT\r\n")
    assert b"\r\n+OK 2 " in got
    assert house.left() == 2


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("STAT\r\n", "-ERR STAT only after the login"),
        ("WHAT\r\n", "-ERR unknown command"),
        ("PASS x\r\n", "-ERR USER first"),
        ("USER\r\n", "-ERR USER needs an argument"),
        ("NO\nOP\r\n", "-ERR bare CR or LF"),
        ("x" * 600 + "\r\n", "-ERR line longer"),
        (LOGIN + "RETR\r\n", "-ERR wrong arguments"),
        (LOGIN + "RETR 3\r\n", "-ERR no such message"),
        (LOGIN + "RETR 0\r\n", "-ERR no such message"),
        (LOGIN + "RETR -1\r\n", "-ERR not a message's number"),
        (LOGIN + "RETR ²\r\n", "-ERR the argument is not ASCII"),
        (LOGIN + "RETR 99999999999\r\n", "-ERR not a message's number"),
        (LOGIN + "TOP 1\r\n", "-ERR wrong arguments"),
        (LOGIN + "USER x\r\n", "-ERR USER only before the login"),
        (LOGIN + "DELE 1\r\nRETR 1\r\n", "-ERR no such message"),
    ],
)
async def test_mistakes_leave_the_session_alive(house: House, text: str, answer: str) -> None:
    got = (await house.talk(text + "CAPA\r\n")).decode()
    assert answer in got
    assert got.endswith("\r\nEXPIRE NEVER\r\nIMPLEMENTATION tripost\r\n.\r\n")


async def test_wrong_passwords(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SHORTEST", 0.0)
    got = await house.talk((f"USER {MARC}\r\nPASS wrong\r\n" + "USER nobody@x\r\nPASS y\r\n") * 4)
    assert got.count(b"-ERR [AUTH]") == 5  # then it is closed
    assert len([one for one in house.seen if isinstance(one, events.LoginFailed)]) == 5


async def test_one_session_at_a_time(house: House) -> None:
    box = open_mailbox(str(house.mail), MARC)
    with pytest.raises(MailboxInUse):
        open_mailbox(str(house.mail), MARC)
    assert b"-ERR [IN-USE]" in await house.talk(LOGIN)
    box.close()
    assert b"-ERR" not in await house.talk(LOGIN)


async def test_upkeep_is_waited_for(house: House) -> None:
    lock = lock_mailbox(str(house.mail / MARC), upkeep=True)
    assert lock is not None

    async def release() -> None:
        await trio.sleep(0.6)
        os.close(lock)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(release)
        assert b"+OK 2 messages" in await house.talk(LOGIN)


@pytest.mark.parametrize("size", [10, 65_536, 65_537, 300_000])
async def test_messages_of_other_programs(house: House, size: int) -> None:
    """Files with LF ends, of sizes read at once and in pieces; RETR one by one and pipelined."""
    text = (b".line\n" * (size // 6 + 1))[: size - 1] + b"\n"
    for n in range(3):
        (house.mail / MARC / "cur" / f"{200 + n}.other:2,S").write_bytes(text)
    wire = text.replace(b"\n", b"\r\n")
    stuffed = wire.replace(b"\r\n.", b"\r\n..")
    one = b"+OK %d octets\r\n.%b.\r\n" % (len(wire), stuffed)
    got = await house.talk(LOGIN + "RETR 3\r\nRETR 4\r\nRETR 9\r\nDELE 5\r\nRETR 5\r\nRETR 3\r\nQUIT\r\n")
    rest = got.split(b"\r\n", 3)[3]
    nothing = b"-ERR no such message\r\n"
    assert rest == one + one + nothing + b"+OK to be deleted at QUIT\r\n" + nothing + one + b"+OK bye, 1 deleted\r\n"
    fetched = [event for event in house.seen if isinstance(event, events.Fetched)]
    assert (fetched[0].messages, fetched[0].deleted) == (3, 1)


async def test_a_message_that_another_program_took(house: House) -> None:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_pop3, theirs, peer=Peer(service="pop3", client=""), context=house.context))
        await ours.send_all((LOGIN + "STAT\r\n").encode())
        got = b""
        while got.count(b"\r\n") < 4:
            got += await ours.receive_some()
        files = sorted((house.mail / MARC / "new").iterdir())
        files[0].rename(house.mail / MARC / "cur" / f"{files[0].name}:2,S")  # read there: it is found again
        files[1].unlink()
        await ours.send_all(b"RETR 1\r\nRETR 2\r\nTOP 2 0\r\nDELE 1\r\nDELE 2\r\nQUIT\r\n")
        got = b""
        while b"bye" not in got:
            got += await ours.receive_some()
    assert got.startswith(b"+OK %d octets\r\n" % len(LETTERS[0]))
    assert got.count(b"-ERR [SYS/TEMP] another program removed the message") == 2
    assert b"bye, 2 deleted" in got
    assert not list((house.mail / MARC / "cur").iterdir())


async def test_silence_ends_a_session(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pop3_session, "IDLE", 0.3)
    for said in ("", "CAPA\r\n", LOGIN + "DELE 1\r\n", "USER m"):
        ours, theirs = memory_stream_pair()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(_serve_and_close, theirs, house))
                await ours.send_all(said.encode())
                got = bytearray()
                async for part in ours.receive_stream:
                    got += part
        assert b"bye" not in got
    assert house.left() == 2


async def test_who_does_not_log_in_has_ten_minutes_however_busy(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pop3_session, "IDLE", 0.5)
    ours, theirs = memory_stream_pair()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(_serve_and_close, theirs, house))
            with suppress(trio.BrokenResourceError):
                while True:
                    await ours.send_all(b"CAPA\r\n")
                    await trio.sleep(0.02)


async def _serve_and_close(stream: trio.abc.Stream, house: House) -> None:
    await serve_pop3(stream, peer=Peer(service="pop3", client=""), context=house.context)
    await stream.aclose()


async def test_a_full_disk_deletes_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(removal, "replace_file", full)
    got = await house.talk(LOGIN + "DELE 1\r\nDELE 2\r\nQUIT\r\n")
    assert got.endswith(b"-ERR [SYS/TEMP] the deleted messages were not removed\r\n")
    assert house.left() == 2


LONG = ("x" * 70, "x" * 300, "x" * 600)
PLAIN = ("a b", "", ".", "..", "%2e%2e", ".delivered", "MARC@machin.com")
HOSTILE = ["../x", "a/b", "a\0b", "ünï@machin.com", *PLAIN, *LONG]


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names(house: House, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By USER, by AUTH, and as accounts that do exist: never a folder outside of the mail store."""
    monkeypatch.setattr(guard, "SHORTEST", 0.0)
    encoded = base64.b64encode(f"\0{name}\0my secret".encode()).decode()
    got = await house.talk(f"USER {name}\r\nPASS my secret\r\nAUTH PLAIN {encoded}\r\nCAPA\r\n")
    assert (b"+OK 2 messages" in got) == (name == "MARC@machin.com")
    if "\0" not in name and ":" not in name and name:
        path = house.folder / "accounts"
        path.write_text(f"{name}:{path.read_text().partition(':')[2]}")
        await house.talk(f"USER {name}\r\nPASS my secret\r\nQUIT\r\n")
    assert sorted(one.name for one in house.folder.iterdir() if not one.name.startswith("accounts")) == ["mail"]
    assert {one.parent.parent for one in house.folder.rglob("new")} == {house.mail}


async def test_no_passwords_in_clear_from_elsewhere(house: House) -> None:
    got = await house.talk("CAPA\r\n" + LOGIN, client="192.0.2.1")
    assert got.count(b"-ERR [SYS/PERM]") == 1  # USER: before the password is said
    assert b"USER" not in got.partition(b".\r\n")[0].replace(b"UTF8 USER", b"")


@given(
    st.lists(st.sampled_from([b"a", b"\r\n", b"\r\n\r\n", b"x: y"]), max_size=12), st.integers(0, 4), st.integers(1, 5)
)
def test_top_does_not_depend_on_the_cuts(words: list[bytes], lines: int, step: int) -> None:
    content = b"".join(words)

    def run(pieces: list[bytes]) -> bytes:
        top, out = Top(lines), b""
        for piece in pieces:
            out += top.feed(piece)
            if top.over:
                break
        return out

    header, found, body = (b"\r\n" + content).partition(b"\r\n\r\n")
    wanted = (header + found)[2:] + b"".join(body.splitlines(keepends=True)[:lines]) if found else content
    assert run([content]) == wanted
    assert run([content[n : n + step] for n in range(0, len(content), step)]) == wanted


@given(st.binary(max_size=100))
def test_no_octets_surprise_the_protocol(data: bytes) -> None:
    protocol = Pop3Protocol()
    protocol.feed(data + b"\r\n")
    while protocol.next() is not None:
        pass
