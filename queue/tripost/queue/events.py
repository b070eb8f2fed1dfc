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

from tripost.queue.message import Transfer

Id = Annotated[str, Meta(description="the message's id, as it was told with the 250")]
RecipientId = Annotated[int, Meta(description="which of the message's recipients, from 0; stable")]
Address = Annotated[str, Meta(description="an envelope address")]
NextHop = Annotated[str, Meta(description="where it goes, as `tripost route` tells it")]
Site = Annotated[str, Meta(description="the hosts that share limits and connections")]
Host = Annotated[str, Meta(description="a host's name, or its address where it has no name")]
Ip = Annotated[str, Meta(description="an IP address; empty for a Unix socket")]
Service = Annotated[str, Meta(description="smtp, submission, lmtp, pop3 or monitor")]
Account = Annotated[str, Meta(description="a local account")]
Reply = Annotated[str, Meta(description="the reply's code, enhanced code and text, in one line")]
Attempt = Annotated[int, Meta(description="the number of the attempt, from 1")]
Seconds = Annotated[float, Meta(description="a duration in seconds")]
Wall = Annotated[float, Meta(description="seconds since 1970, by the wall clock")]
Commit = Annotated[float, Meta(description="seconds from the end of its content to stable storage")]
Age = Annotated[float, Meta(description="seconds since the message was accepted")]
Told = Annotated[Transfer | None, Meta(description="how the transaction went, where a host was spoken to")]


class Event(
    msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="event", tag=lambda name: name.lower()
):
    """What all events have; `seq` is given by the bus."""

    time: Wall
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
    """The configuration was read anew. `changed` keys hold now, `restart`: those that wait for one."""

    changed: list[str] = []
    restart: list[str] = []


# --- clients ---


class Connected(Event, frozen=True, kw_only=True):
    """A client came."""

    service: Service
    client: Ip


class Disconnected(Event, frozen=True, kw_only=True):
    """A client's connection is over, after `seconds`."""

    service: Service
    client: Ip
    seconds: Seconds


class Secured(Event, frozen=True, kw_only=True):
    """A client's connection is encrypted now. `server_name`: the name that it asked for."""

    service: Service
    client: Ip
    version: str
    cipher: str
    server_name: str = ""


class Refused(Event, frozen=True, kw_only=True):
    """A client, or its command, was refused, by policy, limit or grammar; `phase`: connect | helo | mail | rcpt | data
    | auth | …"""

    service: Service
    client: Ip
    phase: str
    reply: Reply


class Noticed(Event, frozen=True, kw_only=True):
    """A client does something odd that is dealt with, and that an operator may want to know."""

    service: Service
    client: Ip
    reason: str


class LoggedIn(Event, frozen=True, kw_only=True):
    """A client is that account now."""

    service: Service
    account: Account
    client: Ip


class LoginFailed(Event, frozen=True, kw_only=True):
    """`account` only where there is one of that name; `reason`: credentials | disabled | barred | cleartext | cancelled
    | malformed | unknown | temporary"""

    service: Service
    client: Ip
    account: Account = ""
    reason: str = ""


class Fetched(Event, frozen=True, kw_only=True):
    """A POP3 session ended well: so many messages were sent, so many removed."""

    account: Account
    client: Ip
    messages: int
    deleted: int


class Expired(Event, frozen=True, kw_only=True):
    """Messages of a mailbox went because its policy says so: too old, or too many."""

    account: Account
    messages: int


# --- messages ---


class Accepted(Event, frozen=True, kw_only=True):
    """A message is on stable storage, and ours. `sender` is empty for reports; `client` too for our own."""

    id: Id
    sender: Address
    recipients: list[Address]
    size: int
    client: Ip
    account: Account = ""
    seconds: Commit = 0.0


