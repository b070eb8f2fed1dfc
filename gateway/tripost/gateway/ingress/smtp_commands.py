"""the commands of SMTP and LMTP: their syntax and what they ask for

One function for each, from the argument to an event; `smtp_protocol` calls them
once `smtp_states` has said that the command may come now.

Source   RFC 5321 §4.1.1; the RFCs named beside the branches.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from tripost.delivery.wire.addresses import NEEDS_UTF8, AddressError, parse_path
from tripost.delivery.wire.parameters import ParameterError, mail_parameters, rcpt_parameters
from tripost.delivery.wire.replies import reply
from tripost.gateway.ingress.claims import ClaimError, read_claim
from tripost.gateway.ingress.smtp_events import Answer, Auth, Claim, Content, Event, Hello, Mail, Rcpt, Reset, StartTls
from tripost.gateway.ingress.smtp_states import State

if TYPE_CHECKING:
    from tripost.gateway.ingress.smtp_protocol import ServerProtocol

HELO_LIMIT = 255
SKIP_LIMIT = 65_536  # octets of a refused chunk that are read and dropped, beyond twice the largest message
_BDAT = re.compile(r"([0-9]{1,19})(?: +(LAST))?", re.IGNORECASE)
_MAIL_SYNTAX = "syntax: MAIL FROM:<address> [parameters]"
_RCPT_SYNTAX = "syntax: RCPT TO:<address> [parameters]"


def _hello(now: ServerProtocol, argument: str) -> Event:
    if not argument or " " in argument or len(argument) > HELO_LIMIT:
        return now.refuse(501, "5.5.4", f"syntax: {now.verb} name")
    now.reset()  # RFC 5321 §4.1.4, whatever becomes of it
    return Hello(argument)


def _mail(now: ServerProtocol, argument: str) -> Event:
    terms = now.terms
    if terms.need_auth and not terms.authenticated:
        if not terms.mechanisms and terms.starttls and not terms.secured:
            return now.refuse(530, "5.7.0", "must issue a STARTTLS command first")
        return now.refuse(530, "5.7.0", "authentication required")
    if argument[:5].upper() != "FROM:":
        return now.refuse(501, "5.5.4", _MAIL_SYNTAX)
    try:
        sender, rest = parse_path(argument[5:].lstrip(" "), null=True, utf8=True)
        parameters = mail_parameters(rest, now.offered)
        if not (sender.isascii() or parameters.smtputf8):
            raise AddressError("the address is not ASCII, and SMTPUTF8 was not asked for", NEEDS_UTF8)
    except AddressError as wrong:
        return _bad_address(now, wrong, "5.1.7", _MAIL_SYNTAX)
    except ParameterError as wrong:
        return now.refuse(wrong.code, wrong.enhanced, str(wrong))
    if parameters.size > terms.message_size:
        return now.refuse(552, "5.3.4", f"larger than the {terms.message_size} octets that are taken here")
    now.pending = parameters
    return Mail(sender, parameters)


def _rcpt(now: ServerProtocol, argument: str) -> Event:
    if argument[:3].upper() != "TO:":
        return now.refuse(501, "5.5.4", _RCPT_SYNTAX)
    utf8 = now.parameters.smtputf8
    try:
        address, rest = parse_path(argument[3:].lstrip(" "), utf8=utf8)
        return Rcpt(address, rcpt_parameters(rest, now.offered, utf8=utf8))
    except AddressError as wrong:
        return _bad_address(now, wrong, "5.1.3", _RCPT_SYNTAX)
    except ParameterError as wrong:
        return now.refuse(wrong.code, wrong.enhanced, str(wrong))


def _bad_address(now: ServerProtocol, wrong: AddressError, enhanced: str, syntax: str) -> Answer:
    if wrong.enhanced:
        return now.refuse(553, wrong.enhanced, str(wrong))
    return now.refuse(501, enhanced, f"{wrong}; {syntax}")


def _data(now: ServerProtocol, argument: str) -> Event:
    if argument:
        return now.refuse(501, "5.5.4", "DATA takes no argument")
    if now.parameters.body == "BINARYMIME":  # RFC 3030 §3
        return now.refuse(503, "5.5.1", "a message with BODY=BINARYMIME comes by BDAT")
    return Content(chunked=False, size=0)


def bdat(now: ServerProtocol, argument: str, wrong: Answer | None) -> Event:
    """Apart from the others, since its octets come whether it is right (`wrong` is None) or not."""
    match = _BDAT.fullmatch(argument.strip(" "))
    if match is None:
        now.close()
        answer = reply(501, "5.5.4", "syntax: BDAT size [LAST]; where the next command begins cannot be told")
        return Answer(answer, "bdat", close=True)
    size, last = int(match[1]), match[2] is not None
    if size > 2 * now.terms.message_size + SKIP_LIMIT:
        now.close()
        return Answer(reply(552, "5.3.4", "much larger than what is taken here, closing"), "bdat", close=True)
    if wrong is None and "CHUNKING" not in now.offered:
        wrong = now.refuse(503, "5.5.1", "say EHLO first")
    if now.state is State.BROKEN:
        wrong = Answer(now.broken, "chunk")
    now.chunk_begins(size, last=last)
    if wrong is not None:
        now.content_refused(wrong.reply)
    return wrong or Content(chunked=True, size=size)


def _starttls(now: ServerProtocol, argument: str) -> Event:
    if argument:
        return now.refuse(501, "5.5.4", "STARTTLS takes no argument")
    if now.terms.secured:
        return now.refuse(503, "5.5.1", "TLS runs already")
    if not now.terms.starttls:
        return now.refuse(502, "5.5.1", "STARTTLS is not offered here")
    if not now.extended:
        return now.refuse(503, "5.5.1", "say EHLO first")
    return StartTls()


def _auth(now: ServerProtocol, argument: str) -> Event:
    terms = now.terms
    mechanism, _, initial = argument.partition(" ")
    if terms.authenticated:  # RFC 4954 §4: one AUTH in a session
        return now.refuse(503, "5.5.1", "you are authenticated already")
    if not terms.mechanisms:
        if terms.starttls and not terms.secured:
            return now.refuse(538, "5.7.11", "encryption required: STARTTLS first")
        return now.refuse(502, "5.5.1", "AUTH is not offered here")
    if not now.extended:
        return now.refuse(503, "5.5.1", "say EHLO first")
    if not mechanism or " " in initial:
        return now.refuse(501, "5.5.4", "syntax: AUTH mechanism [initial-response]")
    if mechanism.upper() not in terms.mechanisms:
        return now.refuse(504, "5.5.4", f"mechanisms: {' '.join(terms.mechanisms)}")
    return Auth(mechanism.upper(), initial or None)


def _claim(now: ServerProtocol, argument: str) -> Event:
    if not now.terms.xclient:
        return now.refuse(550, "5.7.0", f"{now.verb} is not for you")
    try:
        return Claim(now.verb, read_claim(now.verb, argument))
    except ClaimError as wrong:
        return now.refuse(501, "5.5.4", str(wrong))


def _rset(now: ServerProtocol, argument: str) -> Event:
    if argument:
        return now.refuse(501, "5.5.4", "RSET takes no argument")
    now.reset()
    return Reset()


def _noop(now: ServerProtocol, _argument: str) -> Event:
    return now.refuse(250, "2.0.0", "nothing done")


def _vrfy(now: ServerProtocol, argument: str) -> Event:
    if not argument:
        return now.refuse(501, "5.5.4", "VRFY takes an address")
    return now.refuse(252, "2.5.0", "not verified here; send, and see")  # RFC 5321 §3.5.3, §7.3


def _help(now: ServerProtocol, _argument: str) -> Event:
    hello = "LHLO" if now.terms.lmtp else "HELO EHLO"
    return now.refuse(214, "2.0.0", f"{hello} STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT")


def _quit(now: ServerProtocol, argument: str) -> Event:
    if argument:
        return now.refuse(501, "5.5.4", "QUIT takes no argument")
    now.close()
    return Answer(reply(221, "2.0.0", f"{now.terms.hostname} closing the connection"), "quit", close=True)


def _not_here(now: ServerProtocol, _argument: str) -> Event:
    return now.refuse(502, "5.5.1", f"{now.verb} is not offered here")


HANDLERS: dict[str, Callable[[ServerProtocol, str], Event]] = {
    "HELO": _hello,
    "EHLO": _hello,
    "LHLO": _hello,
    "STARTTLS": _starttls,
    "AUTH": _auth,
    "XCLIENT": _claim,
    "XFORWARD": _claim,
    "MAIL": _mail,
    "RCPT": _rcpt,
    "DATA": _data,
    "RSET": _rset,
    "NOOP": _noop,
    "VRFY": _vrfy,
    "EXPN": _not_here,
    "TURN": _not_here,
    "HELP": _help,
    "QUIT": _quit,
}
