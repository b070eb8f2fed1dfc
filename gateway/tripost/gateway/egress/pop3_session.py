"""one POP3 client

The thin driver of `pop3_protocol`: reads, lets `login` say who it is, and lets
`pop3_maildrop` answer. A mailbox has one session at a time.

Waits    `IDLE` for a whole command, and for the login as a whole; `WRITE` for a
         piece of an answer to be taken. Then the connection is closed without a
         word and without deleting anything (RFC 1939 §3).
Fails    -ERR, with a response code where one fits (RFC 2449 §8, 3206); the
         session lives, but for `LOGIN_TRIES` failed logins, and `MISTAKES`.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TypeVar

import msgspec
import trio

from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.session import MailboxInUse, open_mailbox
from tripost.delivery.mailbox.uids import folder_name
from tripost.gateway.egress.pop3_context import Pop3Context
from tripost.gateway.egress.pop3_maildrop import Maildrop, Refused, opened
from tripost.gateway.egress.pop3_protocol import (
    LANGUAGES,
    LINE_LIMIT,
    Command,
    Line,
    Mistake,
    Pop3Protocol,
    capabilities,
    shown,
)
from tripost.gateway.login import Attempt, Denied
from tripost.gateway.peer import Peer, secured
from tripost.gateway.sasl import Challenge, Success
from tripost.gateway.tls import HandshakeFailed, start_tls
from tripost.queue.dialogue import HIDDEN, octets
from tripost.queue.events import Connected, Expired, Fetched
from tripost.queue.events import Refused as RefusedEvent

T = TypeVar("T")
IDLE = 600.0  # seconds, RFC 1939 §3
WRITE = 300.0  # seconds for one piece that a slow client takes
READ = 16_384
LOGIN_TRIES = 5
MISTAKES = 100
OUT_LIMIT = 65_536
RUN = 100  # pipelined RETR that are looked at together
CODES = {  # of what `login` denies; RFC 3206
    "credentials": "[AUTH] ",
    "disabled": "[SYS/PERM] ",
    "barred": "[SYS/TEMP] ",
    "cleartext": "[SYS/PERM] ",
    "temporary": "[SYS/TEMP] ",
}
NO_CREDENTIALS = ("cancelled", "malformed", "unknown")


async def serve_pop3(stream: trio.abc.Stream, *, peer: Peer, context: Pop3Context) -> None:
    """Until QUIT, silence, or the connection's end."""
    session = _Session(stream, peer, context)
    try:
        await session.run()
    finally:
        session.close()


