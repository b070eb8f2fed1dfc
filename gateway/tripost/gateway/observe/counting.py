"""what happened since the start, in plain integers

A sink of the bus: counts every event where it passes, for /metrics. One place hears
of all events, whichever process they come from, so that what is counted here only
grows, also when a worker is started anew. Pure.

Promise  `take` costs an event a look in a table and, for most, one addition. The sets of
         labels are closed: words that are not known here count as "other".
Why      not the metrics library's own counters: those cost twenty times as much, and
         every message pays for several.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, get_args

from tripost.delivery.classify import classify
from tripost.queue import events
from tripost.queue.events import Event
from tripost.queue.tally import FAST, LONG, Histogram

OTHER = "other"
SERVICES = ("smtp", "submission", "lmtp", "pop3", "imap", "monitor")
PHASES_IN = (
    *("connect", "helo", "ehlo", "lhlo", "mail", "rcpt", "data", "bdat", "chunk", "auth", "starttls", "stls"),
    *("command", "errors", "junk"),
)
PHASES_OUT = ("dns", "connect", "greeting", "ehlo", "tls", "auth")
LOGINS = ("credentials", "disabled", "barred", "cleartext", "cancelled", "malformed", "unknown", "temporary")
LIMITS = ("connections", "feedback", "rate", "connection_rate", "max_connections", "rest")
TLS = ("", "TLSv1.2", "TLSv1.3")
VERBS = (
    *("hold", "release", "retry", "reroute", "priority", "bounce", "delete", "expire"),
    *("undo", "suspend", "resume", "limit", "import"),
)

KINDS: tuple[type[Event], ...] = get_args(events.AnyEvent)
Counts = defaultdict[tuple[str, ...], int]


def _counts() -> Counts:
    return defaultdict(int)


def one_of(word: str, known: Iterable[str]) -> str:
    return word if word in known else OTHER


class Counting:
    """Of one gateway. Keys are the labels' values, in the order that is said beside them."""

    def __init__(self) -> None:
        self.kinds: defaultdict[type[Event], int] = defaultdict(int)
        self.messages = 0
        self.octets = 0
        self.attempts = 0
        self.transactions = 0  # over connections of ours that are closed
        self.back_offs = 0
        self.connected = _counts()  # service
        self.secured = _counts()  # service, version
        self.refused = _counts()  # service, phase
        self.shed = _counts()  # service
        self.logged_in = _counts()  # service
        self.login_failed = _counts()  # service, reason
        self.failed = _counts()  # class
        self.deferred = _counts()  # class
        self.opened = _counts()  # TLS version, "" for none
        self.closed = 0
        self.unreachable = _counts()  # phase
        self.limited = _counts()  # by
        self.steered = _counts()  # action
        self.accepting = Histogram(FAST)
        self.transferring = Histogram(FAST)
        self.connecting = Histogram(FAST)  # TCP, greeting, EHLO, STARTTLS
        self.age = Histogram(LONG)
        self._takers: dict[type[Event], Callable[[Any], None]] = {
            events.Accepted: self._accepted,
            events.Attempted: self._attempted,
            events.Relayed: self._relayed,
            events.DeliveredLocally: self._delivered,
            events.DeferredUntil: self._deferred,
            events.Bounced: self._failed,
            events.Connected: self._connected,
            events.Secured: self._secured,
            events.Refused: self._refused,
            events.Shed: self._shed,
            events.LoggedIn: self._logged_in,
            events.LoginFailed: self._login_failed,
            events.Opened: self._opened,
            events.Closed: self._closed,
            events.Unreachable: self._unreachable,
            events.Limited: self._limited,
            events.BackedOff: self._backed_off,
            events.Steered: self._steered,
        }

    def take(self, event: Event) -> None:
        kind = type(event)
        self.kinds[kind] += 1
        taker = self._takers.get(kind)
        if taker is not None:
            taker(event)

    def by_name(self) -> dict[str, int]:
        """Events by kind, those that there were none of too."""
        return {str(kind.__struct_config__.tag): self.kinds.get(kind, 0) for kind in KINDS}

    def copy(self) -> Counting:
        """As it is now, to be looked at only."""
        one = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, defaultdict | Histogram):
                setattr(one, name, value.copy())
        return one

    # --- messages ---

    def _accepted(self, one: events.Accepted) -> None:
        self.messages += 1
        self.octets += one.size
        if one.client or one.seconds:  # our own reports are made in another record, without a commit of their own
            self.accepting.note(one.seconds)

    def _attempted(self, one: events.Attempted) -> None:
        self.attempts += 1

    def _relayed(self, one: events.Relayed) -> None:
        self.age.note(one.age)
        if one.transfer is not None:
            self.transferring.note(one.transfer.seconds)

    def _delivered(self, one: events.DeliveredLocally) -> None:
        self.age.note(one.age)

    def _deferred(self, one: events.DeferredUntil) -> None:
        self.deferred[(classify(one.reply).name,)] += 1

    def _failed(self, one: events.Bounced) -> None:
        self.age.note(one.age)
        self.failed[(classify(one.reply).name,)] += 1

    # --- clients ---

    def _connected(self, one: events.Connected) -> None:
        self.connected[(one_of(one.service, SERVICES),)] += 1

    def _secured(self, one: events.Secured) -> None:
        self.secured[one_of(one.service, SERVICES), one_of(one.version, TLS)] += 1

    def _refused(self, one: events.Refused) -> None:
        self.refused[one_of(one.service, SERVICES), one_of(one.phase, PHASES_IN)] += 1

    def _shed(self, one: events.Shed) -> None:
        self.shed[(one_of(one.service, SERVICES),)] += one.connections

    def _logged_in(self, one: events.LoggedIn) -> None:
        self.logged_in[(one_of(one.service, SERVICES),)] += 1

    def _login_failed(self, one: events.LoginFailed) -> None:
        self.login_failed[one_of(one.service, SERVICES), one_of(one.reason, LOGINS)] += 1

    # --- destinations ---

    def _opened(self, one: events.Opened) -> None:
        self.opened[(one_of(one.tls, TLS) or "none",)] += 1
        self.connecting.note(one.connect + one.greeting + one.handshake)

    def _closed(self, one: events.Closed) -> None:
        self.closed += 1
        self.transactions += one.messages

    def _unreachable(self, one: events.Unreachable) -> None:
        self.unreachable[(one_of(one.phase, PHASES_OUT),)] += 1

    def _limited(self, one: events.Limited) -> None:
        self.limited[(one_of(one.by, LIMITS),)] += 1

    def _backed_off(self, one: events.BackedOff) -> None:
        self.back_offs += 1

    def _steered(self, one: events.Steered) -> None:
        self.steered[(one_of(one.action, VERBS),)] += 1
