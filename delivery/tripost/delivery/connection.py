"""one connection to a mail host

The thin Trio driver of `smtp_protocol`: opens, greets, sends transactions, and
turns what happens into outcomes.

Fails    `Down` when the host could not be spoken to; `deliver` never raises
         for what the peer does: it is an outcome, and `usable` is False then.
Source   time limits of RFC 5321 §4.5.3.2.
"""

from __future__ import annotations

import base64
import secrets
from contextlib import AbstractContextManager, nullcontext

import msgspec
import trio

from tripost.delivery.client_auth import AuthError, challenge, choose
from tripost.delivery.client_tls import ClientTls, TlsFailed
from tripost.delivery.contents import READ, for_seven_bits, last_chunk, look
from tripost.delivery.course import Course, reason
from tripost.delivery.demands import Content, Host, Plan, limits, needs_look, plan
from tripost.delivery.fast_stream import FastStream
from tripost.delivery.links import Cargo, Down, Turn, Unroutable
from tripost.delivery.smtp_protocol import Transaction, read_extensions
from tripost.delivery.verdicts import lost, verdict
from tripost.delivery.wire.dots import DotStuffer
from tripost.delivery.wire.replies import Reply, ReplyError, ReplyReader
from tripost.queue.body import BodyReader
from tripost.queue.dialogue import HIDDEN, SILENT, Dialogue, octets
from tripost.queue.errors import SpoolError
from tripost.queue.message import Outcome, Recipient

GREETING = 300.0
COMMAND = 300.0
DATA = 120.0
BLOCK = 180.0
DOT = 600.0
QUIT = 2.0
SLACK = 1.0  # that these limits may be longer
MOST_CHALLENGES = 4  # of an AUTH exchange

_GONE = (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError, ReplyError, EOFError)
_NOTHING = nullcontext()


class Opening(msgspec.Struct, frozen=True):
    """How the host at `address` is spoken to; `level`: none | may | encrypt | verify; `credentials`: user, password;
    `ours`: the name of this gateway, where a host that bears it would be a loop."""

    host: str
    address: str
    port: int
    hostname: str
    level: str = "none"
    lmtp: bool = False
    credentials: tuple[str, str] | None = None
    ours: str = ""
    connect: float = 0.0  # seconds that it took
    dialogue: Dialogue = SILENT

    @property
    def where(self) -> str:
        return f"{self.host} [{self.address}]:{self.port}" if self.port else self.host


