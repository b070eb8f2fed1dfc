"""one event and one count per settled recipient

Called after the settlement's record is durable, never before.
"""

from __future__ import annotations

from tripost.queue import events
from tripost.queue.bus import Bus
from tripost.queue.message import NOTIFY_FAILURE, Deferred, Envelope, Failed, asked
from tripost.queue.settling import Decision
from tripost.queue.values import Counts


def reply_of(why: Deferred | Failed) -> str:
    return f"{why.code} {why.enhanced} {why.text}"


def tell_accepted(bus: Bus, counts: Counts, envelope: Envelope, now: float) -> None:
    counts.accepted += len(envelope.recipients)
    bus.emit(
        events.Accepted(
            time=now,
            id=envelope.id,
            sender=envelope.sender,
            recipients=[one.address for one in envelope.recipients],
            size=envelope.size,
            client=envelope.client,
            account=envelope.account,
            seconds=_since(envelope.accepted, now),
        )
    )
    ways = [events.Way(one.id, one.address, one.next_hop, one.via) for one in envelope.recipients]
    bus.emit(events.Routed(time=now, id=envelope.id, ways=ways))


def tell_settled(
    bus: Bus, counts: Counts, envelope: Envelope, attempt: int, decision: Decision, report: str, now: float
) -> None:
    """`report` is the id of the DSN that the settlement holds, "" where there is none."""
    id, age = envelope.id, _since(envelope.accepted, now)
    _done(bus, counts, id, attempt, decision, now, age)
    for recipient, failure in decision.failed:
        told = report if asked(recipient, NOTIFY_FAILURE) else ""
        if told:
            counts.reported += 1
        else:
            counts.suppressed += 1
        reply = reply_of(failure)
        bus.emit(
            events.Bounced(
                time=now,
                id=id,
                recipient_id=recipient.id,
                recipient=recipient.address,
                next_hop=recipient.next_hop,
                host=failure.host,
                reply=reply,
                attempt=attempt,
                report=told,
                transfer=failure.transfer,
                age=age,
            )
        )
    for recipient, attempts, due, why in decision.later:
        counts.deferrals += 1
        bus.emit(
            events.DeferredUntil(
                time=now,
                id=id,
                recipient_id=recipient.id,
                recipient=recipient.address,
                next_hop=recipient.next_hop,
                host=why.host,
                reply=reply_of(why),
                attempt=attempts,
                due=due,
                delay=max(0.0, due - now),
                transfer=why.transfer,
            )
        )


def _since(accepted: float, now: float) -> float:
    return max(0.0, round(now - accepted, 6))


def _done(bus: Bus, counts: Counts, id: str, attempt: int, decision: Decision, now: float, age: float) -> None:
    for recipient, outcome in decision.done:
        if outcome.how == "delivered":
            counts.delivered += 1
            bus.emit(
                events.DeliveredLocally(
                    time=now, id=id, recipient_id=recipient.id, recipient=recipient.address, attempt=attempt, age=age
                )
            )
        elif outcome.how == "deleted":
            counts.deleted += 1
            bus.emit(
                events.Deleted(
                    time=now,
                    id=id,
                    recipient_id=recipient.id,
                    recipient=recipient.address,
                    next_hop=recipient.next_hop,
                    reason=outcome.reply,
                )
            )
        elif outcome.how == "discarded":
            counts.discarded += 1
            bus.emit(
                events.Discarded(
                    time=now,
                    id=id,
                    recipient_id=recipient.id,
                    recipient=recipient.address,
                    next_hop=recipient.next_hop,
                )
            )
        else:
            counts.relayed += 1
            bus.emit(
                events.Relayed(
                    time=now,
                    id=id,
                    recipient_id=recipient.id,
                    recipient=recipient.address,
                    next_hop=recipient.next_hop,
                    host=outcome.host,
                    reply=outcome.reply,
                    attempt=attempt,
                    transfer=outcome.transfer,
                    age=age,
                )
            )