class _Session:
    def __init__(self, stream: trio.abc.Stream, peer: Peer, context: Pop3Context) -> None:
        self._stream = stream
        self._peer = peer
        self._context = context
        self._protocol = Pop3Protocol(
            secured=peer.tls is not None, stls=peer.context is not None, need_tls=peer.require_tls
        )
        self._out: list[bytes] = []
        self._pending = 0  # octets in it
        self._next: Command | Line | Mistake | None = None  # taken already
        self._drop: Maildrop | None = None
        self._attempt: Attempt | None = None
        self._failures = 0
        self._mistakes = 0
        self._account = ""
        self._policy = Policy()
        self._open = True
        self._deadline = trio.current_time() + IDLE
        self._dialogue = context.bus.tracing.session(peer.service, peer.client)

    async def run(self) -> None:
        context = self._context
        if self._dialogue.tracers:
            self._dialogue.noted("connected")
        context.bus.emit(Connected(time=context.clock.now(), service="pop3", client=self._peer.client))
        self._ok(f"{context.hostname} POP3 ready")
        while self._open:
            command, self._next = self._next or self._hear(), None
            if command is None:
                if not await self._read():
                    return
                continue
            if isinstance(command, Mistake):
                self._mistake(command.text)
            elif isinstance(command, Line):
                await self._exchange(command.text)
            else:
                await self._handle(command)
            if self._drop is not None:
                self._deadline = trio.current_time() + IDLE
            if self._pending > OUT_LIMIT:
                await self._flush()
        await self._flush()
        with trio.move_on_after(WRITE):
            await self._stream.aclose()

    def _hear(self) -> Command | Line | Mistake | None:
        """What the client says next, told to tracers."""
        command = self._protocol.next()
        if self._dialogue.tracers and command is not None:
            self._dialogue.heard(shown(command))
        return command

    async def _read(self) -> bool:
        await self._flush()
        with self._context.draining.waiting(max(0.0, self._deadline - trio.current_time())):
            data = await self._stream.receive_some(READ)
            self._protocol.feed(bytes(data))
            return bool(data)
        return False

    async def _flush(self) -> None:
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out, self._pending = [], 0
            with trio.move_on_after(WRITE) as scope:
                await self._stream.send_all(data)
            if scope.cancelled_caught:
                raise trio.BrokenResourceError("the client does not read")

    def _put(self, data: bytes) -> None:
        self._out.append(data)
        self._pending += len(data)

    def _ok(self, text: str = "") -> None:
        self._say(f"+OK {text}".rstrip())

    def _err(self, text: str) -> None:
        self._say(f"-ERR {text}")

    def _say(self, line: str) -> None:
        self._put(line.encode() + b"\r\n")
        if self._dialogue.tracers:
            self._dialogue.said(line)

    def _tell_answer(self, first: bytes, size: int) -> None:
        """Tracers of an answer: its first line, and how much came behind it."""
        line, _, _ = first.partition(b"\r\n")
        self._dialogue.said(line.decode("utf-8", "replace"))
        if size > len(line) + 2:
            self._dialogue.said(octets(size - len(line) - 2))

    def _mistake(self, text: str) -> None:
        self._err(text)
        self._mistakes += 1
        if self._mistakes >= MISTAKES:
            self._open = False

    async def _handle(self, command: Command) -> None:
        verb, context = command.verb, self._context
        if verb == "QUIT":
            await self._quit()
        elif verb == "CAPA":
            self._ok("what there is")
            self._rows(self._capabilities())
        elif verb == "LANG":
            self._language(command.text)
        elif self._drop is not None:
            await (self._retrieve if verb == "RETR" else self._transaction)(self._drop, command)
        elif verb == "USER":
            self._user()
        elif verb == "PASS":
            self._protocol.user, user = "", self._protocol.user
            await self._logged(await self._flushed(partial(context.logins.password, self._peer, user, command.text)))
        elif verb == "AUTH":
            await self._auth(command)
        elif verb == "UTF8":
            self._protocol.utf8 = True
            self._ok("UTF-8 it is")
        else:
            await self._stls()

    def _rows(self, rows: list[str]) -> None:
        self._put("".join(f"{row}\r\n" for row in rows).encode() + b".\r\n")
        for row in rows if self._dialogue.tracers else ():
            self._dialogue.said(row)

    def _capabilities(self) -> list[str]:
        context, protocol = self._context, self._protocol
        usable = protocol.secured or not protocol.need_tls
        return capabilities(
            logged_in=protocol.logged_in,
            passwords=usable and context.logins.passwords(self._peer),
            stls=protocol.stls and not protocol.secured,
            mechanisms=context.logins.mechanisms(self._peer) if usable else (),
            expire=self._policy.expire() if protocol.logged_in else context.expire,
            login_delay=int(context.delay.seconds),
            implementation=context.implementation,
        )

    def _language(self, tag: str) -> None:
        """RFC 6856 §3: the texts are English, whatever is asked for."""
        if not tag:
            self._ok("what there is")
            self._rows([f"{one} English" for one in LANGUAGES])
        elif tag == "*" or tag.lower() in LANGUAGES:
            self._ok(f"{LANGUAGES[0]} English from here on")
        else:
            self._mistake("no texts in that language")

    # --- logging in ---

    def _user(self) -> None:
        if self._context.logins.passwords(self._peer):
            self._ok("now the password")
        else:  # before the client says it
            self._protocol.user = ""
            self._err("[SYS/PERM] passwords are not taken here without TLS")

    async def _auth(self, command: Command) -> None:
        """RFC 5034 §4; without a mechanism, which there are."""
        if not command.text:
            self._ok("what there is")
            self._rows(list(self._context.logins.mechanisms(self._peer)))
            return
        self._attempt = self._context.logins.attempt(self._peer, command.text)
        await self._step(await self._flushed(partial(self._attempt.begin, command.initial)))

    async def _exchange(self, line: str) -> None:
        assert self._attempt is not None
        await self._step(await self._flushed(partial(self._attempt.reply, line)))

    async def _flushed(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What takes time is begun when all answers before it are on their way."""
        await self._flush()
        return await ask()

    async def _step(self, step: Challenge | Success | Denied) -> None:
        if isinstance(step, Challenge):
            self._put(f"+ {step.text}\r\n".encode())
            if self._dialogue.tracers:
                self._dialogue.said(f"+ {HIDDEN}")
            self._protocol.begin_exchange()
            return
        self._attempt = None
        self._protocol.end_exchange()
        await self._logged(step)

    async def _logged(self, outcome: Success | Denied) -> None:
        if isinstance(outcome, Success):
            await self._enter(outcome.account)
        elif outcome.kind in NO_CREDENTIALS:
            self._mistake(outcome.text)
        else:
            self._err(CODES[outcome.kind] + outcome.text)
            self._failures += 1
            self._open = self._open and self._failures < LOGIN_TRIES

    async def _enter(self, account: str) -> None:
        context = self._context
        policy, now = context.policy(account), context.clock.now()
        wait = context.delay.wait(account, trio.current_time())
        if wait:
            self._err(f"[LOGIN-DELAY] log in again in {wait:.0f} s")
            return
        try:
            box = await opened(partial(open_mailbox, context.mailboxes, account, now, policy))
        except MailboxInUse:
            self._err("[IN-USE] another session has this mailbox")
            return
        except OSError:
            self._err("[SYS/TEMP] the mailbox cannot be opened now")
            return
        context.delay.entered(account, trio.current_time())
        if box.expired:
            context.bus.emit(Expired(time=now, account=account, messages=box.expired))
        self._policy = policy
        self._drop = Maildrop(box, one_shot=policy.one_shot)
        self._account = account
        self._protocol.log_in()
        self._ok(f"{len(box)} messages")

    async def _stls(self) -> None:
        """RFC 2595 §4. What came in plain text behind the command is dropped: nobody knows who said it."""
        assert self._peer.context is not None
        self._ok("begin TLS now")
        await self._flush()
        try:
            self._stream, facts = await start_tls(self._stream, self._peer.context)
        except HandshakeFailed as wrong:
            context = self._context
            context.bus.emit(
                RefusedEvent(
                    time=context.clock.now(),
                    service="pop3",
                    client=self._peer.client,
                    phase="stls",
                    reply=f"TLS: {wrong}",
                )
            )
            self._open = False
            return
        self._peer = msgspec.structs.replace(self._peer, tls=facts)
        if self._dialogue.tracers:
            self._dialogue.noted(f"TLS: {facts.version} {facts.cipher}")
        self._context.bus.emit(secured(self._peer, self._context.clock.now()))
        self._protocol.start_tls()

    # --- the mailbox ---

    async def _retrieve(self, drop: Maildrop, command: Command) -> None:
        """This RETR, and those that have come behind it."""
        run = [command]
        while len(run) < RUN:
            self._next = self._hear()
            if not isinstance(self._next, Command) or self._next.verb != "RETR":
                break
            run.append(self._next)
            self._next = None
        while run:
            replies = await drop.small([one.numbers[0] for one in run])
            for one, reply in zip(run, replies, strict=False):
                if reply is None:
                    await self._transaction(drop, one)
                else:
                    self._put(reply)
                    if self._dialogue.tracers:
                        self._tell_answer(reply, len(reply))
            run = run[len(replies) :]
            if self._pending > OUT_LIMIT:
                await self._flush()

    async def _transaction(self, drop: Maildrop, command: Command) -> None:
        try:
            async with aclosing(drop.answer(command)) as pieces:
                first, size = b"", 0
                async for piece in pieces:
                    first, size = first or piece[:LINE_LIMIT], size + len(piece)
                    self._put(piece)
                    if self._pending > OUT_LIMIT:
                        await self._flush()
                if self._dialogue.tracers:
                    self._tell_answer(first, size)
        except Refused as wrong:
            if wrong.mistake:
                self._mistake(wrong.text)
            else:
                self._err(wrong.text)

    async def _quit(self) -> None:
        self._open = False
        drop, context = self._drop, self._context
        if drop is None:
            self._ok("bye")
            return
        try:
            deleted = await drop.update()
        except OSError:
            self._err("[SYS/TEMP] the deleted messages were not removed")
            return
        if deleted:
            context.removed(os.path.join(context.mailboxes, folder_name(self._account)))
        self._ok(f"bye, {deleted} deleted")
        context.bus.emit(
            Fetched(
                time=context.clock.now(),
                account=self._account,
                client=self._peer.client,
                messages=drop.sent,
                deleted=deleted,
            )
        )

    def close(self) -> None:
        if self._dialogue.tracers:
            self._dialogue.noted("closed")
        if self._drop is not None:
            self._drop.close()