class Connection:
    """One host, greeted; made by `greet`. `greeting` and `handshake`: seconds they took."""

    def __init__(self, stream: trio.abc.Stream, opening: Opening) -> None:
        self._stream = stream
        self._replies = ReplyReader()
        self._extensions: dict[str, str] = {}
        self._lmtp = opening.lmtp
        self.opening = opening
        self.host = opening.host
        self.address = opening.address
        self.connect = opening.connect
        self.tls = ""  # the protocol's version, "" in plain text
        self.verified = False  # by a certificate that names the host
        self.usable = True
        self.stale = False  # a connection that was used before broke before anything was said to the message
        self.messages = 0
        self.greeting = self.handshake = 0.0
        self.dialogue = opening.dialogue
        self._watch: trio.CancelScope | None = None  # of a transaction

    @classmethod
    async def greet(cls, stream: trio.abc.Stream, opening: Opening, tls: ClientTls) -> Connection:
        """Greeted, secured and logged in as `opening` says. Raises Down, TlsFailed, Unroutable; the stream is closed
        then."""
        one = cls(stream, opening)
        course = Course("greeting")
        try:
            await one._greet(opening, tls, course)
        except _GONE as wrong:
            await trio.aclose_forcefully(one._stream)
            text = f"{opening.where}: {reason(wrong)} at the {course.phase}"
            timeout = isinstance(wrong, trio.TooSlowError)
            raise Down(text, enhanced="4.4.2", host=opening.host, phase=course.phase, timeout=timeout) from wrong
        except BaseException:
            await trio.aclose_forcefully(one._stream)
            raise
        return one

    async def _greet(self, opening: Opening, tls: ClientTls, course: Course) -> None:
        greeting = await self._reply(GREETING)
        if greeting.code != 220:
            raise self._down(greeting, "greeting")
        course.enter("ehlo")
        await self._hello()
        course.enter("tls")
        self.greeting = course.took("greeting", "ehlo")
        await self._secure(opening, tls, course)
        course.enter("auth")
        self.handshake = round(course.took("greeting", "ehlo", "tls") - self.greeting, 6) if self.tls else 0.0
        if opening.credentials is not None:
            await self._log_in(*opening.credentials)

    def _down(self, reply: Reply, phase: str, enhanced: str = "4.4.1") -> Down:
        mark = reply.enhanced if reply.enhanced.startswith("4") else enhanced
        text = f"{self.opening.where}: {reply}"
        return Down(text, enhanced=mark, host=self.host, phase=phase, code=reply.code)

    async def _hello(self) -> None:
        name = self.opening.hostname
        reply = await self._command(f"{'LHLO' if self._lmtp else 'EHLO'} {name}".encode())
        self._extensions = read_extensions(reply) if reply.code == 250 else {}
        if reply.code in (500, 501, 502, 504, 550) and not self._lmtp and not self.tls:
            reply = await self._command(f"HELO {name}".encode())
        if reply.code != 250:
            raise self._down(reply, "ehlo")
        if self.opening.ours and reply.lines[0].partition(" ")[0].lower() == self.opening.ours.lower():
            raise Unroutable("5.4.6", f"{self.opening.where} is this host: mail would come back")

    # --- TLS and AUTH ---

    async def _secure(self, opening: Opening, tls: ClientTls, course: Course) -> None:
        """STARTTLS where the level wants it (RFC 3207). Raises TlsFailed, Down."""
        level, host = opening.level, opening.host
        if not tls.wants(level, host):
            return
        if "STARTTLS" not in self._extensions:
            if level == "may":
                return
            raise Down(f"{opening.where}: offers no STARTTLS", enhanced="4.7.4", host=host, phase="tls")
        try:
            reply = await self._command(b"STARTTLS")
        except _GONE as wrong:
            if level == "may":
                raise TlsFailed(f"{reason(wrong)} at STARTTLS") from wrong
            raise
        if reply.code != 220:
            raise TlsFailed(f"STARTTLS was refused: {reply}")
        if self._replies.pending:  # said before the handshake: it may be anybody's (RFC 3207 §4.2)
            raise TlsFailed("the host said more before the handshake")
        secured = await tls.handshake(self._stream, level, host)
        self._stream = secured
        self.tls, self.verified = secured.version() or "TLS", level == "verify"
        if self.dialogue.tracers:
            self.dialogue.noted(f"TLS: {self.tls}")
        course.enter("ehlo")
        try:
            await self._hello()
        except _GONE as wrong:
            if level == "may":  # TLS 1.3 servers refuse a handshake after the client thinks that it is done
                raise TlsFailed(f"{reason(wrong)} after the handshake") from wrong
            raise
        tls.keep(secured, level, host)

    async def _log_in(self, user: str, password: str) -> None:
        """AUTH (RFC 4954). Raises Down."""
        private = bool(self.tls) or self.opening.address.startswith(("127.", "::1", "/"))
        chosen = choose(self._extensions.get("AUTH", "").split(), private=private)
        if chosen is None:
            text = f"{self.opening.where}: offers no way to log in that keeps the password"
            raise Down(text, enhanced="4.7.4", host=self.host, phase="auth")
        try:
            mechanism = chosen(user, password, secrets.token_urlsafe(24))
            first = "" if mechanism.first is None else f" {base64.b64encode(mechanism.first).decode() or '='}"
            reply = await self._command(f"AUTH {mechanism.name}{first}".encode())
            for _ in range(MOST_CHALLENGES):
                if reply.code != 334:
                    break
                answer = await trio.to_thread.run_sync(mechanism.answer, challenge(reply.text))
                reply = await self._exchange(base64.b64encode(answer) + b"\r\n", COMMAND, HIDDEN)
        except AuthError as wrong:
            raise Down(f"{self.opening.where}: {wrong}", enhanced="4.7.0", host=self.host, phase="auth") from wrong
        if reply.code != 235:
            raise self._down(reply, "auth", "4.7.8")
        if not mechanism.proven:
            text = f"{self.opening.where}: the server has not shown that it knows the password"
            raise Down(text, enhanced="4.7.0", host=self.host, phase="auth")

    # --- lines ---

    async def _command(self, line: bytes, timeout: float = COMMAND) -> Reply:
        return await self._exchange(line + b"\r\n", timeout)

    async def _exchange(self, data: bytes, timeout: float, shown: str = "") -> Reply:
        """Send commands, and take the first reply. `shown`: what tracers are told instead."""
        if self.dialogue.tracers:
            self.dialogue.sends(data, shown)
        await self._send(data, timeout)
        with self._within(timeout):
            return await self._receive()

    async def _send(self, data: bytes, timeout: float) -> None:
        """At once where the system takes it; whoever has sent waits for a reply next, and lets others run then."""
        stream = self._stream
        sent = stream.send_now(data) if isinstance(stream, FastStream) else 0
        if sent < len(data):
            with self._within(timeout):
                await stream.send_all(data[sent:])

    def _within(self, seconds: float) -> AbstractContextManager[object]:
        """A time limit. A transaction has one scope, whose deadline moves, where it does not fit (to a second): that
        costs less than a scope each."""
        if self._watch is None:
            return trio.fail_after(seconds)
        due = trio.current_time() + seconds
        if not due <= self._watch.deadline <= due + SLACK:
            self._watch.deadline = due + SLACK
        return _NOTHING

    async def _reply(self, timeout: float) -> Reply:
        reply = self._replies.next()
        if reply is not None:
            return self._heard(reply)
        with self._within(timeout):
            return await self._receive()

    async def _receive(self) -> Reply:
        while (reply := self._replies.next()) is None:
            data = await self._stream.receive_some(READ)
            if not data:
                raise EOFError("connection closed by the peer")
            self._replies.feed(bytes(data))
        return self._heard(reply)

    def _heard(self, reply: Reply) -> Reply:
        if self.dialogue.tracers:
            self.dialogue.hears(reply.encode())
        return reply

    @property
    def recipients(self) -> int:
        """See Link."""
        return limits(self._extensions).get("RCPTMAX", 0)

    @property
    def spent(self) -> bool:
        """See Link."""
        return 0 < self.most_messages <= self.messages

    @property
    def most_messages(self) -> int:
        """What the host's LIMITS allow on one connection; 0 where it does not say."""
        return limits(self._extensions).get("MAILMAX", 0)

    async def deliver(self, cargo: Cargo, turn: Turn | None = None) -> dict[int, Outcome]:
        """See Link."""
        envelope, recipients, open_reader = cargo.envelope, cargo.recipients, cargo.open_reader
        content = Content(envelope.size)
        if needs_look(envelope, self._extensions):
            content = await look(open_reader)
            if not content.ascii and "8BITMIME" not in self._extensions:
                open_reader = await for_seven_bits(envelope, open_reader)
                content = await look(open_reader)
        reader = await open_reader()
        try:
            content = Content(reader.size, content.ascii_header, content.ascii)
            planned = plan(envelope, recipients, Host(self._extensions, self.host, self.verified), content, cargo.now)
            if not isinstance(planned, Plan):
                return {one.id: planned for one in recipients}
            if turn is not None:
                await turn()
            return await self._transact(planned, recipients, reader)
        finally:
            reader.close()

    async def _transact(
        self, planned: Plan, recipients: tuple[Recipient, ...], reader: BodyReader
    ) -> dict[int, Outcome]:
        self.messages += 1
        whole: bytes | None = None
        if planned.chunking and not self._lmtp and reader.size <= READ and "PIPELINING" in self._extensions:
            whole = await last_chunk(reader)
        transaction = Transaction(
            planned.mail,
            planned.rcpts,
            pipelining="PIPELINING" in self._extensions,
            chunking=planned.chunking,
            each=self._lmtp,
            whole=whole,
        )
        course = Course("mail")
        gone: Exception | None = None
        try:
            with trio.CancelScope(deadline=trio.current_time() + COMMAND + SLACK) as self._watch:
                await self._run(transaction, reader, course, chunking=planned.chunking)
            if self._watch.cancelled_caught:
                raise trio.TooSlowError
        except _GONE as wrong:
            gone, self.usable = wrong, False
            self.stale = self.messages > 1 and course.phase == "mail" and not transaction.heard
        finally:
            self._watch = None
        phase, opening = course.phase, self.opening
        opened = (opening.connect, self.greeting, self.handshake) if self.messages == 1 else (0.0, 0.0, 0.0)
        transfer = course.transfer(opening.address, self.tls, opened)
        broken = lost(phase, reason(gone), self.host, transfer) if gone is not None else None
        outcomes: dict[int, Outcome] = {}
        for one in recipients:
            found = transaction.verdicts.get(one.id)
            if found is not None:
                outcomes[one.id] = verdict(found.phase, found.reply, self.host, dsn=planned.dsn, transfer=transfer)
                if found.reply.code == 421:
                    self.usable = False
                    # enough on this connection: that says nothing about the next one
                    self.stale = self.stale or (self.messages > 1 and found.phase == "mail")
            else:
                outcomes[one.id] = broken or lost("dot", "no verdict", self.host, transfer)
        return outcomes

    async def _run(self, transaction: Transaction, reader: BodyReader, course: Course, *, chunking: bool) -> None:
        while not transaction.over and not transaction.content:
            transaction.take(await self._exchange(transaction.commands(), COMMAND))
            while transaction.waiting:
                if transaction.ending:
                    course.enter("dot")
                transaction.take(await self._reply(DOT if transaction.ending else COMMAND))
        if transaction.content:
            course.enter("content")
            if self.dialogue.tracers:
                self.dialogue.said(octets(reader.size))
            if chunking:
                await self._chunk(reader, course)
            elif transaction.accepted:
                await self._dots(reader, course)
            else:  # DATA was pipelined and taken although no recipient was: an empty message ends it
                await self._send(b".\r\n", BLOCK)
            while not transaction.over:
                transaction.take_end(await self._reply(DOT))
        elif self.usable and not transaction.ended:
            await self._reset()

    async def _dots(self, reader: BodyReader, course: Course) -> None:
        """The content, its last piece together with the end."""
        stuffer, data = DotStuffer(), await reader.read(READ)
        while more := await reader.read(READ):
            await self._send(stuffer.feed(data), BLOCK)
            data = more
        course.enter("dot")
        await self._send(stuffer.feed(data) + stuffer.finish(), BLOCK)

    async def _chunk(self, reader: BodyReader, course: Course) -> None:
        """The content as it is, in one chunk (RFC 3030 §2). Raises SpoolError when it is not as long as it was."""
        head, left = b"BDAT %d LAST\r\n" % reader.size, reader.size
        while left:
            data = await reader.read(min(READ, left))
            if not data:
                self.usable = False  # the host waits for octets that do not exist
                raise SpoolError("a content is shorter than its record says")
            left -= len(data)
            if not left:
                course.enter("dot")
            await self._send(head + data, BLOCK)
            head = b""
        if head:
            course.enter("dot")
            await self._send(head, BLOCK)

    async def _reset(self) -> None:
        """Nothing of a refused transaction may be left for the next one."""
        if (await self._command(b"RSET")).code != 250:
            self.usable = False

    async def close(self) -> None:
        """QUIT, politely but shortly."""
        try:
            with trio.move_on_after(QUIT):
                if self.usable:
                    await self._command(b"QUIT", QUIT)
        except _GONE:
            pass  # nothing depends on it
        finally:
            await trio.aclose_forcefully(self._stream)
