"""what a round of outcomes means for a message

Turns outcomes into final ones and new due times. Pure: the clock's reading and
the randomness come in, the settlement goes out.

Promise  a deferral whose time is up becomes a failure here and nowhere else;
         no message fails for its age before it was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from tripost.queue.message import Deferred, Delivered, Envelope, Failed, Outcome, Recipient
from tripost.queue.retry import Schedule


class Decision(msgspec.Struct):
    """`done` and `failed` are final; `later` maps recipient ids to (attempts, due, why)."""

    done: list[tuple[Recipient, Delivered]]
    failed: list[tuple[Recipient, Failed]]
    later: list[tuple[Recipient, int, float, Deferred]]
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
            decision.failed.append((recipient, expired(outcome)))
        elif outcome.destination:
            decision.later.append((recipient, attempt - 1, now, outcome))
        else:
            # the last attempt is made at the end of the time, not given up for the rest of it
            decision.later.append((recipient, attempt, min(due, max(envelope.expires, now)), outcome))
    return decision


def expired(last: Deferred) -> Failed:
    """The failure of a message whose time is up (RFC 3463: 4.4.7, delivery time expired)."""
    return Failed(last.code, "4.4.7", f"delivery time expired; last reply: {last.text}", last.host)
