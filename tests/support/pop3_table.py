"""what POP3 answers to every command, in every state, with every kind of argument

`run` asks a real session; docs/pop3.md has the answers that are meant. To write that table anew, for somebody to
read: `PYTHONPATH=tests deploy/uv run python -m support.pop3_table`.
"""

from __future__ import annotations

import pathlib
import ssl
import tempfile
from collections.abc import Iterator

import trio
from trio.testing import memory_stream_pair

from tripost.delivery.mailbox.places import make_mailbox
from tripost.delivery.mailbox.uids import file_name
from tripost.gateway.accounts import Accounts
from tripost.gateway.egress.pop3_context import Pop3Context
from tripost.gateway.egress.pop3_protocol import COMMANDS
from tripost.gateway.egress.pop3_session import serve_pop3
from tripost.gateway.guard import Guard
from tripost.gateway.login import Logins
from tripost.gateway.peer import Peer, TlsFacts
from tripost.gateway.windows import Rate
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock

MARC = "marc@machin.com"
LETTERS = [b"Subject: one\r\n\r\n.dot\r\n", b"Subject: two\r\n\r\nline\r\nline\r\n"]
NUMBERS = ("", "1", "3", "0", "-1", "+1", "1x", "x", "99999999999", "²", "1 1", "1 ")
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "none": ("", "x", " "),
    "text": ("", MARC, "secret word", "é"),
    "number": NUMBERS,
    "number?": NUMBERS,
    "top": ("", "1", "1 0", "1 99999999999", "3 1", "0 1", "1 -1", "-1 1", "1 x", "1 1 1"),
    "auth": ("", "PLAIN", "plain", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5", "PLAIN =", "PLAIN %", "PLAIN = =", "é"),
    "language": ("", "en", "EN", "*", "fr", "en en", "é"),
    "unknown": ("", "x"),
}
UNKNOWN = ("APOP", "XYZZY")
# what the client has said already, from where, and whether TLS runs
STATES: dict[str, tuple[str, str, bool]] = {
    "begin": ("", "127.0.0.1", False),
    "after USER": (f"USER {MARC}\r\n", "127.0.0.1", False),
    "after UTF8": ("UTF8\r\n", "127.0.0.1", False),
    "TLS": ("", "192.0.2.1", True),
    "elsewhere": ("", "192.0.2.1", False),
    "TLS needed": ("", "127.0.0.1", False),
    "logged in": (f"USER {MARC}\r\nPASS secret\r\n", "127.0.0.1", False),
}
END = "\r\n.\r\n"


def kind_of(verb: str) -> str:
    return COMMANDS[verb].takes if verb in COMMANDS else "unknown"


def questions() -> Iterator[tuple[str, str, str]]:
    """Command, state, argument: all of them."""
    for verb in (*COMMANDS, *UNKNOWN):
        for state in STATES:
            for argument in ARGUMENTS[kind_of(verb)]:
                yield verb, state, argument


class House:
    """One mailbox with two messages, in `folder`."""

    def __init__(self, folder: pathlib.Path) -> None:
        accounts = Accounts(str(folder / "accounts"))
        accounts.add(MARC, "secret", "SCRAM-SHA-256")
        bus, clock = Bus(), Clock()
        box = folder / "mail" / MARC
        make_mailbox(str(box))
        for n, letter in enumerate(LETTERS):
            (box / "new" / file_name(f"ID{n}_0", 100 + n, "h", len(letter))).write_bytes(letter)
        logins = Logins(accounts, Guard(Rate(0, 600.0), 900.0), bus, clock)
        self.context = Pop3Context("h", logins, str(folder / "mail"), bus, clock)

    def peer(self, state: str) -> Peer:
        _, client, secured = STATES[state]
        tls = TlsFacts("TLSv1.3", "x", 256) if secured else None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # offers TLS; no handshake is made
        return Peer(service="pop3", client=client, tls=tls, context=context, require_tls=state == "TLS needed")

    async def talk(self, state: str, text: str, *, step: int = 0) -> str:
        """Everything that is said to a whole session, `step` octets at a time."""
        ours, theirs = memory_stream_pair()
        got = bytearray()
        data = text.encode()

        async def serve() -> None:
            await serve_pop3(theirs, peer=self.peer(state), context=self.context)
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
        return got.decode()

    async def run(self, verb: str, state: str, argument: str) -> str:
        """The answer's first line; … where more follow."""
        before, _, _ = STATES[state]
        said = await self.talk(state, before + _line(verb, argument))
        rest = said.split("\r\n", 1 + before.count("\r\n"))[-1]
        first, _, more = rest.partition("\r\n")
        return f"{first} …" if more else first


def _line(verb: str, argument: str) -> str:
    return f"{verb}{' ' if argument else ''}{argument}\r\n" if argument != " " else f"{verb} \r\n"


def shown(argument: str) -> str:
    return f"`{argument}`" if argument else "none"


def rows(answers: dict[tuple[str, str, str], str]) -> Iterator[str]:
    """The table's lines: one per command, answer, and set of states; arguments that are answered alike together."""
    for verb in (*COMMANDS, *UNKNOWN):
        found: dict[tuple[tuple[str, ...], str], list[str]] = {}
        for argument in ARGUMENTS[kind_of(verb)]:
            by_answer: dict[str, list[str]] = {}
            for state in STATES:
                by_answer.setdefault(answers[verb, state, argument], []).append(state)
            for answer, states in by_answer.items():
                found.setdefault((tuple(states), answer), []).append(argument)
        for (states, answer), arguments in found.items():
            where = "always" if len(states) == len(STATES) else ", ".join(states)
            yield f"| `{verb}` | {where} | {' '.join(map(shown, arguments))} | `{answer}` |"


async def table() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        house = House(pathlib.Path(folder))
        answers = {one: await house.run(*one) for one in questions()}
    return ["| command | state | argument | answer |", "| --- | --- | --- | --- |", *rows(answers)]


if __name__ == "__main__":
    print("\n".join(trio.run(table)))
