"""what IMAP answers to every command, in every state, with arguments of every kind

`run` asks a real session; docs/imap.md has the answers that are meant. To write that table anew, for somebody to
read: `PYTHONPATH=tests deploy/uv run python -m support.imap_table`.
"""

from __future__ import annotations

import os
import pathlib
import re
import ssl
import tempfile
from collections.abc import Iterator

import trio
from trio.testing import memory_stream_pair

from support.logins import FakeAccounts
from tripost.delivery.mailbox.opened import Opened
from tripost.delivery.mailbox.places import make_mailbox
from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.uids import file_name
from tripost.gateway.egress.imap.commands import COMMANDS
from tripost.gateway.egress.imap.context import ImapContext
from tripost.gateway.egress.imap.facts import LAYOUT
from tripost.gateway.egress.imap.session import serve_imap
from tripost.gateway.guard import Guard
from tripost.gateway.login import Logins
from tripost.gateway.peer import Peer, TlsFacts
from tripost.gateway.windows import Rate
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock

MARC = "marc@machin.com"
BEGAN = 1_700_000_000
NO_LIMITS = Policy()
LETTERS = [
    b"From: Fred <fred@truc.fr>\r\nSubject: one\r\n\r\nfirst\r\n",
    b"From: Ann <ann@truc.fr>\r\nSubject: two\r\nContent-Type: text/plain\r\n\r\nsecond line\r\nthird\r\n",
]
SETS = ("1 ", "1:* ", "9 ", "0 ", "x ")
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "CAPABILITY": ("", "x"),
    "NOOP": ("", "x"),
    "LOGOUT": ("", "x"),
    "ID": ("NIL", '("name" "x")', '("name")', ""),
    "STARTTLS": ("x",),
    "AUTHENTICATE": ("PLAIN", "plain =", "PLAIN %", "CRAM-MD5", "PLAIN AG1hcmNAbWFjaGluLmNvbQBzZWNyZXQ=", ""),
    "LOGIN": (f"{MARC} secret", f"{MARC} wrong", MARC, ""),
    "ENABLE": ("CONDSTORE", "IMAP4rev2 UTF8=ACCEPT QRESYNC", "XYZZY", ""),
    "NAMESPACE": ("", "x"),
    "SELECT": ("INBOX", "inbox", "Nowhere", "a/b", "..", "&", "INBOX (CONDSTORE)", "INBOX (QRESYNC (1 1))", ""),
    "EXAMINE": ("INBOX", "Nowhere"),
    "CREATE": ("A.B", "Old", "INBOX", "../x", "A..B", "X (USE (\\Sent))", ""),
    "DELETE": ("Old", "Nowhere", "INBOX", ""),
    "RENAME": ("Old New", "Old Old.Below", "Old INBOX", "INBOX New", "Nowhere New", "Old"),
    "SUBSCRIBE": ("Old", "Nowhere", ""),
    "UNSUBSCRIBE": ("Old", "Nowhere"),
    "LIST": (
        '"" *',
        '"" ""',
        '(SUBSCRIBED) "" (a b) RETURN (CHILDREN)',
        '(RECURSIVEMATCH) "" *',
        '"" * RETURN (X)',
        '""',
    ),
    "LSUB": ('"" *', '""'),
    "STATUS": ("INBOX (MESSAGES SIZE)", "Nowhere (MESSAGES)", "INBOX ()", "INBOX (X)", "INBOX"),
    "APPEND": (
        "INBOX {3+}\r\nx\r\n",
        'Old (\\Seen $X) " 1-Feb-2026 00:00:00 +0000" {3+}\r\nx\r\n {1+}\r\ny',
        "Nowhere {3+}\r\nx\r\n",
        "INBOX {0+}\r\n",
        "INBOX {99999999+}\r\n",
        "INBOX {99999999}\r\n",
        "INBOX {3+}\r\nx\0y",
        "INBOX ~{3+}\r\nx\0y",
        "INBOX (\\Recent) {1+}\r\nx",
        "INBOX x",
    ),
    "IDLE": ("", "\r\nNOOP"),
    "GETQUOTA": ('""', "x"),
    "GETQUOTAROOT": ("INBOX", "Nowhere"),
    "COMPRESS": ("LZW", ""),
    "CHECK": ("",),
    "CLOSE": ("", "x"),
    "UNSELECT": ("", "x"),
    "EXPUNGE": ("", "1"),
    "SEARCH": ("ALL", "RETURN (MIN COUNT) UNSEEN", "CHARSET X ALL", "UID 1:*", "$", "XYZZY", "(ALL", ""),
    "SORT": ("(SUBJECT) UTF-8 ALL", "(X) UTF-8 ALL", "(SUBJECT) X ALL", "(REVERSE) UTF-8 ALL"),
    "THREAD": ("REFERENCES UTF-8 ALL", "X UTF-8 ALL"),
    "FETCH": (
        *(f"{one}FLAGS" for one in SETS),
        "1 ALL",
        "1 (BODY[1] BODY[9])",
        "1 BODY[",
        "1 X",
        "1 FLAGS (CHANGEDSINCE 1)",
    ),
    "STORE": (
        *(f"{one}+FLAGS (\\Seen)" for one in SETS),
        "1 FLAGS \\Recent",
        "1 (UNCHANGEDSINCE 1) FLAGS.SILENT $X",
        "1 X",
    ),
    "COPY": (*(f"{one}Old" for one in SETS), "1 Nowhere", "1"),
    "MOVE": (*(f"{one}Old" for one in SETS), "1 Nowhere", "1"),
    "REPLACE": ("1 INBOX {3+}\r\nx\r\n", "9 INBOX {3+}\r\nx\r\n", "1 Nowhere {3+}\r\nx\r\n", "1 INBOX"),
    "UID EXPUNGE": ("1", "9", ""),
    "UID SEARCH": ("ALL",),
    "UID SORT": ("(SUBJECT) UTF-8 ALL",),
    "UID THREAD": ("ORDEREDSUBJECT UTF-8 ALL",),
    "UID FETCH": ("1 FLAGS", "9 FLAGS", "1 FLAGS (CHANGEDSINCE 1 VANISHED)", "1 FLAGS (VANISHED)"),
    "UID STORE": ("1 FLAGS ()", "9 FLAGS ()"),
    "UID COPY": ("1 Old", "9 Old"),
    "UID MOVE": ("1 Old", "9 Old"),
    "UID REPLACE": ("1 INBOX {3+}\r\nx\r\n", "9 INBOX {3+}\r\nx\r\n"),
    "XYZZY": ("",),
    "UID NOOP": ("",),
}
# what the client has said already, from where, and whether TLS runs
LOGIN = f"l LOGIN {MARC} secret\r\n"
STATES: dict[str, tuple[str, str, bool]] = {
    "begin": ("", "127.0.0.1", False),
    "TLS": ("", "192.0.2.1", True),
    "elsewhere": ("", "192.0.2.1", False),
    "TLS needed": ("", "127.0.0.1", False),
    "logged in": (LOGIN, "127.0.0.1", False),
    "selected": (f"{LOGIN}s SELECT INBOX\r\n", "127.0.0.1", False),
    "examined": (f"{LOGIN}s EXAMINE INBOX\r\n", "127.0.0.1", False),
}


