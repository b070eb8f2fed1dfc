"""what the manager and a delivery process say to each other

Pure. A connection has a number of the manager's. The process asks back where
only the manager can tell: whether there is room for one socket more, whether a
rate allows the next one. Contents never cross: `Deliver` says where they stand.

States   of a process: `Hello` → `Begin` → orders. Of a connection: `Open` →
         `Opened`, then any number of `Deliver` → `Done` one after the other, and
         `Close` → `Closed`; or `Refused`. `Abort` ends it at any time, unanswered.
"""

from __future__ import annotations

import msgspec

from tripost.delivery.links import Order
from tripost.queue.message import Outcome

VERSION = 1
ROLE = "delivery"


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Any of them."""


# --- the manager's ---


class Begin(Message, frozen=True, tag="begin"):
    """`spool`: the folder in which contents stand."""

    spool: str


class Open(Message, frozen=True, tag="open"):
    """A connection. `paced`: each socket is to wait for `Ready`."""

    connection: int
    order: Order
    paced: bool


class Deliver(Message, frozen=True, tag="deliver"):
    """The message at `place` to these of its recipients, () for all; `alias`: see Cargo; `now`: wall time; `paced`:
    `Turn` is to be waited for."""

    connection: int
    place: int
    now: float
    recipients: tuple[int, ...] = ()
    alias: str = ""
    paced: bool = False


class Close(Message, frozen=True, tag="close"):
    connection: int


class Abort(Message, frozen=True, tag="abort"):
    """At once, without a word to the host."""

    connection: int


class Trace(Message, frozen=True, tag="trace"):
    """Somebody listens to dialogues, or nobody any more."""

    on: bool


class Answer(Message, frozen=True, tag="answer"):
    """To `Room`, `Ready`, `Turn`; `text`: why not."""

    yes: bool = True
    text: str = ""


# --- the process's ---


class Hello(Message, frozen=True, tag="hello"):
    """The first one. `role`: what whoever takes in several kinds of processes tells them apart by."""

    role: str
    version: int
    pid: int


class Opened(Message, frozen=True, tag="opened"):
    """What `Link` tells of a connection; `rcpt_max`, `mail_max`: the host's LIMITS."""

    address: str
    tls: str
    verified: bool
    connect: float
    greeting: float
    handshake: float
    rcpt_max: int
    mail_max: int


class Refused(Message, frozen=True, tag="refused"):
    """See Down; `hopeless`: see Unroutable."""

    text: str
    enhanced: str
    host: str = ""
    phase: str = ""
    code: int = 0
    timeout: bool = False
    hopeless: bool = False


class Done(Message, frozen=True, tag="done"):
    """An outcome for every recipient. Not `usable`: the connection is closed."""

    outcomes: dict[int, Outcome]
    messages: int
    usable: bool = True
    stale: bool = False


class Unread(Message, frozen=True, tag="unread"):
    """The content could not be read; nobody has an outcome."""

    text: str
    messages: int
    usable: bool


class Wrong(Message, frozen=True, tag="wrong"):
    """Our own fault; the connection is closed."""

    text: str


class Closed(Message, frozen=True, tag="closed"):
    """Its sockets are closed."""


class Room(Message, frozen=True, tag="room"):
    """May there be one socket more?"""

    connection: int


class RoomGone(Message, frozen=True, tag="room gone"):
    """It is closed."""

    connection: int


class Ready(Message, frozen=True, tag="ready"):
    """May a socket be opened now? The answer comes when it may."""

    connection: int


class Turn(Message, frozen=True, tag="turn"):
    """May a transaction begin now? Likewise."""

    connection: int


class Said(Message, frozen=True, tag="said"):
    """Of a dialogue: see tripost.queue.dialogue."""

    connection: int
    client: str
    address: str
    direction: str
    text: str


class Figures(Message, frozen=True, tag="figures"):
    """Since the process began: processor seconds, lines lost; `memory`: the most octets it had."""

    seconds: float = 0.0
    memory: int = 0
    dropped: int = 0


FromManager = Begin | Open | Deliver | Close | Abort | Trace | Answer
FromCourier = (
    Hello | Opened | Refused | Done | Unread | Wrong | Closed | Room | RoomGone | Ready | Turn | Said | Figures
)
