"""whole IMAP sessions on a mailbox on disk: what is told, to whom, and what bad clients get"""

from __future__ import annotations

import os
import pathlib
import re
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import memory_stream_pair

from support.imap_table import LETTERS, LOGIN, MARC, House
from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.session import open_mailbox
from tripost.gateway import guard
from tripost.gateway.egress.imap.session import serve_imap

MIME = (
    b'From: "Ann \\"A\\" B" <ann@truc.fr>\r\nTo: marc@machin.com, Team: a@x, b@y;\r\n'
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Date: Wed, 17 Jul 1996 02:23:25 -0700\r\nMessage-ID: <m@truc.fr>\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"Gr=C3=BC=C3=9Fe!\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ninner body\r\n"
    b"--b\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n"
    b'Content-Disposition: attachment; filename="a b"\r\n\r\nAAEC\r\n--b--\r\n'
)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SHORTEST", 0.0)


@pytest.fixture
async def house(tmp_path: pathlib.Path) -> House:
    return House(tmp_path)


class Talk:
    """A client that waits for its answers."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._data = b""
        self._tag = 0

    async def until(self, pattern: bytes) -> bytes:
        with trio.fail_after(20):
            while (found := re.search(pattern, self._data, re.M)) is None:
                data = await self._stream.receive_some()
                assert data, self._data
                self._data += data
        said, self._data = self._data[: found.end()], self._data[found.end() :]
        return said

    async def say(self, text: str | bytes) -> bytes:
        """All of the answer; its last line begins with OK, NO or BAD."""
        self._tag += 1
        octets = text.encode("utf-8") if isinstance(text, str) else text
        await self._stream.send_all(b"x%d %b\r\n" % (self._tag, octets))
        said = await self.until(rb"^x%d (OK|NO|BAD).*\r\n" % self._tag)
        return said.replace(b"x%d " % self._tag, b"")

    async def send(self, octets: bytes) -> None:
        await self._stream.send_all(octets)


@asynccontextmanager
async def connected(house: House, *, select: str = "INBOX") -> AsyncGenerator[Talk]:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_imap(theirs, peer=house.peer("begin"), context=house.context)

        nursery.start_soon(serve)
        talk = Talk(ours)
        await talk.until(rb"^\* OK.*\r\n")
        assert b"OK" in await talk.say(f"LOGIN {MARC} secret")
        if select:
            assert b"\nOK" in await talk.say(f"SELECT {select}")
        yield talk
        nursery.cancel_scope.cancel()


async def test_everything_that_fetch_can_tell(house: House) -> None:
    house.fill([*LETTERS, MIME])
    async with connected(house) as one:
        said = await one.say("FETCH 3 (ENVELOPE BODYSTRUCTURE BODY RFC822.SIZE PREVIEW THREADID INTERNALDATE)")
        sender = rb'(("Ann \"A\" B" NIL "ann" "truc.fr"))'
        to = b'((NIL NIL "marc" "machin.com")(NIL NIL "Team" NIL)(NIL NIL "a" "x")(NIL NIL "b" "y")(NIL NIL NIL NIL))'
        assert (
            b'ENVELOPE ("Wed, 17 Jul 1996 02:23:25 -0700" "=?utf-8?q?Gr=C3=BC=C3=9Fe?=" '
            + b" ".join([sender] * 3)
            + b" "
            + to
            + b' NIL NIL NIL "<m@truc.fr>")'
        ) in said
        text = b'("TEXT" "PLAIN" ("CHARSET" "utf-8") NIL NIL "QUOTED-PRINTABLE" 16 0'
        inner = (
            b'("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 28 (NIL "inner" NIL NIL NIL NIL NIL NIL NIL NIL) '
            b'("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 10 0'
        )
        assert (
            b"BODYSTRUCTURE (" + text + b" NIL NIL NIL NIL)" + inner + b" NIL NIL NIL NIL) 2 NIL NIL NIL NIL)"
            b'("APPLICATION" "X" NIL NIL NIL "BASE64" 4 NIL ("attachment" ("FILENAME" "a b")) NIL NIL)'
            b' "MIXED" ("BOUNDARY" "b") NIL NIL NIL)'
        ) in said
        assert b"BODY (" + text + b")" + inner + b") 2)" in said
        assert b"RFC822.SIZE %d PREVIEW {8}\r\n%b" % (len(MIME), "Grüße!".encode()) in said
        wanted = {
            "BODY.PEEK[]": MIME,
            "BODY.PEEK[]<5.9>": MIME[5:14],
            "BODY.PEEK[]<9999.9>": b"",
            "BODY.PEEK[HEADER]": MIME[: MIME.index(b"preamble")],
            "BODY.PEEK[TEXT]": MIME[MIME.index(b"preamble") :],
            "BODY.PEEK[HEADER.FIELDS (Date nothing)]": b"Date: Wed, 17 Jul 1996 02:23:25 -0700\r\n\r\n",
            "BODY.PEEK[1]": b"Gr=C3=BC=C3=9Fe!",
            "BODY.PEEK[3.MIME]": b"Content-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n"
            b'Content-Disposition: attachment; filename="a b"\r\n\r\n',
            "BODY.PEEK[2.HEADER]": b"Subject: inner\r\n\r\n",
            "BODY.PEEK[2.TEXT]": b"inner body",
            "BODY.PEEK[2.1]": b"inner body",
            "BINARY.PEEK[1]": "Grüße!".encode(),
            "BINARY.PEEK[3]": b"\0\1\2",
        }
        for item, octets in wanted.items():
            said = await one.say(f"FETCH 3 {item}")
            assert b"{%d}\r\n%b)\r\n" % (len(octets), octets) in said, (item, said)
        assert b"BINARY[3] ~{3}" in said
        assert b"BODY[4] NIL" in await one.say("FETCH 3 BODY.PEEK[4]")
        assert b"BINARY.SIZE[1] 8" in await one.say("FETCH 3 BINARY.SIZE[1]")
        assert b"FLAGS (\\Seen \\Recent)" in await one.say("FETCH 3 BODY[1]")
        assert await one.say("FETCH 3 BODY[1]") == b"* 3 FETCH (BODY[1] {16}\r\nGr=C3=BC=C3=9Fe!)\r\nOK that is all\r\n"


@pytest.mark.parametrize(
    ("program", "numbers"),
    [
        ("ALL", "1 2 3"),
        ("FROM ann", "2 3"),
        ('FROM ann@truc.fr SUBJECT "grüße"', "3"),
        ('SUBJECT "GRÜSSE"', "3"),
        ("HEADER Content-Type text/plain", "2"),
        ('HEADER Message-ID ""', "3"),
        ('BODY "grüße!"', "3"),
        ("BODY inner", "3"),
        ("TEXT second", "2"),
        ("NOT (OR 1 TEXT second)", "3"),
        ("OR FROM fred (TO team NOT SEEN)", "1 3"),
        ("SENTON 17-Jul-1996", "3"),
        ("SENTBEFORE 1-Jan-2000", "3"),
        ("SINCE 1-Jan-2020 UNSEEN", "1 2 3"),
        ("BEFORE 1-Jan-2020", ""),
        ("YOUNGER 3600", "1 2 3"),
        ("OLDER 3600", ""),
        ("LARGER 200", "3"),
        ("SMALLER 60", "1"),
        ("UID 2:*", "2 3"),
        ("2,3 UNKEYWORD x", "2 3"),
        ("KEYWORD x", ""),
        ("NEW", "1 2 3"),
        ("MODSEQ 1", "1 2 3"),
        ("CHARSET ISO-8859-1 SUBJECT {4+}\r\nGr\xfc\xdf", "3"),
    ],
)
async def test_searches(house: House, program: str, numbers: str) -> None:
    house.fill([*LETTERS, MIME])
    octets = program.encode("latin-1" if "CHARSET" in program else "utf-8")
    async with connected(house) as one:
        said = await one.say(b"SEARCH " + octets)
        assert re.sub(rb" \(MODSEQ \d+\)", b"", said).splitlines()[-2] == f"* SEARCH {numbers}".strip().encode(), said


async def test_answers_to_searches_in_the_new_form(house: House) -> None:
    house.fill([*LETTERS, MIME])
    async with connected(house) as one:
        said = await one.say("UID SEARCH RETURN (MIN MAX COUNT ALL) ALL")
        assert b'(TAG "x3") UID MIN 1 MAX 3 COUNT 3 ALL 1:3\r\n' in said
        assert b"COUNT 0\r\n" in await one.say("SEARCH RETURN (MIN COUNT) FROM nobody")
        await one.say("SEARCH RETURN (SAVE) FROM ann")
        assert b"* SEARCH 2 3\r\n" in await one.say("SEARCH $")
        assert (await one.say("FETCH $ UID")).count(b"FETCH") == 2
        assert b"* SORT 3 1 2\r\n" in await one.say("SORT (DATE) UTF-8 ALL")
        assert b"* SORT 3 2 1\r\n" in await one.say("SORT (REVERSE SIZE) UTF-8 ALL")
        assert b"* SORT 2 3 1\r\n" in await one.say("SORT (FROM REVERSE SUBJECT) UTF-8 ALL")
        await one.say("ENABLE IMAP4rev2")
        assert b'* ESEARCH (TAG "x12") ALL 1:3\r\n' in await one.say("SEARCH ALL")


async def test_threads(house: House) -> None:
    def letter(n: int, subject: str, references: str = "") -> bytes:
        more = f"References: {references}\r\n" if references else ""
        date = f"{n} Jan 2024 00:00:00 +0000"
        return f"Message-ID: <{n}@x>\r\nSubject: {subject}\r\nDate: {date}\r\n{more}\r\nx\r\n".encode()

    house.fill(
        [
            letter(1, "a"),
            letter(2, "Re: a", "<1@x>"),
            letter(3, "other"),
            letter(4, "Re: a", "<1@x> <2@x>"),
            letter(5, "Re: a", "<1@x>"),
            letter(6, "Fwd: other"),
            letter(7, "x", "<7@x> <8@x> <7@x>"),
        ]
    )
    async with connected(house) as one:
        assert b"* THREAD (1 (2 4)(5))(3 6)(7)\r\n" in await one.say("THREAD REFERENCES UTF-8 ALL")
        assert b"* THREAD (1 (2)(4)(5))(3 6)(7)\r\n" in await one.say("UID THREAD ORDEREDSUBJECT UTF-8 ALL")


async def test_two_sessions_hear_of_each_other(house: House) -> None:
    async with connected(house) as one, connected(house) as two:
        await two.send(b"i IDLE\r\n")
        await two.until(rb"^\+ .*\r\n")
        with trio.fail_after(1):
            await one.say("STORE 2 +FLAGS (\\Flagged $Label)")
            assert b"* FLAGS (\\Seen" in await two.until(rb"^\* 2 FETCH \(FLAGS \(\\Flagged \$Label\)\)\r\n")
        with trio.fail_after(1):
            await one.say("STORE 1 +FLAGS.SILENT \\Deleted")
            await one.say("EXPUNGE")
            await two.until(rb"^\* 1 EXPUNGE\r\n")
        with trio.fail_after(1):
            (house.box / "new" / "1.x.h").write_bytes(b"Subject: new\r\n\r\n")
            house.opened.touched(str(house.box))  # as a delivery does
            await two.until(rb"^\* 2 EXISTS\r\n\* \d RECENT\r\n")
        with trio.fail_after(1):
            pop3 = await trio.to_thread.run_sync(open_mailbox, str(house.box.parent), MARC)
            pop3.remove([0])
            pop3.close()
            house.opened.touched(str(house.box))
            await two.until(rb"^\* 1 EXPUNGE\r\n")
        await two.send(b"DONE\r\n")
        await two.until(rb"^i OK.*\r\n")
        assert await one.say("NOOP") == b"* 1 EXPUNGE\r\n* 1 EXISTS\r\n* 0 RECENT\r\nOK done\r\n"


async def test_another_program_is_noticed_while_idle(house: House) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.opened.run)
        async with connected(house) as one:
            await one.send(b"i IDLE\r\n")
            await one.until(rb"^\+ .*\r\n")
            name = sorted(os.listdir(house.box / "cur"))[0]
            with trio.fail_after(3):
                os.rename(house.box / "cur" / name, house.box / "cur" / f"{name}S")
                await one.until(rb"^\* 1 FETCH \(FLAGS \(\\Seen \\Recent\)\)\r\n")
        nursery.cancel_scope.cancel()


async def test_numbers_stay_while_they_are_used(house: House) -> None:
    async with connected(house) as one, connected(house) as two:
        await two.say("STORE 1 +FLAGS \\Deleted")
        await two.say("EXPUNGE")
        said = await one.say("FETCH 1:2 UID")
        assert (b"EXPUNGE" in said, said.count(b"FETCH")) == (False, 1)
        assert b"* 1 EXPUNGE" in await one.say("NOOP")


async def test_resynchronising(house: House) -> None:
    house.fill([*LETTERS, MIME])
    async with connected(house) as one:
        await one.say("ENABLE QRESYNC")
        said = await one.say("SELECT INBOX")
        found = re.search(rb"UIDVALIDITY (\d+).*HIGHESTMODSEQ (\d+)", said, re.S)
        assert found is not None
        await one.say("STORE 3 +FLAGS \\Seen")
        await one.say("STORE 1 +FLAGS \\Deleted")
        assert b"* VANISHED 1\r\nOK [HIGHESTMODSEQ" in await one.say("EXPUNGE")
        said = await one.say(b"SELECT INBOX (QRESYNC (%b %b 1:3))" % found.groups())
        assert b"* OK [CLOSED]" in said
        assert b"* VANISHED (EARLIER) 1\r\n" in said
        assert re.search(rb"\* 2 FETCH \(UID 3 FLAGS \(\\Seen\) MODSEQ \(\d+\)\)\r\n", said)
        assert b"UID 2 " not in said
        said = await one.say(b"UID FETCH 1:* FLAGS (CHANGEDSINCE %b VANISHED)" % found[2])
        assert b"* VANISHED (EARLIER) 1\r\n" in said
        assert said.count(b"FETCH") == 1
        assert b"[MODIFIED 3]" in await one.say(b"UID STORE 2:3 (UNCHANGEDSINCE %b) -FLAGS \\Seen" % found[2])


async def test_appending(house: House) -> None:
    big = b"Subject: big\r\n\r\n" + b"0123456789abcde\r\n" * 40_000
    async with connected(house) as one:
        said = await one.say(
            b'APPEND INBOX (\\Seen kw) "17-Jul-1996 02:44:25 -0700" {%d+}\r\n%b {12+}\r\nSubject: x\n\n'
            % (len(big), big)
        )
        assert b"OK [APPENDUID 1700000000 3:4] there" in said
        assert b"* 4 EXISTS" in said
        said = await one.say("FETCH 3 (FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])")
        assert b'FLAGS (\\Seen kw \\Recent) INTERNALDATE "17-Jul-1996 09:44:25 +0000" RFC822.SIZE %d' % len(big) in said
        assert big in said
        assert b"BODY[] {14}\r\nSubject: x\r\n\r\n" in await one.say("FETCH 4 BODY.PEEK[]")
        assert os.listdir(house.box / "tmp") == []
        await one.send(b"z APPEND INBOX {5}\r\n")
        await one.until(rb"^\+ .*\r\n")
        await one.send(b"abc")
    with trio.fail_after(5):
        while os.listdir(house.box / "tmp"):  # noqa: ASYNC110 - the connection broke in the middle: nobody tells
            await trio.sleep(0.01)


async def test_replacing(house: House) -> None:
    async with connected(house) as one:
        said = await one.say(b"UID REPLACE 1 INBOX (\\Draft) {3+}\r\nx\r\n")
        assert re.match(rb"\* OK \[APPENDUID 1700000000 3\] there\r\n\* 1 EXPUNGE\r\n\* 2 EXISTS\r\n", said), said


async def test_a_full_mailbox(tmp_path: pathlib.Path) -> None:
    house = House(tmp_path, Policy(quota=200, quota_messages=3))
    async with connected(house) as one:
        assert b'QUOTA "" (STORAGE 1 0 MESSAGE 2 3)' in await one.say("GETQUOTAROOT INBOX")
        assert b"NO [OVERQUOTA]" in await one.say(b"APPEND INBOX {90+}\r\n" + b"x" * 90)
        assert b"NO [OVERQUOTA]" in await one.say("COPY 1:2 Old")
        assert b"OK" in await one.say(b"APPEND INBOX {3+}\r\nx\r\n")
        assert b"NO [OVERQUOTA]" in await one.say(b"APPEND INBOX {3+}\r\nx\r\n")
        assert b"OK" in await one.say("MOVE 1 Old")


async def test_mailboxes(house: House) -> None:
    async with connected(house, select="") as one:
        for name in ("Sent", "A.B.C", "Entw&APw-rfe"):
            assert (await one.say(f"CREATE {name}")).startswith(b"OK [MAILBOXID (")
        said = await one.say('LIST "" % RETURN (STATUS (MESSAGES UNSEEN))')
        assert b'* LIST (\\HasNoChildren) "." INBOX\r\n* STATUS INBOX (MESSAGES 2 UNSEEN 2)\r\n' in said
        assert b'* LIST (\\NonExistent \\HasChildren) "." "A"\r\n* LIST (\\HasNoChildren) "." "Entw&APw-rfe"' in said
        assert b'* LIST (\\HasNoChildren \\Sent) "." "Sent"\r\n' in said
        assert b'(\\HasNoChildren) "." "A.B.C"' in await one.say('LIST "" A*C')
        await one.say("SUBSCRIBE A.B.C")
        assert b'* LSUB (\\Noselect) "." "A"\r\n' in await one.say('LSUB "" %')
        said = await one.say('LIST (SUBSCRIBED RECURSIVEMATCH) "" %')
        assert b'* LIST (\\NonExistent \\HasChildren) "." "A" ("CHILDINFO" ("SUBSCRIBED"))\r\n' in said
        assert (await one.say('LIST (SPECIAL-USE) "" *')).count(b"LIST (") == 1
        await one.say("ENABLE UTF8=ACCEPT")
        assert '"Entwürfe"'.encode() in await one.say('LIST "" "Entwü%"')
        assert b"[CANNOT]" in await one.say('RENAME "Entwürfe" "Entwürfe.alt"')
        assert b"OK" in await one.say('DELETE "Entwürfe"')
        assert b"* 0 EXISTS" in await one.say("SELECT A.B.C")
        assert b"OK" in await one.say("RENAME A D")
        assert b"OK [APPENDUID" in await one.say(b"APPEND D.B.C {1+}\r\nx")
        assert b"OK" in await one.say("RENAME INBOX Kept")
        assert b"(MESSAGES 2)" in await one.say("STATUS Kept (MESSAGES)")
        assert b"(MESSAGES 0)" in await one.say("STATUS INBOX (MESSAGES)")


async def test_a_mailbox_that_is_deleted_under_a_session(house: House) -> None:
    async with connected(house) as one, connected(house, select="Old") as two:
        await one.say("COPY 1:2 Old")
        assert b"* 2 EXISTS" in await two.say("NOOP")
        await one.say("DELETE Old")
        assert (await two.say("NOOP")).count(b"EXPUNGE") == 2
        for command in ("FETCH 1:* FLAGS", "SEARCH ALL", "EXPUNGE", "UID STORE 1 FLAGS ()", "CLOSE", "SELECT INBOX"):
            assert re.search(rb"^(OK|NO|BAD) ", await two.say(command), re.M), command


async def test_deflated(house: House) -> None:
    async with connected(house) as one:
        assert b"OK" in await one.say("COMPRESS DEFLATE")
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        unpacker = zlib.decompressobj(-15)
        await one.send(
            packer.compress(b"a FETCH 1 BODY.PEEK[]\r\nb COMPRESS DEFLATE\r\n") + packer.flush(zlib.Z_SYNC_FLUSH)
        )
        got = b""
        with trio.fail_after(5):
            while b"b NO [COMPRESSIONACTIVE]" not in got:
                got += unpacker.decompress(await one._stream.receive_some())
        assert LETTERS[0] in got
        bomb = packer.compress(b"\0" * 50_000_000 + b"\r\nz NOOP\r\n") + packer.flush(zlib.Z_SYNC_FLUSH)
        assert len(bomb) < 100_000
        await one.send(bomb)
        with trio.fail_after(20):
            while b"z OK" not in got:
                got += unpacker.decompress(await one._stream.receive_some())
        assert b"BAD line longer" in got


async def test_cuts_do_not_matter(house: House, tmp_path: pathlib.Path) -> None:
    text = (
        LOGIN.encode()
        + b"a SELECT INBOX\r\nb FETCH 1:* (UID FLAGS BODY.PEEK[TEXT])\r\nc STORE 1 +FLAGS {5}\r\n\\Seen\r\n"
        + b"d APPEND Old {10}\r\n0123456789 (\\Seen) {3+}\r\nabc\r\ne SEARCH SUBJECT {3}\r\none\r\nf NOOP\r\n"
        + b'g IDLE\r\nDONE\r\nh FETCH 1 BODY[\r\ni LIST "" {1}\r\n*\r\nj LOGOUT\r\n'
    )
    seen: set[bytes] = set()
    for step in (0, 1, 2, 3, 7, 50):
        one = House(tmp_path / str(step))
        seen.add(re.sub(rb"\d{13}|MAILBOXID \(\w+\)", b"", await one.talk("begin", text, step=step)))
    assert len(seen) == 1
    said = seen.pop()
    assert said.count(b"\nc BAD") == 1
    assert said.endswith(b"* BYE bye\r\nj OK bye\r\n")


async def test_bad_clients(house: House) -> None:
    explosion = b"a SEARCH " + b"OR " * 400 + b"ALL " * 400 + b"ALL\r\n"
    for data, answer in [
        (b"a FETCH 1 (" + b"(" * 10_000 + b"\r\n", b"a BAD"),
        (b"a SELECT ../../etc\r\n", b"a NO [CANNOT]"),
        (b"a SELECT &AC4ALgAv-\r\n", b"a NO [CANNOT]"),
        (b"a CREATE " + b"x." * 50 + b"x\r\n", b"a NO [CANNOT]"),
        (explosion, b"a BAD"),
        (b"a LOGIN {99999999999999}\r\n", b"a BAD"),
        (b"a APPEND INBOX {99999999999999999999+}\r\n", b"* BYE [TOOBIG]"),
        (b"a APPEND INBOX {5}\r\na\0b\0c\r\n", b"a BAD NUL"),
        (b"a SELECT INBOX\r\nb FETCH 1:4294967295 FLAGS\r\n", b"b BAD"),
        (b"a SELECT INBOX\r\nb UID FETCH 1:4294967295 FLAGS\r\n", b"b OK"),
        (
            b"a SELECT INBOX\r\nb UID STORE 1 +FLAGS (" + b" ".join(b"k%d" % n for n in range(90)) + b")\r\n",
            b"b NO [LIMIT]",
        ),
        (b'a LIST "" "' + b"*a%" * 100 + b'"\r\n', b"a OK"),
        (b"\r\n" * 99 + b"a NOOP\r\n", b"a OK"),
        (b"\r\n" * 101 + b"a NOOP\r\n", b"* BYE too many mistakes"),
        (b"a NOOP\nb NOOP\r\n", b"a BAD bare LF"),
        (b"\x16\x03\x01\0\xa5\x01\0\0\xa1\x03\x03\r\n", b"* BAD"),
    ]:
        said = await house.talk("logged in", LOGIN.encode() + data)
        assert answer in said, (data[:60], said[-200:])


async def test_five_wrong_passwords(house: House) -> None:
    said = await house.talk("begin", b"".join(b"a LOGIN %b wrong\r\n" % MARC.encode() for _ in range(6)))
    assert said.count(b"a NO [AUTHENTICATIONFAILED]") == 5
    assert b"* BYE too many failed logins" in said
