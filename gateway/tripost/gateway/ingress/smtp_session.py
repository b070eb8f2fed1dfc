"""one SMTP client

The thin driver of `smtp_protocol`: reads, asks the router and the queue, and
writes replies. Replies are gathered while commands are waiting (PIPELINING)
and sent before more is read.

Promise  a 250 to the end of data is sent only after the queue's commit.
Fails    the client is told 421 4.4.2 after silence, 4xx when the queue cannot
         store; a connection that breaks leaves nothing behind.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

import trio

from tripost.delivery.routing import Refusal, Router
from tripost.delivery.wire.replies import Reply, reply
from tripost.gateway.ingress.smtp_protocol import (
    Answer,
    Chunk,
    Data,
    EndOfData,
    Event,
    Hello,
    Mail,
    Rcpt,
    ServerProtocol,
)
from tripost.gateway.ingress.trace import HopCounter, received_line
from tripost.gateway.lifecycle import Draining
from tripost.queue.body import Body
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolError, SpoolUnsure
from tripost.queue.events import Bus, Connected, Refused, Trouble
from tripost.queue.manager import Queue
from tripost.queue.message import Envelope, Recipient

READ = 65_536
REPLIES_LIMIT = 16_384  # octets of replies gathered before they must go out
JUNK = frozenset({"HELO", "EHLO", "NOOP", "RSET", "VRFY", "HELP"})
CLOSING_TIMEOUT = 10.0


@dataclass(frozen=True)
class IngressContext:
    """What all sessions share. Sizes in octets, times in seconds."""

    hostname: str
    queue: Queue
    router: Router
    bus: Bus
    clock: Clock
    relay_networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    message_size: int
    recipients: int
    errors: int
    junk_commands: int
    command_timeout: float
    data_timeout: float
    expire: float
    hops: int
    draining: Draining = field(default_factory=Draining)


class _Incoming:
    """The content that is being received."""

    def __init__(self, id: str, body: Body) -> None:
        self.id = id
        self.body = body
        self.hops = HopCounter()
        self.octets = 0
        self.refusal: Reply | None = None


async def serve_smtp(stream: trio.abc.Stream, *, client: str, context: IngressContext) -> None:
    """Until the client quits, is silent too long, or the connection breaks."""
    session = _Session(stream, client, context)
    try:
        await session.run()
    finally:
        await session.clean_up()


class _Session:
    def __init__(self, stream: trio.abc.Stream, client: str, context: IngressContext) -> None:
        self._stream = stream
        self._client = client
        self._context = context
        self._protocol = ServerProtocol(context.hostname, context.message_size)
        self._out = bytearray()
        self._sender = ""
        self._eight_bit = False
        self._recipients: list[Recipient] = []
        self._incoming: _Incoming | None = None
        self._errors = 0
        self._junk = 0
        self._open = True
        address = ipaddress.ip_address(client) if client else None
        self._may_relay = any(address in network for network in context.relay_networks if address is not None)

    async def run(self) -> None:
        context = self._context
        context.bus.emit(Connected(time=context.clock.now(), service="smtp", client=self._client))
        self._say(reply(220, "", f"{context.hostname} ESMTP tripost"))
        while self._open:
            event = self._protocol.next()
            if event is not None:
                await self._handle(event)
                if len(self._out) > REPLIES_LIMIT:
                    await self._flush()
            elif not await self._read():
                return
        with trio.move_on_after(CLOSING_TIMEOUT):
            await self._flush()
            await self._stream.aclose()

    async def _read(self) -> bool:
        """Send what is gathered and wait for more; False when the session is over."""
        context, in_data = self._context, self._protocol.in_data
        seconds = context.data_timeout if in_data else context.command_timeout
        try:
            with trio.fail_after(seconds):
                await self._flush()
            with trio.move_on_after(seconds) if in_data else context.draining.waiting(seconds):
                data = await self._stream.receive_some(READ)
                self._protocol.feed(bytes(data))
                return bool(data)
        except trio.TooSlowError:  # it does not even read
            return False
        if context.draining.begun and not in_data:
            self._refuse(reply(421, "4.3.2", f"{context.hostname} is shutting down, try again later"), "drain")
        else:
            why = f"{context.hostname} nothing came for {seconds:g} s, closing"
            self._refuse(reply(421, "4.4.2", why), "timeout")
        with trio.move_on_after(CLOSING_TIMEOUT):
            await self._flush()
        return False

    async def _flush(self) -> None:
        if self._out:
            data, self._out = bytes(self._out), bytearray()
            await self._stream.send_all(data)

    def _say(self, answer: Reply) -> None:
        self._out += answer.encode()

    def _refuse(self, answer: Reply, phase: str) -> None:
        context = self._context
        self._say(answer)
        context.bus.emit(
            Refused(time=context.clock.now(), service="smtp", client=self._client, phase=phase, reply=str(answer))
        )

    # --- events ---

    async def _handle(self, event: Event) -> None:
        if isinstance(event, Chunk):
            await self._chunk(event.content)
            return
        if isinstance(event, EndOfData):
            await self._end_of_data(event.bare)
        elif isinstance(event, Hello):
            self._forget()
            self._say(event.reply)
        elif isinstance(event, Mail):
            self._mail(event)
        elif isinstance(event, Rcpt):
            self._rcpt(event.address)
        elif isinstance(event, Data):
            self._data()
        else:
            self._answer(event)
        self._count()

    def _answer(self, event: Answer) -> None:
        if self._protocol.verb == "RSET" and event.reply.code == 250:
            self._forget()
        if event.reply.code >= 400:
            self._error(event.reply, event.phase)
        else:
            self._say(event.reply)
        if event.close:
            self._open = False

    def _error(self, answer: Reply, phase: str) -> None:
        self._errors += 1
        self._refuse(answer, phase)

    def _count(self) -> None:
        """Close on clients that only waste time."""
        self._junk += self._protocol.verb in JUNK and not self._protocol.in_data
        context = self._context
        if not self._open:
            return
        if self._errors >= context.errors:
            self._close(reply(421, "4.7.0", f"{context.hostname} too many errors, closing"), "errors")
        elif self._junk > context.junk_commands:
            self._close(reply(421, "4.7.0", f"{context.hostname} too many commands without mail, closing"), "junk")

    def _close(self, answer: Reply, phase: str) -> None:
        self._refuse(answer, phase)
        self._protocol.close()
        self._open = False

    def _mail(self, event: Mail) -> None:
        self._sender, self._eight_bit = event.sender, event.parameters.eight_bit
        self._protocol.mail_accepted()
        self._say(reply(250, "2.1.0", "sender ok"))

    def _rcpt(self, address: str) -> None:
        if len(self._recipients) >= self._context.recipients:
            self._error(reply(452, "4.5.3", "too many recipients in one message; send the rest in another"), "rcpt")
            return
        decision = self._context.router.decide(address, self._may_relay)
        if isinstance(decision, Refusal):
            self._error(reply(decision.code, decision.enhanced, decision.text), "rcpt")
            return
        for route in decision.all:
            new = Recipient(len(self._recipients), route.address, route.next_hop, via=route.via)
            if all((one.address, one.next_hop) != (new.address, new.next_hop) for one in self._recipients):
                self._recipients.append(new)
        self._protocol.recipient_accepted()
        self._say(reply(250, "2.1.5", "recipient ok"))

    def _data(self) -> None:
        queue = self._context.queue
        self._incoming = _Incoming(queue.new_id(), queue.new_body())
        self._protocol.data_begins()
        self._junk = 0
        self._say(reply(354, "", "end data with <CRLF>.<CRLF>"))

    # --- content ---

    async def _chunk(self, content: bytes) -> None:
        incoming, context = self._incoming, self._context
        assert incoming is not None
        if incoming.refusal is not None:
            return  # read to its real end, and dropped
        incoming.octets += len(content)
        incoming.hops.feed(content)
        if incoming.octets > context.message_size:
            why = reply(552, "5.3.4", f"larger than the {context.message_size} octets that are taken here")
        elif incoming.hops.hops >= context.hops:
            why = reply(554, "5.4.6", f"{incoming.hops.hops} Received lines: the message goes in circles")
        else:
            await self._store(incoming, content)
            return
        incoming.refusal = why
        await incoming.body.discard()

    async def _store(self, incoming: _Incoming, content: bytes) -> None:
        try:
            if not incoming.body.size:
                await incoming.body.write(self._received(incoming.id))
            await incoming.body.write(content)
        except SpoolError as wrong:
            incoming.refusal = reply(wrong.code, wrong.enhanced, wrong.text)
            await incoming.body.discard()

    def _received(self, id: str) -> bytes:
        context, protocol = self._context, self._protocol
        return received_line(
            helo=protocol.helo,
            client=self._client,
            hostname=context.hostname,
            extended=protocol.extended,
            id=id,
            now=context.clock.now(),
        )

    async def _end_of_data(self, bare: bool) -> None:
        incoming = self._incoming
        assert incoming is not None
        if bare:
            await incoming.body.discard()
            self._close(reply(554, "5.6.0", "bare CR or LF in the message; lines end in CRLF"), "data")
            return
        if incoming.refusal is None and not incoming.body.size:
            await self._store(incoming, b"")
        if incoming.refusal is None:
            await self._accept(incoming)
        if incoming.refusal is not None:
            await incoming.body.discard()
            if incoming.refusal.code >= 500:
                self._error(incoming.refusal, "data")
            else:  # our trouble, not the client's mistake
                self._refuse(incoming.refusal, "data")
        self._forget()

    async def _accept(self, incoming: _Incoming) -> None:
        context = self._context
        now = context.clock.now()
        envelope = Envelope(
            id=incoming.id,
            sender=self._sender,
            recipients=tuple(self._recipients),
            accepted=now,
            expires=now + context.expire,
            size=incoming.body.size,
            eight_bit=self._eight_bit,
            client=self._client,
        )
        try:
            await context.queue.accept(envelope, incoming.body)
        except SpoolUnsure as wrong:  # neither yes nor no would be true: the client finds out by trying again
            context.bus.emit(Trouble(time=context.clock.now(), where="spool", reason=f"{incoming.id}: {wrong}"))
            self._protocol.close()
            self._open = False
        except SpoolError as wrong:
            incoming.refusal = reply(wrong.code, wrong.enhanced, wrong.text)
        else:
            self._incoming = None
            self._say(reply(250, "2.0.0", f"queued as {incoming.id}"))

    def _forget(self) -> None:
        self._sender, self._eight_bit = "", False
        self._recipients = []
        self._incoming = None

    async def clean_up(self) -> None:
        if self._incoming is not None:
            with trio.CancelScope(shield=True):  # one unlink
                await self._incoming.body.discard()
