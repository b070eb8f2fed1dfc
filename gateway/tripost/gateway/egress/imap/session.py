"""one IMAP connection

Drives the reader and the commands; docs/imap.md says what a client gets.

Promise  every command has one tagged answer, in the order of the commands; one is
         worked on at a time, and what comes meanwhile waits in the system's buffer.
         Whatever a client sends, memory is bounded, and the others are not delayed.
Ends     with LOGOUT, with the connection, after `IDLE` s of silence (`LOGIN` s until
         somebody is logged in), when the gateway drains, after too many mistakes.
"""

from __future__ import annotations

import msgspec
import trio

from tripost.gateway.egress.imap import on_messages
from tripost.gateway.egress.imap.appending import Appender
from tripost.gateway.egress.imap.capabilities import capabilities
from tripost.gateway.egress.imap.client import Client, in_thread
from tripost.gateway.egress.imap.commands import IN_PLAIN_TEXT, Command, parse, streams
from tripost.gateway.egress.imap.context import ImapContext
from tripost.gateway.egress.imap.deflate import DeflateStream
from tripost.gateway.egress.imap.handlers import CODES, HANDLERS, NUMBERS_STAY
from tripost.gateway.egress.imap.reader import Announced, CommandReader, Data, Ended, Event, Line, Mistake, Whole
from tripost.gateway.egress.imap.values import Authenticate, Impossible, Login, Words
from tripost.gateway.login import Attempt, Denied
from tripost.gateway.peer import Peer
from tripost.gateway.sasl import Challenge, Success
from tripost.gateway.tls import HandshakeFailed, start_tls
from tripost.queue.events import Connected, Fetched
from tripost.queue.events import Refused as RefusedEvent

IDLE = 1860.0  # seconds; RFC 9051 §5.4 asks for 30 minutes at least
LOGIN = 600.0
READ = 16_384
LOGIN_TRIES = 5
MISTAKES = 100
HUGE = 4 << 20  # octets of a refused literal, besides a message's limit, that are read and dropped


async def serve_imap(stream: trio.abc.Stream, *, peer: Peer, context: ImapContext) -> None:
    """Until LOGOUT, silence, or the connection's end."""
    session = _Session(stream, peer, context)
    try:
        await session.run()
    finally:
        session.close()


