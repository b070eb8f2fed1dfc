"""what happens, as typed events

One struct for each kind; docs/events.md and docs/events.schema.json are made from what stands here.

Promise  Every step of a message emits exactly one event. Times are wall-clock seconds, durations seconds, sizes octets.
         Events carry ids, addresses and reasons, never message text or secrets; replies are what was said.
         `seq` grows by one with each event, and over restarts, where it jumps: it begins at the microsecond of the
         start. A gap is what was dropped.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from tripost.queue import event_fields as fields


class Event(
    msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="event", tag=lambda name: name.lower()
):
    """What all events have; `seq` is given by the bus."""

    time: fields.Wall
    seq: Annotated[int, Meta(description="the event's number")] = 0


# --- the gateway ---


class Started(Event, frozen=True, kw_only=True):
    """It takes connections now. `listeners`: service → addresses."""

    listeners: dict[str, list[str]]
    version: str = ""
    pid: int = 0


class Stopping(Event, frozen=True, kw_only=True):
    """It takes no connections any more; what is under way may finish."""

    reason: str


class Stopped(Event, frozen=True, kw_only=True):
    """The last event. `clean`: nothing had to be cut."""

    clean: bool


class Trouble(Event, frozen=True, kw_only=True):
    """Something an operator should look at; `where` is the part of the gateway."""

    where: str
    reason: str


class Dropped(Event, frozen=True, kw_only=True):
    """A reader of events did not get `events` since this was last told, `total` since the start: it was too slow, or
    could not store them. `reader`: log | history | …"""

    reader: str
    events: int
    total: int
    reason: str = ""


class Reopened(Event, frozen=True, kw_only=True):
    """The file of events was closed and opened anew, as SIGHUP asks: the first event in the new one."""

    file: str


class Reloaded(Event, frozen=True, kw_only=True):
    """The configuration was read anew. `changed` keys hold now, `restart`: those that wait for one;
    `generation`: the how manieth it is, 1 at the start."""

    changed: list[str] = []
    restart: list[str] = []
    generation: int = 0


# --- clients ---


class Connected(Event, frozen=True, kw_only=True):
    """A client came."""

    service: fields.Service
    client: fields.Ip


class Disconnected(Event, frozen=True, kw_only=True):
    """A client's connection is over, after `seconds`."""

    service: fields.Service
    client: fields.Ip
    seconds: fields.Seconds


class Secured(Event, frozen=True, kw_only=True):
    """A client's connection is encrypted now. `server_name`: the name that it asked for."""

    service: fields.Service
    client: fields.Ip
    version: str
    cipher: str
    server_name: str = ""


class Refused(Event, frozen=True, kw_only=True):
    """A client, or its command, was refused, by policy, limit or grammar; `phase`: connect | helo | mail | rcpt | data
    | auth | …"""

    service: fields.Service
    client: fields.Ip
    phase: str
    reply: fields.Reply


class Shed(Event, frozen=True, kw_only=True):
    """Overload: so many new connections were told to come again since this was last told, for waiting longer than half
    of `[limits] lag`, at most `wait`. `state`: begins | goes on (each second) | ends. No other event tells of them."""

    service: fields.Service
    connections: int
    wait: fields.Seconds
    state: str


class Noticed(Event, frozen=True, kw_only=True):
    """A client does something odd that is dealt with, and that an operator may want to know."""

    service: fields.Service
    client: fields.Ip
    reason: str


class LoggedIn(Event, frozen=True, kw_only=True):
    """A client is that account now."""

    service: fields.Service
    account: fields.Account
    client: fields.Ip


class LoginFailed(Event, frozen=True, kw_only=True):
    """`account` only where there is one of that name; `reason`: credentials | disabled | barred | cleartext | cancelled
    | malformed | unknown | temporary"""

    service: fields.Service
    client: fields.Ip
    account: fields.Account = ""
    reason: str = ""


class Fetched(Event, frozen=True, kw_only=True):
    """A POP3 session ended well: so many messages were sent, so many removed."""

    account: fields.Account
    client: fields.Ip
    messages: int
    deleted: int


class Expired(Event, frozen=True, kw_only=True):
    """Messages of a mailbox went because its policy says so: too old, or too many."""

    account: fields.Account
    messages: int


# --- messages ---


class Accepted(Event, frozen=True, kw_only=True):
    """A message is on stable storage, and ours. `sender` is empty for reports; `client` too for our own."""

    id: fields.Id
    sender: fields.Address
    recipients: list[fields.Address]
    size: int
    client: fields.Ip
    account: fields.Account = ""
    seconds: fields.Commit = 0.0


