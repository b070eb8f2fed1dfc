"""one POP3 client

The thin driver of `pop3_protocol`: reads, logs in, and lets `pop3_maildrop`
answer. A mailbox has one session at a time.

Fails    -ERR, with a response code where one fits (RFC 2449 §8, 3206); the
         session lives. Silence for `IDLE` ends it without deleting anything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

import trio

from tripost.delivery.mailbox.policy import Policy
from tripost.delivery.mailbox.session import MailboxInUse, open_mailbox
from tripost.gateway.accounts import Accounts
from tripost.gateway.egress.pop3_maildrop import Maildrop, Refused, in_thread
from tripost.gateway.egress.pop3_protocol import LANGUAGES, Command, Mistake, Pop3Protocol, capabilities
from tripost.gateway.lifecycle import Draining
from tripost.queue.clock import Clock
from tripost.queue.events import Bus, Connected, Expired, Fetched, LoggedIn, LoginFailed

IDLE = 600.0  # seconds, RFC 1939 §3
WRITE = 300.0  # seconds for one piece that a slow client takes
READ = 16_384
LOGIN_TRIES = 5
MISTAKES = 100
FAILED_PAUSE = 1.0  # seconds that a wrong password costs
OUT_LIMIT = 65_536


def _no_policy(account: str) -> Policy:
    return Policy()


@dataclass(frozen=True)
class Pop3Context:
    """What all sessions share; `mailboxes` is their folder; `expire` is EXPIRE's argument before the login."""

    hostname: str
    accounts: Accounts
    mailboxes: str
    bus: Bus
    clock: Clock
    draining: Draining = field(default_factory=Draining)
    policy: Callable[[str], Policy] = _no_policy
    expire: str = "NEVER"
    implementation: str = "tripost"


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
        self._drop: Maildrop | None = None
        self._failures = 0
        self._mistakes = 0
        self._account = ""
        self._policy = Policy()
        self._open = True
        self._passwords = ipaddress.ip_address(client).is_loopback

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
            elif isinstance(command, Command):
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
        if verb == "QUIT":
            await self._quit()
        elif verb == "CAPA":
            self._ok("what there is")
            self._rows(self._capabilities())
        elif verb == "LANG":
            self._language(command.text)
        elif self._drop is not None:
            await self._transaction(self._drop, command)
        elif verb == "USER":
            self._ok("now the password")
        elif verb == "PASS":
            await self._login(self._protocol.user, command.text)
        elif verb == "UTF8":
            self._protocol.utf8 = True
            self._ok("UTF-8 it is")
        else:
            self._mistake(f"{verb} is not offered here")

    def _rows(self, rows: list[str]) -> None:
        self._out += "".join(f"{row}\r\n" for row in rows).encode() + b".\r\n"

    def _capabilities(self) -> list[str]:
        context, protocol = self._context, self._protocol
        return capabilities(
            logged_in=protocol.logged_in,
            passwords=self._passwords,
            stls=protocol.stls and not protocol.secured,
            mechanisms=(),
            expire=self._policy.expire() if protocol.logged_in else context.expire,
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

    async def _login(self, user: str, password: str) -> None:
        context = self._context
        self._protocol.user = ""
        if not self._passwords:
            self._err("[AUTH] passwords are not taken without TLS from other machines")
            return
        await self._flush()
        try:
            good = await context.accounts.verify(user, password)
        except OSError:
            self._err("[SYS/TEMP] nobody can tell now whether that is right")
            return
        if good:
            await self._enter(user)
        else:
            await self._login_failed()

    async def _enter(self, account: str) -> None:
        context = self._context
        policy, now = context.policy(account), context.clock.now()
        try:
            box = await in_thread(partial(open_mailbox, context.mailboxes, account, now, policy))
        except MailboxInUse:
            self._err("[IN-USE] another session has this mailbox")
            return
        except OSError:
            self._err("[SYS/TEMP] the mailbox cannot be opened now")
            return
        if box.expired:
            context.bus.emit(Expired(time=now, account=account, messages=box.expired))
        self._policy = policy
        self._drop = Maildrop(box, one_shot=policy.one_shot)
        self._account = account
        self._protocol.log_in()
        context.bus.emit(LoggedIn(time=context.clock.now(), service="pop3", account=account, client=self._client))
        self._ok(f"{len(box)} messages")

    async def _login_failed(self) -> None:
        context = self._context
        self._failures += 1
        context.bus.emit(LoginFailed(time=context.clock.now(), service="pop3", client=self._client))
        await trio.sleep(FAILED_PAUSE)
        self._err("[AUTH] wrong user or password")
        self._open = self._failures < LOGIN_TRIES

    # --- the mailbox ---

    async def _transaction(self, drop: Maildrop, command: Command) -> None:
        try:
            async with aclosing(drop.answer(command)) as pieces:
                async for piece in pieces:
                    self._out += piece
                    if len(self._out) > OUT_LIMIT:
                        await self._flush()
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
        self._ok(f"bye, {deleted} deleted")
        context.bus.emit(
            Fetched(
                time=context.clock.now(),
                account=self._account,
                client=self._client,
                messages=drop.sent,
                deleted=deleted,
            )
        )

    def close(self) -> None:
        if self._drop is not None:
            self._drop.close()
