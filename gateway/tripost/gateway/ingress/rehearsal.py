"""a session that is only played: nothing is kept, every decision is explained

The engine, the policy, the limits of one session and the accounts are the real
ones; the queue is `Nowhere`. For `tripost session`.

Promise  nothing that is said or sent changes anything: what was accepted is
         dropped, and so is what waits in memory or in the temporary folder.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import trio

from tripost.delivery.routing import Route
from tripost.delivery.wire.replies import Reply
from tripost.gateway.ingress.context import Client
from tripost.gateway.ingress.policy import Policy
from tripost.gateway.ingress.smtp_events import Mail, Rcpt
from tripost.queue.body import Body
from tripost.queue.files import Files
from tripost.queue.message import Envelope

INLINE = 32_768
Say = Callable[[str], None]


class Nowhere:
    """The queue of a rehearsal; `folder` has a folder "bodies" for what is large."""

    def __init__(self, files: Files, folder: str, say: Say) -> None:
        self._files = files
        self._folder = folder
        self._say = say
        self._count = 0
        self.accepted = 0

    @property
    def accepting(self) -> bool:
        return True

    def check_room(self, more: int) -> None:
        """There is always room for what is not kept."""

    def new_id(self) -> str:
        self._count += 1
        return f"REHEARSAL{self._count}"

    def new_body(self) -> Body:
        return Body(self._files, self._folder, self._new_name, INLINE, trio.to_thread.run_sync)

    def _new_name(self) -> str:
        return f"b{secrets.token_hex(8)}"

    async def accept(self, envelope: Envelope, body: Body) -> None:
        self.accepted += 1
        self._say(f"{envelope.id} would be queued: {envelope.size} octets, from <{envelope.sender}>")
        for one in envelope.recipients:
            self._say(f"  for <{one.address}> to {one.next_hop}" + (f", by alias {one.via}" if one.via else ""))
        more = [f"{name} {value}" for name, value in _asked(envelope) if value]
        if more:
            self._say(f"  asked for: {', '.join(more)}")
        await body.discard()


def _asked(envelope: Envelope) -> list[tuple[str, object]]:
    return [
        ("SMTPUTF8", envelope.smtputf8),
        ("BINARYMIME", envelope.binary),
        ("RET", envelope.ret),
        ("ENVID", envelope.envid),
        ("REQUIRETLS", envelope.require_tls),
        ("priority", envelope.priority),
        ("release", envelope.release),
        ("deliver by", envelope.deliver_by),
    ]


class Explained(Policy):
    """Says what is decided at each point, and from what."""

    say: Say

    async def connect(self, client: Client) -> Reply | None:
        who = f"[{client.address}]" if client.address else "a Unix socket"
        rights = "in [relay] networks: may relay anywhere" if client.relay else "a stranger: for our own domains only"
        self.say(f"connect: {who} is {rights}")
        return self._told("connect", await super().connect(client))

    async def helo(self, client: Client, name: str) -> Reply | None:
        return self._told(f"helo: {name}", await super().helo(client, name))

    async def auth(self, client: Client, account: str) -> Reply | None:
        return self._told(f"auth: {account}", await super().auth(client, account))

    async def mail(self, client: Client, mail: Mail, now: float) -> Reply | None:
        as_whom = f", as {client.account}" if client.account else ""
        return self._told(f"mail: <{mail.sender}>{as_whom}", await super().mail(client, mail, now))

    async def rcpt(self, client: Client, rcpt: Rcpt, sender: str) -> Route | Reply:
        decision = await super().rcpt(client, rcpt, sender)
        if not isinstance(decision, Route):
            self._told(f"rcpt: <{rcpt.address}>", decision)
            return decision
        for route in decision.all:
            self.say(f"rcpt: <{rcpt.address}> goes to {route.next_hop} as <{route.address}>")
        return decision

    async def message(self, client: Client, envelope: Envelope) -> Reply | None:
        return self._told(f"message: {envelope.size} octets", await super().message(client, envelope))

    def _told(self, what: str, refused: Reply | None) -> Reply | None:
        self.say(f"{what}: {'let go on' if refused is None else f'refused, {refused}'}")
        return refused
