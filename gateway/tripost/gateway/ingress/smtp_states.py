"""where an SMTP connection is, and which command may come there

`States` of a connection, the `Place` of every command, and what is said to one
that comes at another. The commands themselves are in `smtp_commands`.

Source   RFC 5321 §4.1.4; 2033 §4.2; 3030 §2; 3207 §4; 4954 §4.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class State(enum.Enum):
    """Where a connection is."""

    START = "nothing was said yet, or TLS or XCLIENT made everything new"
    READY = "greeted; no transaction"
    SENDER = "MAIL was accepted"
    RECIPIENTS = "a RCPT was accepted"
    CHUNKS = "between the chunks of BDAT"
    BROKEN = "a chunk was refused; those that are under way already get the same reply"
    DOTS = "in the content, until CRLF.CRLF"
    OCTETS = "in the content of one chunk"
    SASL = "in AUTH: the next line is the client's answer"
    HANDSHAKE = "TLS is being begun: nothing is read here"
    CLOSED = "the end"


COMMAND_LIMIT = 1024  # octets of a line; RFC 5321 §4.5.3.1.4 asks for 512 and more
PARAMETERS_LIMIT = 2048  # what the extensions add to MAIL and RCPT (ORCPT alone: 500), and to XCLIENT
AUTH_LIMIT = 12_288 + 2  # RFC 4954 §4

_IDLE = frozenset({State.START, State.READY})
_READY = frozenset({State.READY})
_OPEN = frozenset({State.SENDER, State.RECIPIENTS})
_ANY = _IDLE | _OPEN | {State.CHUNKS, State.BROKEN}
_EITHER, _SMTP, _LMTP = None, False, True


class Place(NamedTuple):
    """`lmtp`: True where only LMTP has it, False where only SMTP has it."""

    states: frozenset[State]
    limit: int = COMMAND_LIMIT
    lmtp: bool | None = _EITHER
    before_tls: bool = False  # also where TLS must come first (RFC 3207 §4)


PLACES: dict[str, Place] = {
    "HELO": Place(_ANY, lmtp=_SMTP),
    "EHLO": Place(_ANY, lmtp=_SMTP, before_tls=True),
    "LHLO": Place(_ANY, lmtp=_LMTP, before_tls=True),
    "STARTTLS": Place(_READY, before_tls=True),
    "AUTH": Place(_READY, AUTH_LIMIT),
    "XCLIENT": Place(_IDLE, PARAMETERS_LIMIT),
    "XFORWARD": Place(_IDLE, PARAMETERS_LIMIT),
    "MAIL": Place(frozenset({State.READY, State.BROKEN}), PARAMETERS_LIMIT),
    "RCPT": Place(_OPEN, PARAMETERS_LIMIT),
    "DATA": Place(frozenset({State.RECIPIENTS})),
    "BDAT": Place(frozenset({State.RECIPIENTS, State.CHUNKS})),
    "RSET": Place(_ANY),
    "NOOP": Place(_ANY, before_tls=True),
    "VRFY": Place(_ANY, PARAMETERS_LIMIT),
    "EXPN": Place(_ANY, PARAMETERS_LIMIT),
    "TURN": Place(_ANY),
    "HELP": Place(_ANY),
    "QUIT": Place(_ANY, before_tls=True),
}

_NO_RECIPIENTS = (554, "no valid recipients")
_WRONG: dict[tuple[str, State], tuple[int, str]] = {
    ("DATA", State.SENDER): _NO_RECIPIENTS,
    ("BDAT", State.SENDER): _NO_RECIPIENTS,
    ("MAIL", State.SENDER): (503, "a sender was given already; RSET begins anew"),
    ("MAIL", State.RECIPIENTS): (503, "a sender was given already; RSET begins anew"),
    ("RCPT", State.READY): (503, "MAIL first"),
    ("DATA", State.READY): (503, "MAIL first"),
    ("BDAT", State.READY): (503, "MAIL first"),
    ("", State.SENDER): (503, "not within a transaction; RSET ends it"),
    ("", State.RECIPIENTS): (503, "not within a transaction; RSET ends it"),
    ("", State.CHUNKS): (503, "the content has begun by BDAT"),
    ("", State.BROKEN): (503, "the content was refused; RSET begins anew"),
}


def out_of_place(verb: str, state: State, *, lmtp: bool) -> tuple[int, str]:
    """Code and text for a command that may not come in `state`; the enhanced code is 5.5.1."""
    if state is State.START:
        return 503, "say LHLO first" if lmtp else "say EHLO first"
    code, text = _WRONG.get((verb, state)) or _WRONG["", state]
    return (503 if lmtp else code), text  # RFC 2033 §4.2 wants 503 where nobody would get it