class _Session:
    def __init__(self, stream: trio.abc.Stream, peer: Peer, context: ImapContext) -> None:
        self._client = Client(stream, peer, context)
        self._context = context
        self._reader = CommandReader()
        self._appender = Appender(self._client)
        self._failures = self._mistakes = 0
        self._open = True
        self._deadline = trio.current_time() + LOGIN

    async def run(self) -> None:
        context, client = self._context, self._client
        context.bus.emit(Connected(time=context.clock.now(), service="imap", client=client.peer.client))
        client.untagged(f"OK [CAPABILITY {self._capabilities()}] {context.hostname} IMAP ready")
        while self._open:
            event = await self._next()
            if event is None:
                break
            await self._on(event)
            await client.room()
        if context.draining.begun or trio.current_time() >= self._deadline:
            client.untagged(f"BYE [UNAVAILABLE] {'stopping' if context.draining.begun else 'silent for too long'}")
        await client.flush()
        with trio.move_on_after(10):
            await client.stream.aclose()

    async def _next(self) -> Event | None:
        """What comes next; None when nothing does."""
        while (event := self._reader.next()) is None:
            await self._client.flush()
            if not await self._read():
                return None
        return event

    async def _read(self) -> bool:
        client = self._client
        if client.account:
            self._deadline = trio.current_time() + IDLE
        with self._context.draining.waiting(max(0.0, self._deadline - trio.current_time())):
            data = await client.stream.receive_some(READ)
            self._reader.feed(bytes(data))
            return bool(data)
        return False

    async def _on(self, event: Event) -> None:
        if isinstance(event, Announced):
            await self._announced(event)
        elif isinstance(event, Data):
            try:
                await self._appender.data(event.octets)
            except OSError as wrong:  # the rest of it would have to be read: rather ask the client to come again
                self._client.untagged(f"BYE [UNAVAILABLE] {wrong.strerror}")
                self._open = False
        elif isinstance(event, Whole):
            await self._whole(event.text)
            self._appender.discard()
        elif isinstance(event, Mistake):
            self._mistake(event.tag, event.text)
            self._appender.discard()
        elif not isinstance(event, Ended):
            raise AssertionError("a raw line outside of an exchange")

    async def _announced(self, event: Announced) -> None:
        """A literal: kept, streamed, or not wanted."""
        reader, client = self._reader, self._client
        streamed = client.state != "n" and streams(event)
        if streamed:
            why = await self._appender.begin(event)
        elif len(reader) + event.size > reader.limit:
            why = f"BAD [TOOBIG] a command has at most {reader.limit} octets"
        else:
            why = ""
        if why:
            if not event.sync and event.size > HUGE + (self._context.limit if client.account else 0):
                client.untagged("BYE [TOOBIG] nobody would read that literal")
                self._open = False
            mistake = reader.refuse(why)
            if mistake is not None:
                await self._on(mistake)
            return
        (reader.stream if streamed else reader.keep)()
        if event.sync:
            client.put(b"+ go on\r\n")

    def _mistake(self, tag: str, text: str) -> None:
        self._client.put(f"{tag} {text}\r\n".encode())
        if text.startswith("BAD"):
            self._mistakes += 1
            if self._mistakes >= MISTAKES:
                self._client.untagged("BYE too many mistakes")
                self._open = False

    # --- commands ---

    async def _whole(self, text: bytes) -> None:
        client = self._client
        command = parse(text, client.state)
        if isinstance(command, Mistake):
            self._mistake(command.tag, command.text)
            return
        name = command.name
        peer = client.peer
        if peer.require_tls and peer.tls is None and name not in IN_PLAIN_TEXT:
            self._mistake(command.tag, "NO [PRIVACYREQUIRED] STARTTLS first")
            return
        try:
            answer = await self._answer(command)
        except Impossible as wrong:
            answer = f"NO {wrong}"
        except on_messages.Malformed as wrong:
            answer = f"BAD {wrong}"
        except FileNotFoundError:
            answer = "NO [NONEXISTENT] it is not there any more"
        except OSError as wrong:
            answer = f"NO [UNAVAILABLE] {wrong.strerror or 'the disk does not do that now'}"
        if not answer:
            return
        await self._tell(name, uid=name.startswith("UID "))
        self._mistake(command.tag, answer)

    async def _answer(self, command: Command) -> str:
        name = command.name
        if name in ("APPEND", "REPLACE", "UID REPLACE"):
            return await self._appender.append(self._client, command)
        handler = HANDLERS.get(name.removeprefix("UID "))
        if handler is not None:
            return await handler(self._client, command)
        return await self._own(command)

    async def _own(self, command: Command) -> str:
        """Commands that are about the session."""
        name, client = command.name, self._client
        if name == "CAPABILITY":
            client.untagged(f"CAPABILITY {self._capabilities()}")
            return "OK that is all"
        if name == "LOGOUT":
            client.untagged("BYE bye")
            self._open = False
            return "OK bye"
        if name == "ID":
            client.untagged('ID ("name" "tripost")')
            return "OK nice to meet you"
        if name == "LOGIN":
            assert isinstance(command.args, Login)
            await client.flush()
            outcome = await self._context.logins.password(client.peer, command.args.user, command.args.password)
            return await self._logged(outcome)
        if name == "AUTHENTICATE":
            assert isinstance(command.args, Authenticate)
            return await self._authenticate(command.args)
        if name == "STARTTLS":
            return await self._start_tls(command.tag)
        if name == "COMPRESS":
            return await self._compress(command)
        if name == "IDLE":
            return await self._idle()
        return "OK done"  # NOOP and CHECK: the news come before it

    async def _tell(self, name: str, *, uid: bool) -> None:
        """What has happened to the selected mailbox meanwhile."""
        client = self._client
        view = client.view
        if view is None or not self._open:
            return
        try:
            unclaimed = bool(view.folder.unclaimed) and not view.read_only
            if (unclaimed or view.folder.changed) and not view.shared.dead:
                await view.shared.refresh(claim=not view.read_only)
        except OSError:
            if not await in_thread(lambda: client.tree.exists(view.name)):
                self._context.opened.removed(view.folder.path)
        client.news(expunge=name not in NUMBERS_STAY, uid=uid)

    def _capabilities(self) -> str:
        client, logins = self._client, self._context.logins
        peer = client.peer
        usable = peer.tls is not None or not peer.require_tls
        return capabilities(
            logged_in=bool(client.account),
            passwords=usable and logins.passwords(peer),
            tls=peer.context is not None and peer.tls is None,
            mechanisms=logins.mechanisms(peer) if usable and not client.account else (),
            limit=self._context.limit,
            compressed=client.compressed,
        )

    # --- logging in ---

    async def _authenticate(self, asked: Authenticate) -> str:
        attempt = self._context.logins.attempt(self._client.peer, asked.mechanism)
        await self._client.flush()
        step: Challenge | Success | Denied | None = await attempt.begin(asked.initial)
        while isinstance(step, Challenge):
            self._client.put(f"+ {step.text}\r\n".encode())
            step = await self._reply(attempt)
        if step is None:
            self._open = False
            return ""
        return await self._logged(step)

    async def _reply(self, attempt: Attempt) -> Challenge | Success | Denied | None:
        """The client's next line; None when none came."""
        line = await self._raw()
        if line is None:
            return None
        if isinstance(line, Mistake):
            return await attempt.reply("*")
        return await attempt.reply(line.text.decode("latin-1"))

    async def _raw(self) -> Line | Mistake | None:
        self._reader.raw = True
        try:
            event = await self._next()
        finally:
            self._reader.raw = False
        assert event is None or isinstance(event, Line | Mistake)
        return event

    async def _logged(self, outcome: Success | Denied) -> str:
        if isinstance(outcome, Success):
            client = self._client
            client.log_in(outcome.account)
            try:
                await in_thread(client.tree.prepare)
            except OSError:
                client.account = ""
                return "NO [UNAVAILABLE] the mailbox cannot be opened now"
            self._reader.log_in()
            return f"OK [CAPABILITY {self._capabilities()}] logged in"
        self._failures += outcome.kind == "credentials"
        if self._failures >= LOGIN_TRIES:
            self._client.untagged("BYE too many failed logins")
            self._open = False
        return f"{CODES[outcome.kind]} {outcome.text}"

    # --- layers below ---

    async def _start_tls(self, tag: str) -> str:
        """RFC 9051 §6.2.1. What came in plain text behind the command is dropped: nobody knows who said it."""
        client, context = self._client, self._context
        if client.peer.tls is not None or client.peer.context is None:
            return "BAD TLS runs already" if client.peer.tls is not None else "BAD TLS is not offered here"
        client.put(f"{tag} OK begin TLS now\r\n".encode())
        await client.flush()
        self._reader.take()
        try:
            client.stream, facts = await start_tls(client.stream, client.peer.context)
        except HandshakeFailed as wrong:
            context.bus.emit(
                RefusedEvent(
                    time=context.clock.now(),
                    service="imap",
                    client=client.peer.client,
                    phase="starttls",
                    reply=f"TLS: {wrong}",
                )
            )
            self._open = False
            return ""
        client.peer = msgspec.structs.replace(client.peer, tls=facts)
        return ""

    async def _compress(self, command: Command) -> str:
        """RFC 4978."""
        client = self._client
        assert isinstance(command.args, Words)
        if command.args.words != ("DEFLATE",):
            return "BAD only DEFLATE is known here"
        if client.compressed:
            return "NO [COMPRESSIONACTIVE] it is compressed already"
        client.put(f"{command.tag} OK compressed from here on\r\n".encode())
        await client.flush()
        client.stream, client.compressed = DeflateStream(client.stream, self._reader.take()), True
        return ""

    # --- IDLE ---

    async def _idle(self) -> str:
        """RFC 2177: until DONE, tell what happens when it happens."""
        client = self._client
        client.put(b"+ idling\r\n")
        await self._tell("IDLE", uid=False)
        self._reader.raw = True
        try:
            while (event := self._reader.next()) is None:
                await client.flush()
                if not await self._wait():
                    self._open = False
                    return ""
        finally:
            self._reader.raw = False
        if isinstance(event, Line) and event.text.upper() == b"DONE":
            return "OK not idle any more"
        return "BAD DONE was expected"

    async def _wait(self) -> bool:
        """For the client, or for news. False when the connection is over."""
        client = self._client
        view = client.view
        if view is None:
            return await self._read()
        while view.folder.version != view.version and not view.shared.dead:
            await self._tell("IDLE", uid=False)
            await client.flush()
        with trio.CancelScope() as scope:
            forget = view.shared.watch(scope.cancel)
            try:
                return await self._read()
            finally:
                forget()
        await self._tell("IDLE", uid=False)
        return True

    def close(self) -> None:
        client, context = self._client, self._context
        client.unselect()
        self._appender.discard()
        if client.account:
            context.bus.emit(
                Fetched(
                    time=context.clock.now(),
                    account=client.account,
                    client=client.peer.client,
                    messages=client.fetched,
                    deleted=client.deleted,
                )
            )
