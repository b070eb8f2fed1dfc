"""what happened since the start, in plain integers

Told events some hundred at a time, sorted by kind (`by_kind`): counts all of them, for /metrics.
One place hears of all events, whichever process they come from, so that what is counted
here only grows, also when a worker is started anew. Pure.

Promise  an event costs a message a few tenths of a microsecond. The sets of labels are
         closed: words that are not known here count as "other".
Why      not the metrics library's own counters: those cost twenty times as much, and
         every message pays for several. In batches: a call for each event cost more than
         what it did.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, get_args

from tripost.delivery.classify import classify
from tripost.gateway.observe.reader import Kinds
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
        self.octets = 0
        self.transactions = 0  # over connections of ours that are closed
        self.connected = _counts()  # service
        self.secured = _counts()  # service, version
        self.refused = _counts()  # service, phase
        self.shed = _counts()  # service
        self.logged_in = _counts()  # service
        self.login_failed = _counts()  # service, reason
        self.failed = _counts()  # class
        self.deferred = _counts()  # class
        self.opened = _counts()  # TLS version, "" for none
        self.unreachable = _counts()  # phase
        self.limited = _counts()  # by
        self.steered = _counts()  # action
        self.accepting = Histogram(FAST)
        self.transferring = Histogram(FAST)
        self.connecting = Histogram(FAST)  # TCP, greeting, EHLO, STARTTLS
        self.age = Histogram(LONG)
        self._takers: dict[type[Event], Callable[[list[Any]], None]] = {
            events.Accepted: self._accepted,
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
            events.Steered: self._steered,
        }

    def take(self, kinds: Kinds) -> None:
        for kind, some in kinds.items():
            self.kinds[kind] += len(some)
            taker = self._takers.get(kind)
            if taker is not None:
                taker(some)

    def by_name(self) -> dict[str, int]:
        """Events by kind, those that there were none of too."""
        return {str(kind.__struct_config__.tag): self.kinds.get(kind, 0) for kind in KINDS}

    @property
    def messages(self) -> int:
        return self.kinds.get(events.Accepted, 0)

    @property
    def attempts(self) -> int:
        return self.kinds.get(events.Attempted, 0)

    @property
    def closed(self) -> int:
        return self.kinds.get(events.Closed, 0)

    @property
    def back_offs(self) -> int:
        return self.kinds.get(events.BackedOff, 0)

    def copy(self) -> Counting:
        """As it is now, to be looked at only."""
        one = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, defaultdict | Histogram):
                setattr(one, name, value.copy())
        return one

    # --- messages ---

    def _accepted(self, some: list[events.Accepted]) -> None:
        self.octets += sum([one.size for one in some])
        # our own reports are made in another record, without a commit of their own
        self.accepting.note_all([one.seconds for one in some if one.client or one.seconds])

    def _relayed(self, some: list[events.Relayed]) -> None:
        self.age.note_all([one.age for one in some])
        self.transferring.note_all([one.transfer.seconds for one in some if one.transfer is not None])

    def _delivered(self, some: list[events.DeliveredLocally]) -> None:
        self.age.note_all([one.age for one in some])

    def _deferred(self, some: list[events.DeferredUntil]) -> None:
        for one in some:
            self.deferred[(classify(one.reply).name,)] += 1

    def _failed(self, some: list[events.Bounced]) -> None:
        self.age.note_all([one.age for one in some])
        for one in some:
            self.failed[(classify(one.reply).name,)] += 1

    # --- clients ---

    def _connected(self, some: list[events.Connected]) -> None:
        for one in some:
            self.connected[(one_of(one.service, SERVICES),)] += 1

    def _secured(self, some: list[events.Secured]) -> None:
        for one in some:
            self.secured[one_of(one.service, SERVICES), one_of(one.version, TLS)] += 1

    def _refused(self, some: list[events.Refused]) -> None:
        for one in some:
            self.refused[one_of(one.service, SERVICES), one_of(one.phase, PHASES_IN)] += 1

    def _shed(self, some: list[events.Shed]) -> None:
        for one in some:
            self.shed[(one_of(one.service, SERVICES),)] += one.connections

    def _logged_in(self, some: list[events.LoggedIn]) -> None:
        for one in some:
            self.logged_in[(one_of(one.service, SERVICES),)] += 1

    def _login_failed(self, some: list[events.LoginFailed]) -> None:
        for one in some:
            self.login_failed[one_of(one.service, SERVICES), one_of(one.reason, LOGINS)] += 1

    # --- destinations ---

    def _opened(self, some: list[events.Opened]) -> None:
        self.connecting.note_all([one.connect + one.greeting + one.handshake for one in some])
        for one in some:
            self.opened[(one_of(one.tls, TLS) or "none",)] += 1

    def _closed(self, some: list[events.Closed]) -> None:
        self.transactions += sum([one.messages for one in some])

    def _unreachable(self, some: list[events.Unreachable]) -> None:
        for one in some:
            self.unreachable[(one_of(one.phase, PHASES_OUT),)] += 1

    def _limited(self, some: list[events.Limited]) -> None:
        for one in some:
            self.limited[(one_of(one.by, LIMITS),)] += 1

    def _steered(self, some: list[events.Steered]) -> None:
        for one in some:
            self.steered[(one_of(one.action, VERBS),)] += 1
