"""one SMTP or LMTP client

The thin driver of `smtp_protocol`: reads, asks `policy` and the transaction,
and writes replies. Replies are gathered while commands are waiting (PIPELINING)
and sent before more is read.

Promise  a 250 to the end of data is sent only after the queue's commit; a
         client that waits, dawdles or chatters costs its own task, and not for
         longer than its limits.
Fails    the client is told 421 4.4.2 after silence, 4xx when the queue cannot
         store; a connection that breaks leaves nothing behind.
Why      one cancel scope for the whole session, whose deadline is set before a
         wait and taken away after it: cheaper than a scope for every wait, and a
         commit is never under a deadline.
Source   time limits of RFC 5321 §4.5.3.2.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from tripost.delivery.wire.replies import Reply, reply
from tripost.gateway.ingress.context import Client, IngressContext
from tripost.gateway.ingress.policy import HOLD_MOST, hold_until
from tripost.gateway.ingress.receiving import Transaction
from tripost.gateway.ingress.smtp_events import (
    Answer,
    ChunkEnd,
    Content,
    EndOfContent,
    Hello,
    Mail,
    Octets,
    Rcpt,
    Reset,
)
from tripost.gateway.ingress.smtp_protocol import ServerProtocol
from tripost.gateway.ingress.terms import Terms, greeting
from tripost.queue.errors import SpoolUnsure
from tripost.queue.events import Connected, Noticed, Refused, Trouble

READ = 65_536
REPLIES_LIMIT = 16_384  # octets of replies gathered before they must go out
BREATH = 64  # events handled without a wait before others get their turn
JUNK = frozenset({"HELO", "EHLO", "LHLO", "NOOP", "RSET", "VRFY", "HELP"})
CLOSING_TIMEOUT = 10.0
NOT_YET = -1.0
RATE_GRACE = 30.0  # seconds of waiting for content before `minimum_rate` is asked for

SENDER_OK = reply(250, "2.1.0", "sender ok").encode()
RECIPIENT_OK = reply(250, "2.1.5", "recipient ok").encode()
GO_AHEAD = reply(354, "", "end data with <CRLF>.<CRLF>").encode()
FORGOTTEN = reply(250, "2.0.0", "forgotten").encode()


async def serve_smtp(stream: trio.abc.Stream, *, client: str, context: IngressContext) -> None:
    """Until the client quits, is silent too long, or the connection breaks."""
    session = _Session(stream, Client(client, trusted=context.is_trusted(client)), context)
    stop_watching = context.draining.watch(session.let_go)
    try:
        await session.run()
    finally:
        stop_watching()
        await session.clean_up()


class _Session:
    def __init__(self, stream: trio.abc.Stream, client: Client, context: IngressContext) -> None:
        self._stream = stream
        self._client = client
        self._context = context
        self._protocol = ServerProtocol(self._terms(), normalize=context.normalize)
        self._out = bytearray()
        self._transaction: Transaction | None = None
        self._errors = 0
        self._junk = 0
        self._open = True
        self._watch = trio.CancelScope()
        self._sending = False
        self._idle = False  # waits for a command
        self._since = NOT_YET  # when it began to wait for the command that it waits for
        self._content_waits = 0.0  # seconds that went by in waiting for the content of this message
        self._slow = False

    def _terms(self) -> Terms:
        context, client = self._context, self._client
        return Terms(
            hostname=context.hostname,
            profile=client.profile,
            message_size=context.message_size,
            recipients=context.recipients,
            trusted=client.trusted,
            hold_most=HOLD_MOST,
            hold_until=hold_until(context.clock.now()) if client.trusted else "",
        )

    # --- the loop ---

    async def run(self) -> None:
        with self._watch:
            await self._talk()
        if self._watch.cancelled_caught:
            if self._sending:
                return  # it does not even read
            self._say_why()
        with trio.move_on_after(CLOSING_TIMEOUT):
            await self._flush(CLOSING_TIMEOUT)
            await self._stream.aclose()

    async def _talk(self) -> None:
        if not await self._greet():
            return
        protocol, context, busy = self._protocol, self._context, 0
        while self._open:
            event = protocol.next()
            if event is None:
                if not await self._read():
                    return
                busy = 0
                continue
            await _ACTIONS[type(event)](self, event)
            if self._errors >= context.errors or self._junk > context.junk_commands:
                self._too_many()
            busy += 1
            if len(self._out) > REPLIES_LIMIT or busy >= BREATH:
                busy = 0
                await self._flush(context.command_timeout)
                await trio.lowlevel.checkpoint()

    async def _greet(self) -> bool:
        """The first words; False when that was all."""
        context, client = self._context, self._client
        context.bus.emit(Connected(time=context.clock.now(), service=client.profile, client=client.address))
        refused = await context.policy.connect(client)
        if refused is None and context.greet_delay and client.profile == "smtp" and not client.trusted:
            refused = await self._listen_first()
        if refused is not None:
            self._close(refused, "connect")
            return False
        self._out += greeting(self._protocol.terms).encode()
        return self._open

    async def _listen_first(self) -> Reply | None:
        """Who speaks before the greeting does not wait for any reply: refused (RFC 5321 §4.3.1 makes it wait)."""
        with trio.move_on_after(self._context.greet_delay):
            if await self._stream.receive_some(READ):
                return reply(554, "5.5.1", f"{self._context.hostname} you spoke before the greeting")
            self._open = False
        return None

    async def _read(self) -> bool:
        """Send what is gathered and wait for more; False when the session is over."""
        protocol, context, watch = self._protocol, self._context, self._watch
        now = trio.current_time()
        in_content = protocol.in_content
        if in_content:
            patience = self._content_patience()
        else:
            if self._since == NOT_YET:
                self._since = now
            patience = self._since + context.command_timeout - now
        if self._out:
            await self._flush(patience)
        if context.draining.begun and not in_content:
            self._say_why()
            return False
        self._idle, watch.deadline = not in_content, now + patience
        data = await self._stream.receive_some(READ)
        self._idle, watch.deadline = False, math.inf
        if watch.cancel_called:  # both at once: the deadline, or the drain, wins
            await trio.lowlevel.checkpoint()
        if in_content:
            self._content_waits += trio.current_time() - now
        protocol.feed(bytes(data))
        return bool(data)

    def _content_patience(self) -> float:
        """Seconds that the next octets of content have; less where they came too slowly until now."""
        context, transaction = self._context, self._transaction
        patience = context.data_timeout
        self._slow = False
        if context.minimum_rate and transaction is not None:
            earned = RATE_GRACE + transaction.octets / context.minimum_rate - self._content_waits
            if earned < patience:
                self._slow, patience = True, max(0.0, earned)
        return patience

    def let_go(self) -> None:
        """Draining has begun: who waits for a command goes now, the others before their next wait."""
        if self._idle:
            self._watch.cancel()

    def _say_why(self) -> None:
        context = self._context
        if context.draining.begun and not self._protocol.in_content:
            self._refuse(reply(421, "4.3.2", f"{context.hostname} is shutting down, try again later"), "drain")
        elif self._slow and self._protocol.in_content:
            why = f"{context.hostname} slower than {context.minimum_rate:g} octets a second, closing"
            self._refuse(reply(421, "4.4.2", why), "timeout")
        else:
            seconds = context.data_timeout if self._protocol.in_content else context.command_timeout
            why = f"{context.hostname} nothing came for {seconds:g} s, closing"
            self._refuse(reply(421, "4.4.2", why), "timeout")

    async def _flush(self, seconds: float) -> None:
        if self._out:
            data, self._out = bytes(self._out), bytearray()
            self._sending, self._watch.deadline = True, trio.current_time() + seconds
            await self._stream.send_all(data)
            self._sending, self._watch.deadline = False, math.inf

    # --- speaking ---

    def _say(self, answer: Reply) -> None:
        self._out += answer.encode()

    def _refuse(self, answer: Reply, phase: str) -> None:
        context = self._context
        self._say(answer)
        now, client = context.clock.now(), self._client
        context.bus.emit(
            Refused(time=now, service=client.profile, client=client.address, phase=phase, reply=str(answer))
        )

    def _error(self, answer: Reply, phase: str) -> None:
        """Refuse, and count it where it is the client's mistake and not our trouble."""
        self._errors += answer.code >= 500 or phase != "data"
        self._refuse(answer, phase)

    def _close(self, answer: Reply, phase: str) -> None:
        self._refuse(answer, phase)
        self._protocol.close()
        self._open = False

    def _too_many(self) -> None:
        if not self._open:
            return
        hostname = self._context.hostname
        if self._errors >= self._context.errors:
            self._close(reply(421, "4.7.0", f"{hostname} too many errors, closing"), "errors")
        else:
            self._close(reply(421, "4.7.0", f"{hostname} too many commands without mail, closing"), "junk")

    # --- events ---

    async def _answer(self, event: Answer) -> None:
        self._since = NOT_YET
        if event.phase == "bdat":
            await self._forget()  # a chunk was refused: what came before it will not be completed
        if event.phase == "chunk":  # one that was under way already is no further mistake
            self._junk += 1
            self._refuse(event.reply, event.phase)
        elif event.reply.code >= 400:
            self._error(event.reply, event.phase)
        else:
            self._junk += self._protocol.verb in JUNK
            self._say(event.reply)
        if event.close:
            self._open = False

    async def _hello(self, event: Hello) -> None:
        self._since = NOT_YET
        self._junk += 1
        await self._forget()
        refused = await self._context.policy.helo(self._client, event.name)
        if refused is not None:
            self._error(refused, "helo")
            return
        self._out += self._protocol.hello_accepted(event.name).encode()
        self._client.helo, self._client.extended = event.name, self._protocol.extended

    async def _reset(self, event: Reset) -> None:
        self._since = NOT_YET
        self._junk += 1
        await self._forget()
        self._out += FORGOTTEN

    async def _mail(self, event: Mail) -> None:
        self._since = NOT_YET
        refused = await self._context.policy.mail(self._client, event, self._context.clock.now())
        if refused is not None:
            self._error(refused, "mail")
            return
        self._transaction = Transaction(self._context, self._client, event)
        self._protocol.mail_accepted()
        self._out += SENDER_OK

    async def _rcpt(self, event: Rcpt) -> None:
        self._since = NOT_YET
        assert self._transaction is not None
        refused = await self._transaction.rcpt(event)
        if refused is not None:
            self._error(refused, "rcpt")
            return
        self._protocol.recipient_accepted()
        self._out += RECIPIENT_OK

    # --- content ---

    async def _content(self, event: Content) -> None:
        self._since = NOT_YET
        self._junk = 0
        transaction = self._transaction
        assert transaction is not None
        refused = transaction.begin(event.size)
        if refused is None:
            self._protocol.content_accepted()
            if not event.chunked:
                self._content_waits = 0.0
                self._out += GO_AHEAD
        elif event.chunked:
            await self._chunk_refused(refused)
        else:
            self._error(refused, "data")

    async def _octets(self, event: Octets) -> None:
        transaction = self._transaction
        assert transaction is not None
        await transaction.take(event.content)
        if transaction.octets > 2 * self._context.message_size + READ:  # dropped for long enough
            await self._forget()
            self._close(reply(552, "5.3.4", "much larger than what is taken here, closing"), "data")

    async def _chunk_end(self, event: ChunkEnd) -> None:
        self._since = NOT_YET
        transaction = self._transaction
        assert transaction is not None
        if transaction.refusal is not None:
            await self._chunk_refused(transaction.refusal)
        else:
            self._say(reply(250, "2.0.0", f"{event.size} octets received"))

    async def _chunk_refused(self, why: Reply) -> None:
        self._protocol.content_refused(why)
        self._error(why, "data")
        await self._forget()

    async def _end_of_content(self, event: EndOfContent) -> None:
        self._since = NOT_YET
        transaction, context = self._transaction, self._context
        assert transaction is not None
        if event.bare and context.normalize:
            what = f"bare CR or LF became CRLF in {transaction.id}"
            now, client = context.clock.now(), self._client
            context.bus.emit(Noticed(time=now, service=client.profile, client=client.address, reason=what))
        try:
            answer = await transaction.end(event.bare)
        except SpoolUnsure as wrong:  # neither yes nor no would be true: the client finds out by trying again
            context.bus.emit(Trouble(time=context.clock.now(), where="spool", reason=f"{transaction.id}: {wrong}"))
            self._protocol.close()
            self._open = False
            return
        times = transaction.accepted if self._client.profile == "lmtp" else 1  # RFC 2033 §4.2
        if answer.code < 300:
            self._out += answer.encode() * times
        elif event.bare and not context.normalize and not event.chunked:
            # what the client took for ends of lines and of data may be anything: nothing more is obeyed
            self._say_times(answer, times - 1)
            self._close(answer, "data")
        else:
            self._say_times(answer, times - 1)
            self._error(answer, "data")
        await self._forget()

    def _say_times(self, answer: Reply, times: int) -> None:
        self._out += answer.encode() * times

    async def _forget(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            await transaction.forget()

    async def clean_up(self) -> None:
        if self._transaction is not None:
            with trio.CancelScope(shield=True):  # one unlink
                await self._forget()


_ACTIONS: dict[type[Any], Callable[[_Session, Any], Awaitable[None]]] = {
    Answer: _Session._answer,  # pyright: ignore[reportPrivateUsage] - the class's own table
    Hello: _Session._hello,  # pyright: ignore[reportPrivateUsage]
    Reset: _Session._reset,  # pyright: ignore[reportPrivateUsage]
    Mail: _Session._mail,  # pyright: ignore[reportPrivateUsage]
    Rcpt: _Session._rcpt,  # pyright: ignore[reportPrivateUsage]
    Content: _Session._content,  # pyright: ignore[reportPrivateUsage]
    Octets: _Session._octets,  # pyright: ignore[reportPrivateUsage]
    ChunkEnd: _Session._chunk_end,  # pyright: ignore[reportPrivateUsage]
    EndOfContent: _Session._end_of_content,  # pyright: ignore[reportPrivateUsage]
}