def questions() -> Iterator[tuple[str, str, str]]:
    """Command, state, argument: all of them."""
    for verb, arguments in ARGUMENTS.items():
        for state in STATES:
            for argument in arguments:
                yield verb, state, argument


class House:
    """One mailbox with two messages and a folder, in `folder`; written anew by `fill`."""

    def __init__(self, folder: pathlib.Path, policy: Policy = NO_LIMITS, limit: int = 1 << 20) -> None:
        accounts = FakeAccounts({MARC: "secret"})
        bus, clock = Bus(), Clock()
        self.box = folder / "mail" / MARC
        self.opened = Opened(lambda: BEGAN, LAYOUT)
        self.context = ImapContext(
            "h",
            Logins(accounts, Guard(Rate(0, 600.0), 900.0), bus, clock),
            str(folder / "mail"),
            self.opened,
            bus,
            clock,
            policy=lambda account: policy,
            limit=limit,
        )
        self.fill(LETTERS)

    def fill(self, letters: list[bytes]) -> None:
        make_mailbox(str(self.box))
        for old in (self.box / "new").iterdir():
            old.unlink()
        for n, letter in enumerate(letters):
            (self.box / "new" / file_name(f"ID{n:04}_0", 100 + n, "h", len(letter))).write_bytes(letter)
        for part in ("new", "cur", "tmp"):
            (self.box / ".Old" / part).mkdir(parents=True, exist_ok=True)

    def peer(self, state: str) -> Peer:
        _, client, secured = STATES[state]
        tls = TlsFacts("TLSv1.3", "x", 256) if secured else None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # offers TLS; no handshake is made
        return Peer(service="imap", client=client, tls=tls, context=context, require_tls=state == "TLS needed")

    async def talk(self, state: str, data: bytes, *, step: int = 0) -> bytes:
        """Everything that is said to a whole session, `step` octets at a time."""
        ours, theirs = memory_stream_pair()
        got = bytearray()

        async def serve() -> None:
            await serve_imap(theirs, peer=self.peer(state), context=self.context)
            await theirs.aclose()

        async def write() -> None:
            try:
                for at in range(0, len(data), step or len(data)):
                    await ours.send_all(data[at : at + step] if step else data)
                await ours.send_stream.aclose()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the server hung up: that is what some of them want

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                nursery.start_soon(write)
                async for part in ours.receive_stream:
                    got += part
        return bytes(got)

    async def run(self, verb: str, state: str, argument: str) -> str:
        """The tagged answer, or what came instead of it."""
        before, _, _ = STATES[state]
        line = f"{before}t {verb}{' ' if argument and argument[0] != chr(13) else ''}{argument}\r\n"
        if verb == "IDLE":
            line += "DONE\r\n"
        if verb == "AUTHENTICATE":
            line += "*\r\n"
        said = (await self.talk(state, line.encode("latin-1"))).decode()
        found = [one for one in said.split("\r\n") if one.startswith(("t ", "* BYE"))]
        answer = next((one for one in found if one.startswith("t ")), found[0] if found else "nothing")
        answer = answer.removeprefix("t ")
        answer = re.sub(r"\[CAPABILITY [^\]]*\] ", "[CAPABILITY …] ", answer)
        return re.sub(r"MAILBOXID \([0-9a-f]+\)", "MAILBOXID (…)", answer)


