"""the two directions of one connection, and their time limits

Replies are gathered and sent before more is read; octets go to the protocol.
What is read and said is the session's business.

Promise  no wait on the client without a deadline: a whole command has
         `command_timeout` however it dribbles in, a piece of content
         `data_timeout`, less where the content came slower than `minimum_rate`;
         the session as a whole `SPANS` command timeouts until a message is accepted.
Why      one cancel scope for the whole conversation, which `patience` cancels when
         a wait is `due`: work between waits (a commit) is never under a deadline.
Source   RFC 5321 §4.5.3.2.
"""

from __future__ import annotations

import math
import ssl
from contextlib import suppress

import trio

from tripost.delivery.fast_stream import FastStream
from tripost.delivery.wire.replies import Reply, reply
from tripost.gateway.ingress.context import IngressContext
from tripost.gateway.ingress.hearing import hear
from tripost.gateway.ingress.patience import NEVER
from tripost.gateway.ingress.smtp_events import Event
from tripost.gateway.ingress.smtp_protocol import ServerProtocol
from tripost.gateway.peer import TlsFacts
from tripost.gateway.tls import start_tls
from tripost.queue.dialogue import SILENT, Dialogue, replies

READ = 65_536
READ_WHEN_SHORT = 4096  # of memory
CLOSING_TIMEOUT = 10.0
GOODBYE_TIMEOUT = 1.0  # for the other side of it
RATE_GRACE = 30.0  # seconds of waiting for content before `minimum_rate` is asked for
SPANS = 12  # `command_timeout` so many times without a message accepted, and the session ends
NOT_YET = -1.0


class Conversation:
    """`out` is what is to be said; `done()` is called for every command that was handled; `due`: see `patience`."""

    def __init__(
        self, stream: trio.abc.Stream, context: IngressContext, protocol: ServerProtocol, dialogue: Dialogue = SILENT
    ) -> None:
        self.stream = stream
        self.dialogue = dialogue
        self.out = bytearray()
        self.gone = False  # there is nobody to say anything to
        self.cut = False  # we end it, and say why (`why_over`)
        self.watch = trio.CancelScope()
        self.due = NEVER
        self._context = context
        self._protocol = protocol
        self._idle = False  # waits for a command
        self._ended = False  # `watch` was cancelled
        self._since = NOT_YET  # when it began to wait for the command that it waits for
        self._octets = 0  # of this content
        self._waited = 0.0  # seconds for them
        self._slow = self._stale = False
        self._until = trio.current_time() + SPANS * context.command_timeout
        self._told = 0  # octets of `out` that tracers know
        if dialogue.tracers:
            dialogue.noted("connected")

    def next(self) -> Event | None:
        """What the client says next; None for more octets."""
        event = self._protocol.next()
        if self.dialogue.tracers and event is not None:
            hear(self.dialogue, self._protocol, event)
        return event

    async def secure(self, context: ssl.SSLContext) -> TlsFacts:
        """From here on inside of TLS. Raises HandshakeFailed."""
        self.stream, facts = await start_tls(self.stream, context)
        if self.dialogue.tracers:
            self.dialogue.noted(f"TLS: {facts.version} {facts.cipher}")
        return facts

    def _tell(self) -> None:
        """Tracers what is about to be sent."""
        for line in replies(bytes(self.out[self._told :])) if self.dialogue.tracers else ():
            self.dialogue.said(line)
        self._told = len(self.out)

    def done(self) -> None:
        self._since = NOT_YET

    def got_somewhere(self) -> None:
        """A message was accepted."""
        self._until = trio.current_time() + SPANS * self._context.command_timeout

    def content_begins(self) -> None:
        self._octets, self._waited = 0, 0.0

    async def read(self) -> bool:
        """Send what is gathered and wait for more; False when it is over."""
        protocol, context = self._protocol, self._context
        now = trio.current_time()
        in_content = protocol.in_content
        if in_content:
            patience = self._patience()
        else:
            if self._since == NOT_YET:
                self._since = now
            patience = self._since + context.command_timeout - now
        if self.out:
            await self.flush(patience)
        if not in_content and (context.draining.begun or now >= self._until):
            self.cut, self._stale = True, not context.draining.begun
            return False
        self._idle, self.due = not in_content, now + patience
        data = await self.stream.receive_some(READ_WHEN_SHORT if context.memory.short else READ)
        self._idle, self.due = False, NEVER
        if self._ended:  # both at once: the limit, or the drain, wins
            await trio.lowlevel.checkpoint()
        if in_content:
            self._octets += len(data)
            self._waited += trio.current_time() - now
        elif not data:
            self.gone = True
        protocol.feed(bytes(data))
        return bool(data)

    def _patience(self) -> float:
        """Seconds that the next octets of content have."""
        patience, rate = self._context.data_timeout, self._context.minimum_rate
        earned = RATE_GRACE + self._octets / rate - self._waited if rate else math.inf
        self._slow = earned < patience
        return max(0.0, earned) if self._slow else patience

    def let_go(self) -> None:
        """Draining has begun: who waits for a command goes now, the others before their next wait."""
        if self._idle:
            self.over()

    def over(self) -> None:
        """What it waits for does not come in time."""
        self._ended = True
        self.watch.cancel()

    def why_over(self) -> tuple[Reply, str]:
        """What is to be said to a client whose time is over, and the phase."""
        context, in_content = self._context, self._protocol.in_content
        if context.draining.begun and not in_content:
            return reply(421, "4.3.2", f"{context.hostname} is shutting down, try again later"), "drain"
        if self._stale:
            why = f"no message for {SPANS * context.command_timeout:g} s, closing"
        elif self._slow and in_content:
            why = f"slower than {context.minimum_rate:g} octets a second, closing"
        else:
            why = f"nothing came for {context.data_timeout if in_content else context.command_timeout:g} s, closing"
        return reply(421, "4.4.2", f"{context.hostname} {why}"), "timeout"

    async def flush(self, seconds: float) -> None:
        """Send what is gathered. While that is cut, nothing can be said any more (`gone`)."""
        if self.dialogue.tracers:
            self._tell()
        if self.out and not (isinstance(self.stream, FastStream) and self._flushed(self.stream)):
            data, self.out, self._told = bytes(self.out), bytearray(), 0
            self.gone, self.due = True, trio.current_time() + seconds
            await self.stream.send_all(data)
            self.gone, self.due = False, NEVER

    def _flushed(self, stream: FastStream) -> bool:
        """Send at once; False when something is left."""
        del self.out[: stream.send_now(self.out)]
        self._told = len(self.out) if self._told else 0
        return not self.out

    async def end(self) -> None:
        """The last words, and the end of the connection."""
        if self.dialogue.tracers:
            self._tell()
            self.dialogue.noted("closed")
        if isinstance(self.stream, FastStream) and (self.gone or self._flushed(self.stream)):
            self.stream.close()
            return
        with trio.move_on_after(CLOSING_TIMEOUT):
            if not self.gone:
                await self.flush(CLOSING_TIMEOUT)
                await self._say_goodbye()
            await self.stream.aclose()

    async def _say_goodbye(self) -> None:
        """TLS has an end of its own (RFC 8446 §6.1), so that nobody can cut a connection unnoticed."""
        if isinstance(self.stream, trio.SSLStream):
            with trio.move_on_after(GOODBYE_TIMEOUT), suppress(trio.BrokenResourceError):
                await self.stream.unwrap()  # pyright: ignore[reportUnknownMemberType]
