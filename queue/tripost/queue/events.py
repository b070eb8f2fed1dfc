"""what happens, as typed events

Every step of a message emits exactly one event. Subscribers are bounded and
droppable: a slow one loses events and is told how many, mail never waits.
Events carry ids, addresses and reasons, never message text or secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import msgspec
import trio


class Event(msgspec.Struct, frozen=True, tag_field="event", tag=lambda name: name.lower(), omit_defaults=True):
    """Base: `time` is wall-clock seconds, `gateway` the hostname that speaks."""

    time: float


class Started(Event, frozen=True, kw_only=True):
    listeners: dict[str, list[str]]


class Stopping(Event, frozen=True, kw_only=True):
    reason: str


class Stopped(Event, frozen=True, kw_only=True):
    clean: bool


class Connected(Event, frozen=True, kw_only=True):
    service: str
    client: str


class Refused(Event, frozen=True, kw_only=True):
    """A command was refused; `phase` is connect, helo, mail, rcpt, data…"""

    service: str
    client: str
    phase: str
    reply: str


class Accepted(Event, frozen=True, kw_only=True):
    id: str
    sender: str
    recipients: list[str]
    size: int
    client: str


class Attempted(Event, frozen=True, kw_only=True):
    """A delivery attempt begins: where to and how the host was found."""

    id: str
    next_hop: str
    host: str


class Resolved(Event, frozen=True, kw_only=True):
    """The MX answer for a domain, in the order of use."""

    domain: str
    hosts: list[str]


class Opened(Event, frozen=True, kw_only=True):
    """A connection of ours is greeted: the `open`th of at most `limit` now. `tls` is "" in plain text."""

    site: str
    host: str
    address: str
    tls: str
    open: int
    limit: int


class Unreachable(Event, frozen=True, kw_only=True):
    """A host could not be spoken to while `open` other connections to its site are good."""

    site: str
    host: str
    phase: str
    reply: str
    open: int


class Adapted(Event, frozen=True, kw_only=True):
    """A site may have `limit` connections now, and why."""

    site: str
    limit: int
    reason: str


class Limited(Event, frozen=True, kw_only=True):
    """What keeps more from being sent to a site now: `by` connections | feedback | rate | connection_rate |
    max_connections | rest; told when it changes. `wait` in seconds where it is known."""

    site: str
    by: str
    wait: float = 0.0
    reason: str = ""


class Relayed(Event, frozen=True, kw_only=True):
    id: str
    recipient: str
    next_hop: str
    host: str
    reply: str


class DeliveredLocally(Event, frozen=True, kw_only=True, tag="delivered"):
    id: str
    recipient: str


class Discarded(Event, frozen=True, kw_only=True):
    """A route says that nobody wants it."""

    id: str
    recipient: str


class Deleted(Event, frozen=True, kw_only=True):
    """An operator ended it; nobody is told."""

    id: str
    recipient: str
    reason: str = ""


class DeferredUntil(Event, frozen=True, kw_only=True, tag="deferred"):
    id: str
    recipient: str
    next_hop: str
    attempt: int
    due: float
    delay: float
    reply: str


class BackedOff(Event, frozen=True, kw_only=True, tag="backoff"):
    """A destination cannot be spoken to; one probe follows after `delay` s."""

    next_hop: str
    failures: int
    delay: float
    reply: str


class Suspended(Event, frozen=True, kw_only=True):
    """Nothing is tried for a next hop until `until` (0: until it is resumed)."""

    next_hop: str
    until: float
    reason: str


class Resumed(Event, frozen=True, kw_only=True):
    next_hop: str


class Steered(Event, frozen=True, kw_only=True):
    """An operator did something to the queue: `who` by the socket's credentials, `what` the conditions or next hop,
    `id` the action's in the audit trail."""

    who: str
    action: str
    what: str
    changed: int
    id: str = ""


class Bounced(Event, frozen=True, kw_only=True, tag="failed"):
    """Given up. `report` is the id of the DSN, "" where none is due."""

    id: str
    recipient: str
    reply: str
    report: str


class Noticed(Event, frozen=True, kw_only=True):
    """A client does something odd that is dealt with, and that an operator may want to know."""

    service: str
    client: str
    reason: str


class LoggedIn(Event, frozen=True, kw_only=True):
    service: str
    account: str
    client: str


class LoginFailed(Event, frozen=True, kw_only=True):
    """`account` only where there is one of that name; `reason` as `gateway.login` has it."""

    service: str
    client: str
    account: str = ""
    reason: str = ""


class Fetched(Event, frozen=True, kw_only=True):
    account: str
    client: str
    messages: int
    deleted: int


class Expired(Event, frozen=True, kw_only=True):
    """Messages of a mailbox went because its policy says so: too old, or too many."""

    account: str
    messages: int


class Trouble(Event, frozen=True, kw_only=True):
    """Something an operator should look at."""

    where: str
    reason: str


class Subscription:
    """One bounded reader. `dropped` counts events lost since it was opened."""

    def __init__(self, send: trio.MemorySendChannel[Event], receive: trio.MemoryReceiveChannel[Event]) -> None:
        self._send = send
        self._receive = receive
        self.dropped = 0

    def offer(self, event: Event) -> None:
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.dropped += 1

    async def receive(self) -> Event:
        """The next event, in order."""
        return await self._receive.receive()


class Bus:
    """Hands each event to every sink (called at once) and every subscriber."""

    def __init__(self) -> None:
        self._sinks: list[Callable[[Event], Any]] = []
        self._subscriptions: list[Subscription] = []

    def add_sink(self, sink: Callable[[Event], Any]) -> None:
        """`sink` must be quick and must not raise (the event log's writer)."""
        self._sinks.append(sink)

    def emit(self, event: Event) -> None:
        for sink in self._sinks:
            sink(event)
        for one in self._subscriptions:
            one.offer(event)

    @contextmanager
    def subscribe(self, size: int = 1024) -> Generator[Subscription]:
        """A bounded view of what is emitted from now on."""
        send, receive = trio.open_memory_channel[Event](size)
        one = Subscription(send, receive)
        self._subscriptions.append(one)
        try:
            yield one
        finally:
            self._subscriptions.remove(one)
            send.close()
            receive.close()


encode_event = msgspec.json.Encoder().encode
