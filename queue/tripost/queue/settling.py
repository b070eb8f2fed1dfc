"""what a round of outcomes means for a message

Turns outcomes into final ones and new due times. Pure: the clock's reading and
the randomness come in, the settlement goes out.

Promise  a deferral whose time is up becomes a failure here and nowhere else;
         no message fails for its age before it was tried. A delay is told once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from tripost.queue.message import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_SUCCESS,
    Deferred,
    Delivered,
    Envelope,
    Failed,
    News,
    Outcome,
    Recipient,
    asked,
)
from tripost.queue.retry import Schedule


class Decision(msgspec.Struct):
    """`done` and `failed` are final; `later` maps recipient ids to (attempts, due, why). `delayed`: the sender is
    told so now; `warned`: now or before."""

    done: list[tuple[Recipient, Delivered]]
    failed: list[tuple[Recipient, Failed]]
    later: list[tuple[Recipient, int, float, Deferred]]
    delayed: bool = False
    warned: bool = False
    gone: bool = False  # once it is durable: nothing of the message is queued any more


def decide(
    envelope: Envelope,
    recipients: tuple[Recipient, ...],
    attempt: int,
    outcomes: Mapping[int, Outcome],
    *,
    now: float,
    retry: Schedule,
    random: Callable[[], float],
    warn: float = 0.0,
    warned: bool = False,
) -> Decision:
    """`attempt` is the number of the attempt that gave these outcomes; a recipient without one was not tried."""
    decision = Decision([], [], [])
    due = now + retry.delay(attempt, random())
    for recipient in recipients:
        outcome = outcomes.get(recipient.id)
        if outcome is None:
            outcome = Deferred(451, "4.3.0", "not tried in this attempt", destination=True)
        if isinstance(outcome, Delivered):
            decision.done.append((recipient, outcome))
        elif isinstance(outcome, Failed):
            decision.failed.append((recipient, outcome))
        elif now >= envelope.expires:
            decision.failed.append((recipient, expired(outcome, envelope)))
        elif outcome.destination:
            decision.later.append((recipient, attempt - 1, now, outcome))
        else:
            # the last attempt is made at the end of the time, not given up for the rest of it
            decision.later.append((recipient, attempt, min(due, max(envelope.expires, now)), outcome))
    decision.delayed = bool(decision.later) and not warned and is_late(envelope, warn, now)
    decision.warned = warned or decision.delayed
    return decision


def is_late(envelope: Envelope, warn: float, now: float) -> bool:
    """Is it time to tell that the message is not delivered yet? `warn` in seconds, 0 for never."""
    if envelope.deliver_by and envelope.by_mode.startswith("N") and now >= envelope.deliver_by:
        return True  # RFC 2852 §4.1.3
    return 0 < warn <= now - max(envelope.accepted, envelope.release)


def news_of(envelope: Envelope, decision: Decision) -> list[News]:
    """What the sender, or for a null one the postmaster, is to be told of it."""
    if not envelope.sender:
        return [News(one, "failed", why) for one, why in decision.failed]
    news = [News(one, "failed", why) for one, why in decision.failed if asked(one, NOTIFY_FAILURE)]
    for one, outcome in decision.done:
        if one.notify & NOTIFY_SUCCESS and not outcome.dsn and outcome.how in ("delivered", "relayed"):
            news.append(News(one, outcome.how, outcome))
    if decision.delayed:
        news += [News(one, "delayed", why) for one, _, _, why in decision.later if asked(one, NOTIFY_DELAY)]
    return news


def expired(last: Deferred, envelope: Envelope) -> Failed:
    """The failure of a message whose time is up (RFC 3463: 4.4.7, delivery time expired; 5.4.7 where the sender had
    set the time, RFC 2852 §4.1.2)."""
    by = envelope.by_mode.startswith("R") and envelope.deliver_by <= envelope.expires
    return Failed(last.code, "5.4.7" if by else "4.4.7", f"delivery time expired; last reply: {last.text}", last.host)
