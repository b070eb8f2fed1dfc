"""who may do what: every decision point of a session, by name

A session asks here six times, in this order, and nowhere else:

connect  a client is there; before the greeting
helo     it has said its name
auth     it has proven to be an account
mail     it names the sender
rcpt     it names a recipient: where the message would go, or why not
message  all of it has come: the last word before it is stored

Each gives None (or a Route) to go on, or the reply that refuses. They are
coroutines so that later policy may ask others (DNS lists, filters) at these
places without any change to the protocol; what is here decides at once.

Source   RFC 5321 §4.5.1 (postmaster); RFC 6409 §6.1 (submission rights); RFC 7505 §4 (null MX).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import lru_cache

import msgspec

from tripost.delivery.null_mx import NullMx
from tripost.delivery.routing import Refusal, Route, Router
from tripost.delivery.wire.addresses import ascii_form, split
from tripost.delivery.wire.replies import Reply, reply
from tripost.gateway.ingress.context import Client
from tripost.gateway.ingress.smtp_events import Mail, Rcpt
from tripost.queue.message import Envelope

HOLD_MOST = 30 * 86_400  # seconds that a message may wait for its release (RFC 4865)


def hold_until(now: float) -> str:
    """The latest release that is taken, as EHLO tells it: whole days, so that the same text serves all day."""
    return _day(int(now + HOLD_MOST) // 86_400)


@lru_cache(maxsize=2)
def _day(number: int) -> str:
    return time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(number * 86_400))


class Policy:
    """The decisions that the configuration makes."""

    def __init__(self, router: Router, null_mx: NullMx | None = None) -> None:
        self._router = router
        self._null_mx = null_mx  # does a domain take no mail?
        self.full: Callable[[str], Awaitable[Refusal | None]] | None = None  # a local address, where others know it

    async def connect(self, client: Client) -> Reply | None:
        return None

    async def helo(self, client: Client, name: str) -> Reply | None:
        return None

    async def auth(self, client: Client, account: str) -> Reply | None:
        return None

    async def mail(self, client: Client, mail: Mail, now: float) -> Reply | None:
        """`now` in wall-clock seconds."""
        parameters = mail.parameters
        hold = parameters.hold_for
        if hold is None and parameters.hold_until is not None:
            hold = max(0, int(parameters.hold_until - now))
        if hold is not None:
            if hold > HOLD_MOST:
                return reply(501, "5.5.4", f"a message is held for {HOLD_MOST} seconds at most")
            if parameters.by is not None and parameters.by <= hold:  # it would be late before it is released
                return reply(501, "5.5.4", "BY ends before the message is released")
        if client.profile == "submission" and not self._may_send_as(client, mail.sender):
            return reply(550, "5.7.1", "you may not send as this address")
        if not client.trusted and await _takes_none(self._null_mx, mail.sender):
            return reply(550, "5.7.27", "the sender's domain takes no mail (null MX), and so gets no answer")
        return None

    def _may_send_as(self, client: Client, sender: str) -> bool:
        """As oneself, with any detail, by any alias that leads to one's own mailbox; and `<>`, for reports."""
        account, names = client.account, client.names
        if not sender or sender.lower() == account.lower() or names is None or sender.lower() in names:
            return True
        if not split(sender)[1]:
            return False
        route = self._router.decide(ascii_form(sender), False)
        return isinstance(route, Route) and route.next_hop == "local" and route.address.lower() == account.lower()

    async def rcpt(self, client: Client, rcpt: Rcpt, sender: str) -> Route | Reply:
        by = ascii_form(rcpt.address)
        decision = self._router.decide(by, client.trusted, ascii_form(sender) if self._router.by_sender else "")
        if isinstance(decision, Refusal):
            return reply(decision.code, decision.enhanced, decision.text)
        if decision.next_hop.startswith("mx:") and await _takes_none(self._null_mx, decision.address):
            return reply(556, "5.1.10", "that domain takes no mail (null MX)")
        if self.full is not None and decision.next_hop == "local" and len(decision.all) == 1:
            full = await self.full(decision.address)
            if full is not None:
                return reply(full.code, full.enhanced, full.text)
        if decision.address == by != rcpt.address:  # routed by A-labels, kept as it came
            return msgspec.structs.replace(decision, address=rcpt.address)
        return decision

    async def message(self, client: Client, envelope: Envelope) -> Reply | None:
        return None


async def _takes_none(null_mx: NullMx | None, address: str) -> bool:
    """Is it at a domain that takes no mail?"""
    domain = split(ascii_form(address))[1].lower() if null_mx is not None else ""
    return null_mx is not None and bool(domain) and not domain.startswith("[") and await null_mx(domain)
