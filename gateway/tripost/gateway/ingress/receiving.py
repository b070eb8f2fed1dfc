"""one transaction: from MAIL to the commit

Gathers the envelope, takes the content to the spool piece by piece, and hands
both to the queue. The session speaks; this decides what it says.

States   MAIL → RCPT … → content → accepted, refused or forgotten.
Promise  a refused content is read to its end and dropped at once; what is not
         accepted leaves nothing behind (`forget`). Memory for one piece.
Fails    `SpoolUnsure`: nobody knows, so that nothing may be said.
"""

from __future__ import annotations

import trio

from tripost.delivery.routing import Route
from tripost.delivery.wire.replies import Reply, reply
from tripost.gateway.ingress.context import Client, IngressContext
from tripost.gateway.ingress.smtp_events import Mail, Rcpt
from tripost.gateway.ingress.trace import HeaderReader, Hop, received_line, with_protocol
from tripost.queue.body import Body
from tripost.queue.errors import SpoolError, SpoolUnsure
from tripost.queue.message import Envelope, Recipient

TOO_MANY = reply(452, "4.5.3", "too many recipients in one message; send the rest in another")


class Transaction:
    """`mail` was accepted."""

    def __init__(self, context: IngressContext, client: Client, mail: Mail) -> None:
        self._context = context
        self._client = client
        self._mail = mail
        self._recipients: dict[tuple[str, str], Recipient] = {}
        self._first = ""
        self._body: Body | None = None
        self._header = HeaderReader()
        self._tally = context.quotas.open(client)
        self._held = 0  # octets of `context.memory`
        self.id = ""
        self.refusal: Reply | None = None  # of the content; told at its end
        self.accepted = 0  # RCPTs; LMTP answers each of them after the content
        self.octets = 0  # of content that came
        self.announced = 0  # by BDAT

    async def open(self) -> Reply | None:
        """A reply refuses: what could not be stored is not asked for, and nobody sends more than is agreed on."""
        try:
            self._context.queue.check_room(self._mail.parameters.size)
        except SpoolError as wrong:
            return reply(wrong.code, wrong.enhanced, wrong.text)
        return await self._tally.message(trio.current_time())

    async def rcpt(self, rcpt: Rcpt) -> Reply | None:
        """A reply refuses."""
        if self.accepted >= self._context.recipients:
            return TOO_MANY  # RFC 5321 §4.5.3.1.10
        decision = await self._context.policy.rcpt(self._client, rcpt, self._mail.sender)
        if not isinstance(decision, Route):
            return decision
        over = await self._tally.recipient(trio.current_time())
        if over is not None:
            return over
        asked = rcpt.parameters
        for route in decision.all:
            key = route.address, route.next_hop
            if key not in self._recipients:
                number = len(self._recipients)
                self._recipients[key] = Recipient(number, *key, asked.notify, asked.orcpt, via=route.via)
        self._first = self._first or rcpt.address
        self.accepted += 1
        return None

    # --- content ---

    def begin(self, size: int) -> Reply | None:
        """Content begins (DATA), or goes on with `size` octets (BDAT). A reply refuses it."""
        if self._body is None:
            self.id = self._context.queue.new_id()
            self._body = self._context.queue.new_body()
        self.announced += size
        return self.refusal or self._too_large(self.announced)

    def _too_large(self, octets: int) -> Reply | None:
        limit = self._context.message_size
        return reply(552, "5.3.4", f"larger than the {limit} octets that are taken here") if octets > limit else None

    async def take(self, content: bytes) -> None:
        """A piece of content. What is wrong with it is told at the end."""
        self.octets += len(content)
        if self.refusal is not None:
            return
        header = self._header
        if header.over:
            why = self._too_large(self.octets)
        else:
            end = header.feed(content)
            if header.over and self._client.profile == "submission":
                content = content[:end] + self._missing() + content[end:]
            why = self._too_large(self.octets)
            if header.hops >= self._context.hops:
                why = reply(554, "5.4.6", f"{header.hops} Received lines: the message goes in circles")
        if why is None:
            await self._store(content)
        else:
            await self._refuse(why)

    async def _store(self, content: bytes) -> None:
        body, memory = self._body, self._context.memory
        assert body is not None
        try:
            if not body.size:
                content = self._received() + content
            if memory.take(len(content)):
                self._held += len(content)
                await body.write(content)
            else:
                await body.write(content)
                await body.spill()
            if self._held > body.waiting:  # it went to a file
                memory.give(self._held - body.waiting)
                self._held = body.waiting
        except SpoolError as wrong:
            await self._refuse(reply(wrong.code, wrong.enhanced, wrong.text))

    async def _refuse(self, why: Reply) -> None:
        self.refusal = why
        if self._body is not None:
            await self._body.discard()
        self._let_memory_go()

    def _let_memory_go(self) -> None:
        self._context.memory.give(self._held)
        self._held = 0

    def _missing(self) -> bytes:
        return self._header.missing(id=self.id, hostname=self._context.hostname, now=self._context.clock.now())

    def _received(self) -> bytes:
        context, client = self._context, self._client
        return received_line(
            Hop(
                helo=client.helo,
                client=client.address,
                name=client.name,
                hostname=context.hostname,
                protocol=with_protocol(
                    lmtp=client.profile == "lmtp",
                    extended=client.extended,
                    utf8=self._mail.parameters.smtputf8,
                    secured=bool(client.tls),
                    authenticated=bool(client.account),
                ),
                tls=client.tls,
                id=self.id,
                recipient=self._first if self.accepted == 1 else "",
                now=context.clock.now(),
            )
        )

    async def end(self, bare: bool) -> Reply:
        """The reply to the message; below 300 it is on stable storage. Raises SpoolUnsure."""
        if bare and not self._context.normalize:
            await self._refuse(reply(554, "5.6.0", "bare CR or LF in the message; lines end in CRLF"))
        if self.refusal is None:
            rest = b"" if self._header.over or self._client.profile != "submission" else self._missing()
            if rest or not self.octets:
                await self._store(rest)
        if self.refusal is None:
            envelope = self._envelope()
            refused = await self._context.policy.message(self._client, envelope)
            if refused is None:
                return await self._commit(envelope)
            await self._refuse(refused)
        assert self.refusal is not None
        return self.refusal

    async def _commit(self, envelope: Envelope) -> Reply:
        body = self._body
        assert body is not None
        try:
            if body.in_memory:
                await self._context.queue.accept(envelope, body)
            else:
                async with self._context.turns:
                    await self._context.queue.accept(envelope, body)
        except SpoolUnsure:
            self._body = None  # it may be the queue's
            raise
        except SpoolError as wrong:
            await body.discard()
            return reply(wrong.code, wrong.enhanced, wrong.text)
        self._body = None
        self._tally.spent()
        return reply(250, "2.0.0", f"queued as {self.id}")

    def _envelope(self) -> Envelope:
        now, client, asked = self._context.clock.now(), self._client, self._mail.parameters
        release = 0.0
        if asked.hold_for is not None:
            release = now + asked.hold_for
        elif asked.hold_until is not None and asked.hold_until > now:
            release = asked.hold_until
        assert self._body is not None
        return Envelope(
            id=self.id,
            sender=self._mail.sender,
            recipients=tuple(self._recipients.values()),
            accepted=now,
            expires=self._expires(now, release),
            size=self._body.size,
            eight_bit=asked.body in ("8BITMIME", "BINARYMIME"),
            client=client.forwarded or client.address,
            account=client.account,
            priority=asked.priority,
            release=release,
            binary=asked.body == "BINARYMIME",
            smtputf8=asked.smtputf8,
            ret=asked.ret,
            envid=asked.envid,
            require_tls=asked.require_tls,
            deliver_by=now + asked.by if asked.by is not None else 0.0,
            by_mode=asked.by_mode,
        )

    def _expires(self, now: float, release: float) -> float:
        """What must be there in time, or come back, is not kept for longer (RFC 2852 §4.1.2)."""
        asked, usual = self._mail.parameters, max(now, release) + self._context.expire
        return min(usual, now + asked.by) if asked.by is not None and asked.by_mode.startswith("R") else usual

    async def forget(self) -> None:
        """Nothing of it remains but what was committed."""
        self._let_memory_go()
        self._tally.give_back(trio.current_time())
        body, self._body = self._body, None
        if body is not None:
            await body.discard()
