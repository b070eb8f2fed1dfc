"""AUTH: what a login asks and says, in SMTP's words

`tripost.gateway.login` leads the exchange and decides; here its steps become
replies, and the session becomes the account's.

Promise  whoever is refused, and why, is told no more than the login says; an
         account is this session's only once the policy agrees too.
Source   RFC 4954 §4, §6; RFC 5248 for the enhanced codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tripost.delivery.wire.replies import Reply, reply
from tripost.gateway.ingress.smtp_events import Auth, AuthLine
from tripost.gateway.login import Denied, Kind
from tripost.gateway.sasl import Challenge, Success

if TYPE_CHECKING:
    from tripost.gateway.ingress.smtp_session import Session

DENIALS: dict[Kind, tuple[int, str]] = {
    "cancelled": (501, "5.7.0"),
    "malformed": (501, "5.5.2"),
    "credentials": (535, "5.7.8"),
    "disabled": (525, "5.7.13"),
    "barred": (454, "4.7.0"),
    "cleartext": (538, "5.7.11"),
    "unknown": (504, "5.5.4"),
    "temporary": (454, "4.7.0"),
}


async def auth(now: Session, event: Auth) -> None:
    """The command: an exchange begins."""
    now.talk.done()
    assert now.context.logins is not None
    now.attempt = now.context.logins.attempt(now.peer, event.mechanism)
    await _go_on(now, await now.attempt.begin(event.initial))


async def auth_line(now: Session, event: AuthLine) -> None:
    """The client's next line."""
    now.talk.done()
    assert now.attempt is not None
    await _go_on(now, await now.attempt.reply(event.line))


async def _go_on(now: Session, step: Challenge | Success | Denied) -> None:
    if isinstance(step, Challenge):
        now.protocol.auth_continues()
        now.say(Reply(334, "", (step.text,)))
        return
    now.attempt = None
    if isinstance(step, Denied):
        refused: Reply | None = reply(*DENIALS[step.kind], step.text)
    else:
        refused = await now.context.policy.auth(now.client, step.account)
        if refused is None:
            now.client.account = step.account
    now.protocol.auth_over(now.terms())
    if refused is None:
        now.say(reply(235, "2.7.0", f"welcome, {now.client.account}"))
    else:
        now.error(refused, "auth")
