"""one SMTP or LMTP client

What happens at each event of `smtp_protocol`: policy and the transaction are
asked, the answer is said, the protocol is told. `conversation` reads and sends.

Promise  a 250 to the end of data is sent only after the queue's commit; a
         client that waits, dawdles or chatters costs its own task, and not for
         longer than its limits.
Fails    the client is told 421 4.4.2 after silence, 4xx when the queue cannot
         store; a connection that breaks leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import trio

from tripost.delivery.wire.replies import Reply, reply
from tripost.gateway.ingress.authenticating import auth, auth_line
from tripost.gateway.ingress.claiming import claim, forward
from tripost.gateway.ingress.context import NOBODY, Client, IngressContext, Who
from tripost.gateway.ingress.conversation import READ, Conversation
from tripost.gateway.ingress.policy import HOLD_MOST, hold_until
from tripost.gateway.ingress.receiving import Transaction
from tripost.gateway.ingress.smtp_events import (
    Answer,
    Auth,
    AuthLine,
    ChunkEnd,
    Claim,
    Content,
    EndOfContent,
    Hello,
    Mail,
    Octets,
    Rcpt,
    Reset,
    StartTls,
)
from tripost.gateway.ingress.smtp_protocol import ServerProtocol
from tripost.gateway.ingress.terms import Terms, greeting_octets
from tripost.gateway.login import Attempt
from tripost.gateway.peer import Peer, TlsFacts, is_in, secured
from tripost.gateway.tls import HandshakeFailed
from tripost.queue.errors import SpoolUnsure
from tripost.queue.events import Connected, Noticed, Refused, Trouble

REPLIES_LIMIT = 16_384  # octets of replies gathered before they must go out
BREATH = 64  # events handled without a wait before others get their turn
JUNK = frozenset({"NOOP", "VRFY", "HELP"})

SENDER_OK = reply(250, "2.1.0", "sender ok").encode()
RECIPIENT_OK = reply(250, "2.1.5", "recipient ok").encode()
GO_AHEAD = reply(354, "", "end data with <CRLF>.<CRLF>").encode()
FORGOTTEN = reply(250, "2.0.0", "forgotten").encode()
FORWARD_OK = reply(250, "2.0.0", "noted").encode()
TLS_NOW = reply(220, "2.0.0", "go ahead").encode()


async def serve_smtp(stream: trio.abc.Stream, *, peer: Peer, context: IngressContext, who: Who = NOBODY) -> None:
    """Until the client quits, is silent too long, or the connection breaks. `who` has logged in already."""
    session = Session(stream, peer, context, who)
    talk = session.talk
    stop_watching = context.draining.watch(talk.let_go)
    context.patience.enter(talk)
    try:
        await session.run()
    finally:
        context.patience.leave(talk)
        stop_watching()
        await session.clean_up()


def _shown(tls: TlsFacts | None) -> str:
    return f"{tls.version} {tls.cipher}" if tls is not None else ""


class Session:
    """One connection from its greeting to its end."""

    def __init__(self, stream: trio.abc.Stream, peer: Peer, context: IngressContext, who: Who = NOBODY) -> None:
        self.context = context
        self.peer = peer
        relay = is_in(peer.client, context.relay_networks)
        tls = _shown(peer.tls)
        self.client = Client(peer.client, peer.client_port, peer.service, relay, tls, who.account, who.names)
        self.protocol = ServerProtocol(self.terms(), normalize=context.normalize)
        self.talk = Conversation(stream, context, self.protocol, context.bus.tracing.session(peer.service, peer.client))
        self.attempt: Attempt | None = None  # to log in
        self._transaction: Transaction | None = None
        self._errors = self._junk = 0
        self._open = True

    def terms(self) -> Terms:
        """What the client may use now."""
        context, client, peer = self.context, self.client, self.peer
        return Terms(
            hostname=context.hostname,
            profile=client.profile,
            message_size=context.message_size,
            recipients=context.recipients,
            starttls=peer.context is not None,
            secured=bool(client.tls),
            need_tls=peer.require_tls,
            mechanisms=context.mechanisms(peer) if not client.account else (),
            need_auth=client.profile == "submission",
            authenticated=bool(client.account),
            trusted=client.trusted,
            xclient=peer.xclient,
            hold_most=HOLD_MOST,
            hold_until=hold_until(context.clock.now()) if client.trusted else "",
        )

    # --- the loop ---

    async def run(self) -> None:
        talk = self.talk
        with talk.watch:
            await self._loop()
        if talk.watch.cancelled_caught and not talk.gone:
            self.refuse(*talk.why_over())
        await talk.end()

    async def _loop(self) -> None:
        if not await self._greet():
            return
        context, talk, busy = self.context, self.talk, 0
        while self._open:
            event = talk.next()
            if event is None:
                if not await talk.read():
                    if talk.cut:
                        self.refuse(*talk.why_over())
                    return
                busy = 0
                continue
            await ACTIONS[type(event)](self, event)
            if self._errors >= context.errors or self._junk > context.junk_commands:
                self._too_many()
            busy += 1
            if len(talk.out) > REPLIES_LIMIT or busy >= BREATH:
                busy = 0
                await talk.flush(context.command_timeout)
                await trio.lowlevel.checkpoint()

    async def _greet(self) -> bool:
        """The first words; False when that was all."""
        context, client = self.context, self.client
        context.bus.emit(Connected(time=context.clock.now(), service=client.profile, client=client.address))
        refused = None if context.queue.accepting else reply(421, "4.3.2", f"{context.hostname} cannot store mail now")
        refused = refused or await context.policy.connect(client)
        if refused is None and context.greet_delay and client.profile == "smtp" and not client.trusted:
            refused = await self._listen_first()
        if refused is not None:
            self.close(refused, "connect")
            return False
        self.talk.out += greeting_octets(self.protocol.terms)
        return self._open

    async def _listen_first(self) -> Reply | None:
        """Who speaks before the greeting does not listen to replies either (RFC 5321 §4.3.1 has it wait)."""
        with trio.move_on_after(self.context.greet_delay):
            if await self.talk.stream.receive_some(READ):
                return reply(554, "5.5.1", f"{self.context.hostname} you spoke before the greeting")
            self._open = False
        return None

    # --- speaking ---

    def say(self, answer: Reply) -> None:
        self.talk.out += answer.encode()

    def refuse(self, answer: Reply, phase: str) -> None:
        context, client = self.context, self.client
        self.say(answer)
        now = context.clock.now()
        context.bus.emit(
            Refused(time=now, service=client.profile, client=client.address, phase=phase, reply=str(answer))
        )

    def error(self, answer: Reply, phase: str) -> None:
        """Refuse, and count it where it is the client's mistake and not our trouble."""
        self._errors += answer.code >= 500 or phase != "data"
        self.refuse(answer, phase)

    def close(self, answer: Reply, phase: str) -> None:
        self.refuse(answer, phase)
        self.hang_up()

    def hang_up(self) -> None:
        """After what is gathered was said."""
        self.protocol.close()
        self._open = False

    def notice(self, reason: str) -> None:
        context, client = self.context, self.client
        context.bus.emit(
            Noticed(time=context.clock.now(), service=client.profile, client=client.address, reason=reason)
        )

    def _too_many(self) -> None:
        if not self._open:
            return
        hostname = self.context.hostname
        if self._errors >= self.context.errors:
            self.close(reply(421, "4.7.0", f"{hostname} too many errors, closing"), "errors")
        else:
            self.close(reply(421, "4.7.0", f"{hostname} too many commands without mail, closing"), "junk")

    # --- who it is ---

    async def _answer(self, event: Answer) -> None:
        self.talk.done()
        if event.phase == "bdat":
            await self.forget()  # a chunk was refused: what came before it will not be completed
        if event.phase == "chunk":  # one that was under way already is no further mistake
            self._junk += 1
            self.refuse(event.reply, event.phase)
        elif event.reply.code >= 400:
            self.error(event.reply, event.phase)
        else:
            self._junk += self.protocol.verb in JUNK
            self.say(event.reply)
        if event.close:
            self._open = False

    async def _hello(self, event: Hello) -> None:
        self.talk.done()
        self._junk += 1
        await self.forget()
        refused = await self.context.policy.helo(self.client, event.name)
        if refused is not None:
            self.error(refused, "helo")
            return
        self.talk.out += self.protocol.hello_accepted(event.name)
        self.client.helo, self.client.extended = event.name, self.protocol.extended

    async def _starttls(self, event: StartTls) -> None:
        talk, protocol, client, ssl_context = self.talk, self.protocol, self.client, self.peer.context
        talk.done()
        assert ssl_context is not None
        talk.out += TLS_NOW
        await talk.flush(self.context.command_timeout)
        dropped = protocol.tls_begins()
        if dropped:
            self.notice(f"{dropped} octets behind STARTTLS, in plain text, were dropped")
        try:
            facts = await talk.secure(ssl_context)
        except HandshakeFailed as wrong:
            self.notice(f"no TLS: {wrong}")
            self._open, talk.gone = False, True
            return
        client.tls = _shown(facts)
        self.peer = msgspec.structs.replace(self.peer, tls=facts)
        self.context.bus.emit(secured(self.peer, self.context.clock.now()))
        client.helo, client.extended, client.account = "", False, ""
        protocol.begin_anew(self.terms())

    async def _claim(self, event: Claim) -> None:
        self.talk.done()
        if event.verb == "XFORWARD":
            forward(self.client, event.attributes)
            self.talk.out += FORWARD_OK
            return
        client = self.client
        claim(client, event.attributes, self.context.relay_networks)
        self.talk.dialogue.client = client.address
        self.peer = msgspec.structs.replace(self.peer, client=client.address, client_port=client.port)
        self.protocol.begin_anew(self.terms())
        refused = await self.context.policy.connect(self.client)
        if refused is not None:
            self.close(refused, "connect")
            return
        self.talk.out += greeting_octets(self.protocol.terms)

    # --- the transaction ---

    async def _reset(self, event: Reset) -> None:
        self.talk.done()
        self._junk += 1
        await self.forget()
        self.talk.out += FORGOTTEN

    async def _mail(self, event: Mail) -> None:
        self.talk.done()
        context = self.context
        transaction = Transaction(context, self.client, event)
        refused = await context.policy.mail(self.client, event, context.clock.now()) or await transaction.open()
        if refused is not None:
            self.error(refused, "mail")
            return
        self._transaction = transaction
        self.protocol.mail_accepted()
        self.talk.out += SENDER_OK

    async def _rcpt(self, event: Rcpt) -> None:
        self.talk.done()
        assert self._transaction is not None
        refused = await self._transaction.rcpt(event)
        if refused is not None:
            self.error(refused, "rcpt")
            return
        self.protocol.recipient_accepted()
        self.talk.out += RECIPIENT_OK

    async def _content(self, event: Content) -> None:
        self.talk.done()
        self._junk = 0
        transaction = self._transaction
        assert transaction is not None
        refused = transaction.begin(event.size)
        if refused is None:
            self.protocol.content_accepted()
            if not event.chunked:
                self.talk.out += GO_AHEAD
            if not transaction.octets:
                self.talk.content_begins()
        elif event.chunked:
            await self._chunk_refused(refused)
        else:
            self.error(refused, "data")

    async def _octets(self, event: Octets) -> None:
        transaction = self._transaction
        assert transaction is not None
        await transaction.take(event.content)
        if transaction.octets > 2 * self.context.message_size + READ:  # dropped for long enough
            await self.forget()
            self.close(reply(552, "5.3.4", "much larger than what is taken here, closing"), "data")

    async def _chunk_end(self, event: ChunkEnd) -> None:
        self.talk.done()
        transaction = self._transaction
        assert transaction is not None
        if transaction.refusal is not None:
            await self._chunk_refused(transaction.refusal)
        else:
            self.say(reply(250, "2.0.0", f"{event.size} octets received"))

    async def _chunk_refused(self, why: Reply) -> None:
        self.protocol.content_refused(why)
        self.error(why, "data")
        await self.forget()

    async def _end_of_content(self, event: EndOfContent) -> None:
        self.talk.done()
        transaction, context = self._transaction, self.context
        assert transaction is not None
        if event.bare and context.normalize:
            self.notice(f"bare CR or LF became CRLF in {transaction.id}")
        try:
            answer = await transaction.end(event.bare)
        except SpoolUnsure as wrong:  # neither yes nor no would be true: the client finds out by trying again
            context.bus.emit(Trouble(time=context.clock.now(), where="spool", reason=f"{transaction.id}: {wrong}"))
            self.hang_up()
            return
        # RFC 2033 §4.2: LMTP has an answer for each recipient
        also = transaction.accepted - 1 if self.client.profile == "lmtp" else 0
        self.talk.out += answer.encode() * also
        if answer.code < 300:
            self.talk.out += answer.encode()
            self.talk.got_somewhere()
        elif event.bare and not context.normalize and not event.chunked:
            # what the client took for ends of lines and of data may be anything: nothing more is obeyed
            self.close(answer, "data")
        else:
            self.error(answer, "data")
        await self.forget()

    async def forget(self) -> None:
        """No transaction."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            self.client.forwarded = ""
            await transaction.forget()

    async def clean_up(self) -> None:
        if self._transaction is not None:
            with trio.CancelScope(shield=True):  # one unlink
                await self.forget()


ACTIONS: dict[type[Any], Callable[[Session, Any], Awaitable[None]]] = {
    Answer: Session._answer,  # pyright: ignore[reportPrivateUsage] - the class's own table
    Hello: Session._hello,  # pyright: ignore[reportPrivateUsage]
    StartTls: Session._starttls,  # pyright: ignore[reportPrivateUsage]
    Auth: auth,
    AuthLine: auth_line,
    Claim: Session._claim,  # pyright: ignore[reportPrivateUsage]
    Reset: Session._reset,  # pyright: ignore[reportPrivateUsage]
    Mail: Session._mail,  # pyright: ignore[reportPrivateUsage]
    Rcpt: Session._rcpt,  # pyright: ignore[reportPrivateUsage]
    Content: Session._content,  # pyright: ignore[reportPrivateUsage]
    Octets: Session._octets,  # pyright: ignore[reportPrivateUsage]
    ChunkEnd: Session._chunk_end,  # pyright: ignore[reportPrivateUsage]
    EndOfContent: Session._end_of_content,  # pyright: ignore[reportPrivateUsage]
}
