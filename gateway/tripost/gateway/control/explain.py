"""why a queued message is not delivered yet, and what would unblock it

Asks the queue and the delivery what they know, and gives words; waits for nothing. The first thing that
binds is the answer; a message that is held is not tried even when its host is up.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable

import msgspec

from tripost.queue import actions
from tripost.queue.finding import ACTIVE, DEFERRED, DOWN, ENDING, HELD, SUSPENDED
from tripost.queue.manager import Queue
from tripost.queue.search import Delivery, Message


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps a site from taking more now: `by` as the event `limited` has it, `wait` in seconds, 0 for unknown."""

    site: str
    by: str
    wait: float = 0.0


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` for people; `next` when something happens by itself (wall-clock seconds, 0 for never); `command` what
    would unblock it, "" where nothing is needed."""

    id: str
    sender: str
    recipient: str
    next_hop: str
    state: str
    reason: str
    attempts: int
    reply: str
    next: float
    expires: float
    command: str


LIMITS = {
    "dns": "the hosts of {site} are being looked for",
    "connections": "all connections that [delivery] allows to {site} are in use",
    "feedback": "{site} refused more connections than are open now; another one is tried from time to time",
    "rate": "[delivery] rate for {site} is reached",
    "connection_rate": "[delivery] connection_rate for {site} is reached",
    "max_connections": "[delivery] max_connections for all sites together are in use",
    "rest": "{site} asked us to slow down, and is left alone for a while",
}


MAILBOX_FULL = " 4.2.2 "
TLS_NEEDED = (" 4.7.4 ", " 4.7.5 ")  # in what delivery says of a host without, or with other, TLS
UNBIND = {
    "connections": "tripost queue limit {hop} --connections 100",
    "rate": "tripost queue limit {hop} --rate none",
    "connection_rate": "tripost queue limit {hop} --connection-rate none",
    "rest": "tripost queue retry --id {id}",
}


def explained(
    message: Message, delivery: Delivery, queue: Queue, binding: Callable[[str], Binding | None], now: float
) -> Why:
    reason, next_time, command = _why(message, delivery, queue, binding, now)
    return Why(
        id=message.id,
        sender=message.sender,
        recipient=delivery.recipient,
        next_hop=delivery.next_hop,
        state=delivery.state,
        reason=reason,
        attempts=delivery.attempts,
        reply=delivery.reply,
        next=next_time,
        expires=message.expires,
        command=command,
    )


def _why(
    message: Message, delivery: Delivery, queue: Queue, binding: Callable[[str], Binding | None], now: float
) -> tuple[str, float, str]:
    hop = delivery.next_hop
    if delivery.state == ACTIVE:
        return "it is being delivered now", 0.0, ""
    if delivery.state == HELD:
        return "an operator holds it", 0.0, f"tripost queue release --id {message.id}"
    if delivery.state == ENDING:
        return _ending(message, queue)
    if delivery.state == SUSPENDED and (pause := queue.pauses.match(message, now)) is not None:
        kind, what = pause
        known = queue.pauses.known[pause]
        reason = f"mail from {kind} {what} is suspended" + (f": {known.reason}" if known.reason else "")
        return reason, known.until, f"tripost queue resume --{kind} {shlex.quote(what)}"
    if delivery.state == SUSPENDED:
        one = queue.suspensions.get(hop)
        reason = f"delivery to {hop} is suspended" + (f": {one.reason}" if one is not None and one.reason else "")
        return reason, one.until if one is not None else 0.0, f"tripost queue resume {hop}"
    retry = f"tripost queue retry --id {message.id}"
    if delivery.state == DEFERRED and hop == "local" and MAILBOX_FULL in delivery.reply:
        told = f"the mailbox of {delivery.recipient} is over its quota: {delivery.reply}"
        return told, delivery.due, f"tripost user quota {shlex.quote(delivery.recipient)} 0 --messages 0 && {retry}"
    if delivery.state == DEFERRED and not delivery.attempts:
        return "its sender asked to hold it until then", delivery.due, retry
    if delivery.state == DEFERRED:
        return f"attempt {delivery.attempts} was told to try again later: {delivery.reply}", delivery.due, retry
    if delivery.state == DOWN:
        reason, until = queue.down(hop)
        if any(code in reason for code in TLS_NEEDED):
            command = f"tripost queue reroute --id {message.id} --to {shlex.quote(_with_tls(hop, 'may'))}"
            return f"{hop} must be spoken to with TLS, and could not: {reason}", until, command
        return f"{hop} could not be spoken to: {reason}", until, retry
    limit = binding(hop)
    if limit is not None:
        text = LIMITS.get(limit.by, "{site}: " + limit.by).format(site=limit.site)
        command = UNBIND.get(limit.by, "").format(hop=shlex.quote(hop), id=message.id)
        return text, now + limit.wait if limit.wait else 0.0, command
    return "it is due and will be tried as soon as its turn comes", now, ""


def _with_tls(hop: str, level: str) -> str:
    """The next hop with another TLS level (tripost.delivery.targets)."""
    base, _, options = hop.partition("?")
    others = [one for one in options.split("&") if one and not one.startswith("tls=")]
    return f"{base}?{'&'.join([f'tls={level}', *others])}"


def _ending(message: Message, queue: Queue) -> tuple[str, float, str]:
    for id, one in reversed(queue.edit.actions().items()):
        if one.state == actions.PENDING and queue.edit.names(id, message.place):
            reason = f"{one.who} wants to {one.verb} it" + (f": {one.reason}" if one.reason else "")
            return reason, one.until, f"tripost queue undo {id}"
    return "an operator ends it", 0.0, ""


def clock_text(wall: float, now: float) -> str:
    """A time for people."""
    ahead = wall - now
    if ahead < 1:
        return "now"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if ahead >= 2 * size:
            return f"in {ahead / size:.0f} {unit} ({time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(wall))})"
    return f"in {ahead:.0f} s"