def shown(argument: str) -> str:
    text = argument.replace("\r\n", "⏎").replace("\0", "␀").replace("|", "\\|")
    return f"`{text}`" if text else "none"


def rows(answers: dict[tuple[str, str, str], str]) -> Iterator[str]:
    """The table's lines: one per command, answer, and set of states; arguments that are answered alike together."""
    for verb, arguments in ARGUMENTS.items():
        found: dict[tuple[tuple[str, ...], str], list[str]] = {}
        for argument in arguments:
            by_answer: dict[str, list[str]] = {}
            for state in STATES:
                by_answer.setdefault(answers[verb, state, argument], []).append(state)
            for answer, states in by_answer.items():
                found.setdefault((tuple(states), answer), []).append(argument)
        for (states, answer), some in found.items():
            where = "always" if len(states) == len(STATES) else ", ".join(states)
            yield f"| `{verb}` | {where} | {' '.join(map(shown, some))} | `{answer}` |"


async def answers() -> dict[tuple[str, str, str], str]:
    """Each question to a mailbox as it was at the beginning."""
    found: dict[tuple[str, str, str], str] = {}
    memory = "/dev/shm"  # hundreds of mailboxes, each synced
    with tempfile.TemporaryDirectory(dir=memory if os.path.isdir(memory) else None) as folder:
        for n, one in enumerate(questions()):
            house = House(pathlib.Path(folder) / str(n))
            found[one] = await house.run(*one)
            house.opened.close()
    return found


async def table() -> list[str]:
    return ["| command | state | argument | answer |", "| --- | --- | --- | --- |", *rows(await answers())]


if __name__ == "__main__":
    assert set(COMMANDS) <= set(ARGUMENTS)
    print("\n".join(trio.run(table)))