class Way(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Where one recipient's copy goes; `via`: the alias that sends it there."""

    recipient_id: fields.RecipientId
    recipient: fields.Address
    next_hop: fields.NextHop
    via: fields.Address = ""


class Routed(Event, frozen=True, kw_only=True):
    """Where an accepted message goes."""

    id: fields.Id
    ways: list[Way]


class Attempted(Event, frozen=True, kw_only=True):
    """A delivery attempt begins at a host, for so many of the message's recipients."""

    id: fields.Id
    next_hop: fields.NextHop
    host: fields.Host
    attempt: fields.Attempt
    recipients: int


class Relayed(Event, frozen=True, kw_only=True):
    """A host took it: the end, for this recipient."""

    id: fields.Id
    recipient_id: fields.RecipientId
    recipient: fields.Address
    next_hop: fields.NextHop
    host: fields.Host
    reply: fields.Reply
    attempt: fields.Attempt
    transfer: fields.Told = None
    age: fields.Age = 0.0


class DeliveredLocally(Event, frozen=True, kw_only=True, tag="delivered"):
    """It is in the mailbox, on stable storage: the end, for this recipient."""

    id: fields.Id
    recipient_id: fields.RecipientId
    recipient: fields.Address
    attempt: fields.Attempt
    age: fields.Age = 0.0


class Discarded(Event, frozen=True, kw_only=True):
    """A route says that nobody wants it: the end, for this recipient."""

    id: fields.Id
    recipient_id: fields.RecipientId
    recipient: fields.Address
    next_hop: fields.NextHop


class Deleted(Event, frozen=True, kw_only=True):
    """An operator ended it, and nobody is told: the end, for this recipient."""

    id: fields.Id
    recipient_id: fields.RecipientId
    recipient: fields.Address
    next_hop: fields.NextHop
    reason: str = ""


class DeferredUntil(Event, frozen=True, kw_only=True, tag="deferred"):
    """To be tried again at `due`, in `delay` s. `attempt` counts those that this message is charged with."""

    id: fields.Id
    recipient_id: fields.RecipientId
    recipient: fields.Address
    next_hop: fields.NextHop
    host: fields.Host
    reply: fields.Reply
    attempt: int
    due: fields.Wall
    delay: fields.Seconds
    transfer: fields.Told = None


class Bounced(Event, frozen=True, kw_only=True, tag="failed"):
    """Given up: the end, for this recipient. `report` is the id of the DSN, empty where none is due."""

    id: fields.Id
    recipient_id: fields.RecipientId
    recipient: fields.Address
    next_hop: fields.NextHop
    host: fields.Host
    reply: fields.Reply
    attempt: int
    report: str
    transfer: fields.Told = None
    age: fields.Age = 0.0


# --- destinations ---


class Resolved(Event, frozen=True, kw_only=True):
    """The MX answer for a domain, in the order of use."""

    domain: str
    hosts: list[fields.Host]


class Opened(Event, frozen=True, kw_only=True):
    """A connection of ours is greeted: the `open`th of at most `limit` now. `tls` is empty in plain text. Seconds for
    the TCP connection, for greeting and EHLO, and for STARTTLS with its EHLO."""

    site: fields.Site
    host: fields.Host
    address: fields.Ip
    tls: str
    open: int
    limit: int
    connect: fields.Seconds = 0.0
    greeting: fields.Seconds = 0.0
    handshake: fields.Seconds = 0.0


class Closed(Event, frozen=True, kw_only=True):
    """A connection of ours is over, after so many transactions."""

    site: fields.Site
    host: fields.Host
    address: fields.Ip
    messages: int


class Unreachable(Event, frozen=True, kw_only=True):
    """A host could not be spoken to while `open` other connections to its site are good; `phase`: dns | connect |
    greeting | ehlo | tls | auth"""

    id: fields.Id
    site: fields.Site
    host: fields.Host
    phase: str
    reply: fields.Reply
    open: int


class Adapted(Event, frozen=True, kw_only=True):
    """A site may have `limit` connections now, and why."""

    site: fields.Site
    limit: int
    reason: str


class Limited(Event, frozen=True, kw_only=True):
    """What keeps more from being sent to a site now: `by` connections | feedback | rate | connection_rate |
    max_connections | rest; told when it changes. `wait` where it is known."""

    site: fields.Site
    by: str
    wait: fields.Seconds = 0.0
    reason: str = ""


class BackedOff(Event, frozen=True, kw_only=True, tag="backoff"):
    """A destination cannot be spoken to; one probe follows after `delay` s."""

    next_hop: fields.NextHop
    failures: int
    delay: fields.Seconds
    reply: fields.Reply


# --- operators ---


class Suspended(Event, frozen=True, kw_only=True):
    """Nothing is tried for a next hop until `until` (0: until it is resumed)."""

    next_hop: fields.NextHop
    until: fields.Wall
    reason: str


class Resumed(Event, frozen=True, kw_only=True):
    """A suspension is over before its time."""

    next_hop: fields.NextHop


class Steered(Event, frozen=True, kw_only=True):
    """An operator did something to the queue: `who` by the socket's credentials, `what` the conditions or next hop,
    `id` the action's in the audit trail."""

    who: str
    action: str
    what: str
    changed: int
    id: str = ""


Lifecycle = Started | Stopping | Stopped | Trouble | Dropped | Reopened | Reloaded
OfClients = Connected | Disconnected | Secured | Refused | Shed | Noticed | LoggedIn | LoginFailed | Fetched | Expired
OfMessages = Accepted | Routed | Attempted | Relayed | DeliveredLocally | Discarded | Deleted | DeferredUntil | Bounced
OfDestinations = Resolved | Opened | Closed | Unreachable | Adapted | Limited | BackedOff
OfOperators = Suspended | Resumed | Steered
AnyEvent = Lifecycle | OfClients | OfMessages | OfDestinations | OfOperators
