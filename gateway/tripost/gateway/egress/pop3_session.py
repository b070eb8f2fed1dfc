"""one POP3 client

The thin driver of `pop3_protocol`. A mailbox has one session at a time; what
is deleted goes at QUIT and not before (RFC 1939 §6).

Fails    -ERR, and the session lives; silence for `IDLE` ends it without
         deleting anything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio

from tripost.delivery.mailbox.session import MailboxInUse, MailboxSession, Stored, open_mailbox
from tripost.delivery.wire.dots import DotStuffer
from tripost.gateway.accounts import Accounts
from tripost.gateway.egress.pop3_protocol import Command, Mistake, Pop3Protocol, capabilities, top
from tripost.gateway.lifecycle import Draining
from tripost.queue.clock import Clock
from tripost.queue.events import Bus, Connected, Fetched, LoggedIn, LoginFailed

T = TypeVar("T")
IDLE = 600.0  # seconds, RFC 1939 §3
WRITE = 300.0  # seconds for one piece that a slow client takes
READ = 65_536
LOGIN_TRIES = 5
MISTAKES = 100
FAILED_PAUSE = 1.0  # seconds that a wrong password costs
OUT_LIMIT = 65_536


@dataclass(frozen=True)
class Pop3Context:
    """What all sessions share; `mailboxes` is the folder they are in."""

    hostname: str
    accounts: Accounts
    mailboxes: str
    bus: Bus
    clock: Clock
    draining: Draining = field(default_factory=Draining)


async def serve_pop3(stream: trio.abc.Stream, *, client: str, context: Pop3Context) -> None:
    """Until QUIT, silence, or the connection's end."""
    session = _Session(stream, client, context)
    try:
        await session.run()
    finally:
        session.close()