class Way(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Where one recipient's copy goes; `via`: the alias that sends it there."""

    recipient_id: RecipientId
    recipient: Address
    next_hop: NextHop
    via: Address = ""


class Routed(Event, frozen=True, kw_only=True):
    """Where an accepted message goes."""

    id: Id
    ways: list[Way]


class Attempted(Event, frozen=True, kw_only=True):
    """A delivery attempt begins at a host, for so many of the message's recipients."""

    id: Id
    next_hop: NextHop
    host: Host
    attempt: Attempt
    recipients: int


class Relayed(Event, frozen=True, kw_only=True):
    """A host took it: the end, for this recipient."""

    id: Id
    recipient_id: RecipientId
    recipient: Address
    next_hop: NextHop
    host: Host
    reply: Reply
    attempt: Attempt
    transfer: Told = None
    age: Age = 0.0


class DeliveredLocally(Event, frozen=True, kw_only=True, tag="delivered"):
    """It is in the mailbox, on stable storage: the end, for this recipient."""

    id: Id
    recipient_id: RecipientId
    recipient: Address
    attempt: Attempt
    age: Age = 0.0


class Discarded(Event, frozen=True, kw_only=True):
    """A route says that nobody wants it: the end, for this recipient."""

    id: Id
    recipient_id: RecipientId
    recipient: Address
    next_hop: NextHop


class Deleted(Event, frozen=True, kw_only=True):
    """An operator ended it, and nobody is told: the end, for this recipient."""

    id: Id
    recipient_id: RecipientId
    recipient: Address
    next_hop: NextHop
    reason: str = ""


class DeferredUntil(Event, frozen=True, kw_only=True, tag="deferred"):
    """To be tried again at `due`, in `delay` s. `attempt` counts those that this message is charged with."""

    id: Id
    recipient_id: RecipientId
    recipient: Address
    next_hop: NextHop
    host: Host
    reply: Reply
    attempt: int
    due: Wall
    delay: Seconds
    transfer: Told = None


class Bounced(Event, frozen=True, kw_only=True, tag="failed"):
    """Given up: the end, for this recipient. `report` is the id of the DSN, empty where none is due."""

    id: Id
    recipient_id: RecipientId
    recipient: Address
    next_hop: NextHop
    host: Host
    reply: Reply
    attempt: int
    report: str
    transfer: Told = None
    age: Age = 0.0


# --- destinations ---


class Resolved(Event, frozen=True, kw_only=True):
    """The MX answer for a domain, in the order of use."""

    domain: str
    hosts: list[Host]


class Opened(Event, frozen=True, kw_only=True):
    """A connection of ours is greeted: the `open`th of at most `limit` now. `tls` is empty in plain text. Seconds for
    the TCP connection, for greeting and EHLO, and for STARTTLS with its EHLO."""

    site: Site
    host: Host
    address: Ip
    tls: str
    open: int
    limit: int
    connect: Seconds = 0.0
    greeting: Seconds = 0.0
    handshake: Seconds = 0.0


class Closed(Event, frozen=True, kw_only=True):
    """A connection of ours is over, after so many transactions."""

    site: Site
    host: Host
    address: Ip
    messages: int


class Unreachable(Event, frozen=True, kw_only=True):
    """A host could not be spoken to while `open` other connections to its site are good; `phase`: dns | connect |
    greeting | ehlo | tls | auth"""

    id: Id
    site: Site
    host: Host
    phase: str
    reply: Reply
    open: int


class Adapted(Event, frozen=True, kw_only=True):
    """A site may have `limit` connections now, and why."""

    site: Site
    limit: int
    reason: str


class Limited(Event, frozen=True, kw_only=True):
    """What keeps more from being sent to a site now: `by` connections | feedback | rate | connection_rate |
    max_connections | rest; told when it changes. `wait` where it is known."""

    site: Site
    by: str
    wait: Seconds = 0.0
    reason: str = ""


class BackedOff(Event, frozen=True, kw_only=True, tag="backoff"):
    """A destination cannot be spoken to; one probe follows after `delay` s."""

    next_hop: NextHop
    failures: int
    delay: Seconds
    reply: Reply


# --- operators ---


class Suspended(Event, frozen=True, kw_only=True):
    """Nothing is tried for a next hop until `until` (0: until it is resumed)."""

    next_hop: NextHop
    until: Wall
    reason: str


class Resumed(Event, frozen=True, kw_only=True):
    """A suspension is over before its time."""

    next_hop: NextHop


class Steered(Event, frozen=True, kw_only=True):
    """An operator did something to the queue: `who` by the socket's credentials, `what` the conditions or next hop,
    `id` the action's in the audit trail."""

    who: str
    action: str
    what: str
    changed: int
    id: str = ""


Lifecycle = Started | Stopping | Stopped | Trouble | Dropped | Reopened | Reloaded
OfClients = Connected | Disconnected | Secured | Refused | Noticed | LoggedIn | LoginFailed | Fetched | Expired
OfMessages = Accepted | Routed | Attempted | Relayed | DeliveredLocally | Discarded | Deleted | DeferredUntil | Bounced
OfDestinations = Resolved | Opened | Closed | Unreachable | Adapted | Limited | BackedOff
OfOperators = Suspended | Resumed | Steered
AnyEvent = Lifecycle | OfClients | OfMessages | OfDestinations | OfOperators
