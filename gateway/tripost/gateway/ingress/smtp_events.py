"""what comes out of `smtp_protocol`

An `Answer` is decided by grammar and order alone: send it. Everything else asks
the world something; the driver replies and tells the protocol by the method
that the event names. Where nothing is told, nothing has changed.
"""

from __future__ import annotations

import msgspec

from tripost.delivery.wire.parameters import MailParameters, RcptParameters
from tripost.delivery.wire.replies import Reply


class Answer(msgspec.Struct, frozen=True):
    """Send this; `phase` names the command; `close` the connection afterwards."""

    reply: Reply
    phase: str = ""
    close: bool = False


class Hello(msgspec.Struct, frozen=True):
    """A name was given. Send what `hello_accepted` returns, or refuse. Any transaction is over."""

    name: str


class Mail(msgspec.Struct, frozen=True):
    """`mail_accepted`, or refuse."""

    sender: str
    parameters: MailParameters


class Rcpt(msgspec.Struct, frozen=True):
    """`recipient_accepted`, or refuse."""

    address: str
    parameters: RcptParameters


class Reset(msgspec.Struct, frozen=True):
    """RSET: forget the transaction, and say 250."""


class Content(msgspec.Struct, frozen=True):
    """Content begins, or goes on. After DATA: 354 and `content_accepted`, or refuse. After each BDAT (`chunked`, of
    `size` octets) there is nothing to say yet: `content_accepted`; or refuse at once, and `content_refused`."""

    chunked: bool
    size: int


class Octets(msgspec.Struct, frozen=True):
    """Some content, without dot-stuffing."""

    content: bytes


class ChunkEnd(msgspec.Struct, frozen=True):
    """One chunk of `size` octets is complete, and more will follow: 250, or `content_refused`."""

    size: int


class EndOfContent(msgspec.Struct, frozen=True):
    """Answer; the transaction is over. `bare` when there were bare CR or LF in it, `chunked` when it came by BDAT."""

    bare: bool
    chunked: bool


class StartTls(msgspec.Struct, frozen=True):
    """220, sent before anything else; then `tls_begins`, the handshake, `begin_anew`. Or refuse."""


class Auth(msgspec.Struct, frozen=True):
    """An exchange begins: 334 and `auth_continues`, or `auth_over` with the last reply."""

    mechanism: str
    initial: str | None


class AuthLine(msgspec.Struct, frozen=True):
    """The client's next line: again 334 and `auth_continues`, or `auth_over`."""

    line: str


class Claim(msgspec.Struct, frozen=True):
    """XCLIENT (`begin_anew`, then the greeting) or XFORWARD (250), from somebody who may. None: not known."""

    verb: str
    attributes: dict[str, str | None]


Event = (
    Answer
    | Hello
    | Mail
    | Rcpt
    | Reset
    | Content
    | Octets
    | ChunkEnd
    | EndOfContent
    | StartTls
    | Auth
    | AuthLine
    | Claim
)