class _Session:
    def __init__(self, stream: trio.abc.Stream, client: str, context: Pop3Context) -> None:
        self._stream = stream
        self._client = client
        self._context = context
        self._protocol = Pop3Protocol()
        self._out = bytearray()
        self._user = ""
        self._box: MailboxSession | None = None
        self._deleted: set[int] = set()
        self._failures = 0
        self._mistakes = 0
        self._sent = 0
        self._account = ""
        self._open = True

    async def run(self) -> None:
        context = self._context
        context.bus.emit(Connected(time=context.clock.now(), service="pop3", client=self._client))
        self._ok(f"{context.hostname} POP3 ready")
        while self._open:
            command = self._protocol.next()
            if command is None:
                if not await self._read():
                    return
            elif isinstance(command, Mistake):
                self._mistake(command.text)
            else:
                await self._handle(command)
            if len(self._out) > OUT_LIMIT:
                await self._flush()
        await self._flush()
        with trio.move_on_after(WRITE):
            await self._stream.aclose()

    async def _read(self) -> bool:
        await self._flush()
        with self._context.draining.waiting(IDLE):
            data = await self._stream.receive_some(READ)
            self._protocol.feed(bytes(data))
            return bool(data)
        return False

    async def _flush(self) -> None:
        if self._out:
            data, self._out = bytes(self._out), bytearray()
            await self._write(data)

    async def _write(self, data: bytes) -> None:
        with trio.move_on_after(WRITE) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the client does not read")

    def _ok(self, text: str = "") -> None:
        self._out += f"+OK {text}".rstrip().encode() + b"\r\n"

    def _err(self, text: str) -> None:
        self._out += f"-ERR {text}\r\n".encode()

    def _mistake(self, text: str) -> None:
        self._err(text)
        self._mistakes += 1
        if self._mistakes >= MISTAKES:
            self._open = False

    async def _handle(self, command: Command) -> None:
        verb = command.verb
        if verb == "USER":
            self._user = command.text
            self._ok("now the password")
        elif verb == "PASS":
            await self._login(command.text)
        elif verb == "CAPA":
            self._ok("what there is")
            self._rows(capabilities())
        elif verb == "QUIT":
            await self._quit()
        elif self._box is not None:
            await self._transaction(self._box, command)

    def _rows(self, rows: list[str]) -> None:
        self._out += "".join(f"{row}\r\n" for row in rows).encode() + b".\r\n"

    # --- logging in ---

    async def _login(self, password: str) -> None:
        context, user = self._context, self._user
        self._user = ""
        if not user:
            self._mistake("USER first")
            return
        if not ipaddress.ip_address(self._client).is_loopback:
            self._err("[SYS/PERM] passwords are not taken without TLS from other machines")
            return
        await self._flush()
        try:
            good = await context.accounts.verify(user, password)
            box = await _in_thread(partial(open_mailbox, context.mailboxes, user)) if good else None
        except MailboxInUse:
            self._err("[IN-USE] another session has this mailbox")
            return
        except OSError:
            self._err("[SYS/TEMP] the mailbox cannot be opened now")
            return
        if box is None:
            await self._login_failed()
            return
        self._box, self._protocol.logged_in = box, True
        context.bus.emit(LoggedIn(time=context.clock.now(), service="pop3", account=user, client=self._client))
        self._account = user
        self._ok(f"{len(box.messages)} messages")

    async def _login_failed(self) -> None:
        context = self._context
        self._failures += 1
        context.bus.emit(LoginFailed(time=context.clock.now(), service="pop3", client=self._client))
        await trio.sleep(FAILED_PAUSE)
        self._err("[AUTH] wrong user or password")
        self._open = self._failures < LOGIN_TRIES

    # --- the mailbox ---

    async def _transaction(self, box: MailboxSession, command: Command) -> None:
        verb = command.verb
        if verb == "NOOP":
            self._ok()
        elif verb == "RSET":
            self._deleted.clear()
            self._ok()
        elif verb == "STAT":
            there = self._there(box)
            self._ok(f"{len(there)} {sum(one.size for _, one in there)}")
        elif not command.numbers:
            self._ok("the list")
            self._rows([_row(verb, number, one) for number, one in self._there(box)])
        else:
            number = command.numbers[0]
            if not 1 <= number <= len(box.messages) or number in self._deleted:
                self._mistake("no such message")
                return
            await self._message(box, command, number, box.messages[number - 1])

    def _there(self, box: MailboxSession) -> list[tuple[int, Stored]]:
        return [(number, one) for number, one in enumerate(box.messages, 1) if number not in self._deleted]

    async def _message(self, box: MailboxSession, command: Command, number: int, one: Stored) -> None:
        if command.verb == "DELE":
            self._deleted.add(number)
            self._ok("to be deleted at QUIT")
        elif command.verb in ("LIST", "UIDL"):
            self._ok(_row(command.verb, number, one))
        else:
            await self._send(box, one, command.numbers[1] if command.verb == "TOP" else None)

    async def _send(self, box: MailboxSession, one: Stored, lines: int | None) -> None:
        """RETR, or TOP with its number of body lines."""
        try:
            data = await _in_thread(partial(box.read, one, 0, READ))
        except OSError:
            self._err("[SYS/TEMP] the message cannot be read")
            return
        self._ok(f"{one.size} octets")
        stuffer, at, state = DotStuffer(), 0, [0, lines or 0, 2]
        while data:
            at += len(data)
            over = False
            if lines is not None:
                data, over = top(data, state)
            self._out += stuffer.feed(data)
            await self._flush()
            if over or at >= one.size:
                break
            # a failure here ends the connection: the client must not take a part for the whole
            data = await _in_thread(partial(box.read, one, at, READ))
        self._out += stuffer.finish()
        self._sent += lines is None

    # --- the end ---

    async def _quit(self) -> None:
        self._open = False
        box, context = self._box, self._context
        if box is None:
            self._ok("bye")
            return
        gone = [box.messages[number - 1] for number in sorted(self._deleted)]
        try:
            deleted = await _in_thread(partial(box.remove, gone))
        except OSError:
            self._err("[SYS/TEMP] some deleted messages were not removed")
            return
        self._ok(f"bye, {deleted} deleted")
        context.bus.emit(
            Fetched(
                time=context.clock.now(),
                account=self._account,
                client=self._client,
                messages=self._sent,
                deleted=deleted,
            )
        )

    def close(self) -> None:
        if self._box is not None:
            self._box.close()


def _row(verb: str, number: int, one: Stored) -> str:
    return f"{number} {one.uid if verb == 'UIDL' else one.size}"


async def _in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work)
