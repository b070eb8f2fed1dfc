"""message, envelope, recipient, outcome

What the spool keeps about one accepted message and what can become of each of
its recipients. Values only; every struct here is a msgspec record and so part
of the spool's format: fields are added at the end, with a default.

States   a recipient is queued until exactly one final Outcome is settled:
         Delivered or Failed; Deferred leaves it queued with a later due time.
"""

from __future__ import annotations

import msgspec

# Recipient.notify (RFC 3461 §4.1); 0 where the client did not say
NOTIFY_SUCCESS = 1
NOTIFY_FAILURE = 2
NOTIFY_DELAY = 4
NOTIFY_NEVER = 8


class Recipient(msgspec.Struct, frozen=True, array_like=True):
    """One RCPT. `id` is stable for the life of the message (0-based)."""

    id: int
    address: str
    next_hop: str  # what the schedule is keyed by; see tripost.delivery.routing
    notify: int = 0
    orcpt: str = ""  # ORCPT as it came, "type;xtext" (RFC 3461 §4.2)
    via: str = ""  # the alias of ours that forwards it to another host


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """All that is known of a message but its content.

    `accepted` and `expires` are wall-clock seconds. `sender` is "" for the
    null reverse-path (RFC 5321 §4.5.5). `size` counts the content's octets
    as queued (CRLF line ends, no dot-stuffing, with our Received line).
    """

    id: str
    sender: str
    recipients: tuple[Recipient, ...]
    accepted: float
    expires: float
    size: int = 0
    eight_bit: bool = False
    client: str = ""
    account: str = ""
    priority: int = 0  # MT-PRIORITY, -9 to 9 (RFC 6710)
    release: float = 0.0  # not to be tried before (FUTURERELEASE, RFC 4865), wall-clock seconds
    binary: bool = False  # BODY=BINARYMIME (RFC 3030)
    smtputf8: bool = False  # RFC 6531
    ret: str = ""  # "FULL" | "HDRS" | "" (RFC 3461 §4.3)
    envid: str = ""  # ENVID as it came, xtext (RFC 3461 §4.4)
    require_tls: bool = False  # RFC 8689
    deliver_by: float = 0.0  # DELIVERBY's deadline (RFC 2852), wall-clock seconds, 0 for none
    by_mode: str = ""  # "R" | "N", with "T" behind it where a trace was asked for


class Transfer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How one transaction with a host went, in seconds: connection, greeting and STARTTLS where the connection was
    new, the commands up to the content, the content, and the wait for its reply."""

    address: str
    tls: str = ""  # the protocol's version, "" in plain text
    connect: float = 0.0
    greeting: float = 0.0
    handshake: float = 0.0
    mail: float = 0.0
    data: float = 0.0
    dot: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.connect + self.greeting + self.handshake + self.mail + self.data + self.dot


class Delivered(msgspec.Struct, frozen=True, array_like=True, tag="ok"):
    """The remote's 2xx, or the local mailbox has it on stable storage."""

    how: str  # "relayed" | "delivered" | "discarded" | "deleted"
    reply: str = ""
    host: str = ""
    dsn: bool = False  # the remote took over what was asked for reports
    transfer: Transfer | None = None


class Deferred(msgspec.Struct, frozen=True, array_like=True, tag="later"):
    """To be tried again. `destination` tells the two kinds of retry apart:

    True: the destination could not be spoken to at all (DNS, connect,
    greeting, STARTTLS); False: this message or recipient got a 4xx.
    """

    code: int
    enhanced: str
    text: str
    host: str = ""
    destination: bool = False
    transfer: Transfer | None = None


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="no"):
    """Given up; the sender is told by a DSN unless the sender is null."""

    code: int
    enhanced: str
    text: str
    host: str = ""
    transfer: Transfer | None = None


Outcome = Delivered | Deferred | Failed


class News(msgspec.Struct, frozen=True):
    """What a report tells of one recipient. `action`: failed | delayed | delivered | relayed (RFC 3464 §2.3.3)."""

    recipient: Recipient
    action: str
    outcome: Outcome


def asked(recipient: Recipient, bit: int) -> bool:
    """Is the sender to be told? By default of failures and delays (RFC 3461 §4.1)."""
    wanted = recipient.notify or NOTIFY_FAILURE | NOTIFY_DELAY
    return bool(wanted & bit)
