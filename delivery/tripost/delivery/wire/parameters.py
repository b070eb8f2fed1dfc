"""what may follow the path of MAIL and RCPT

RFC 5321 §4.1.1.11: KEYWORD=VALUE, separated by spaces. Each belongs to an
extension and is understood only where that one is offered (`offered` holds the
keywords of EHLO).

Fails    `ParameterError` with the reply code that fits: 501 for a value that
         is none, 555 for a parameter that is not known or not offered.
Source   SIZE RFC 1870; BODY RFC 6152, 3030; SMTPUTF8 RFC 6531; RET, ENVID,
         NOTIFY, ORCPT RFC 3461 §4; AUTH RFC 4954 §5; BY RFC 2852 §4; HOLDFOR,
         HOLDUNTIL RFC 4865 §4; MT-PRIORITY RFC 6710 §4; REQUIRETLS RFC 8689.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Set
from typing import Any

import msgspec

from tripost.delivery.wire.addresses import AddressError, parse_address
from tripost.queue.message import NOTIFY_DELAY, NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS

ENVID_LIMIT = 100  # characters, RFC 3461 §4.4
ORCPT_LIMIT = 500  # §4.2
SIZE_DIGITS = 20
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\u0080-\U0010ffff]+))?")
_XTEXT = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})*")
_XTEXT8 = re.compile(r"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e\u0080-\U0010ffff]|\+[0-9A-F]{2})*")
_HEX = re.compile(r"\+([0-9A-F]{2})")
_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*/?^_`{|}~-]+")
_BY = re.compile(r"([+-]?[0-9]{1,9});([NR])(T?)", re.IGNORECASE)
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})", re.IGNORECASE
)
_NOTIFY = {"SUCCESS": NOTIFY_SUCCESS, "FAILURE": NOTIFY_FAILURE, "DELAY": NOTIFY_DELAY}


class ParameterError(ValueError):
    """`code` and `enhanced` are the reply's."""

    def __init__(self, text: str, code: int = 501, enhanced: str = "5.5.4") -> None:
        super().__init__(text)
        self.code = code
        self.enhanced = enhanced


class MailParameters(msgspec.Struct, frozen=True):
    """`size` is 0 where the client did not say; so is every other field."""

    size: int = 0
    body: str = ""  # 7BIT, 8BITMIME or BINARYMIME
    smtputf8: bool = False
    ret: str = ""  # FULL or HDRS
    envid: str = ""  # xtext, as it came
    auth: str = ""  # the mailbox, or "<>"
    require_tls: bool = False
    by: int | None = None  # seconds
    by_mode: str = ""  # R or N, with T behind it where a trace was asked for
    hold_for: int | None = None  # seconds
    hold_until: float | None = None  # wall-clock seconds
    priority: int = 0


class RcptParameters(msgspec.Struct, frozen=True):
    """`notify` in the bits of `tripost.queue.message`; `orcpt` as it came."""

    notify: int = 0
    orcpt: str = ""


NO_MAIL_PARAMETERS = MailParameters()
NO_RCPT_PARAMETERS = RcptParameters()


def split_parameters(text: str, *, utf8: bool = False) -> dict[str, str | None]:
    """Keywords in upper case → values; None for none. Raises ParameterError."""
    if text and not text.startswith(" "):
        raise ParameterError("there must be a space between address and parameters")
    found: dict[str, str | None] = {}
    for word in text.split(" "):
        if not word:
            continue
        match = _PARAMETER.fullmatch(word)
        if match is None or not (utf8 or word.isascii()):
            raise ParameterError("malformed parameter")
        name = match[1].upper()
        if name in found:
            raise ParameterError(f"parameter {name[:40]} given twice")
        found[name] = match[2]
    return found


def mail_parameters(text: str, offered: Set[str]) -> MailParameters:
    """Of MAIL. Raises ParameterError."""
    if not text:
        return NO_MAIL_PARAMETERS
    fields = _read(text, offered, _MAIL)
    if fields.get("body") == "BINARYMIME" and "BINARYMIME" not in offered:
        raise ParameterError("BODY=BINARYMIME is not offered here", 555)
    if "hold_for" in fields and "hold_until" in fields:
        raise ParameterError("HOLDFOR and HOLDUNTIL exclude each other")
    return MailParameters(**fields)


def rcpt_parameters(text: str, offered: Set[str], *, utf8: bool = False) -> RcptParameters:
    """Of RCPT; `utf8` when MAIL had SMTPUTF8. Raises ParameterError."""
    if not text:
        return NO_RCPT_PARAMETERS
    return RcptParameters(**_read(text, offered, _RCPT, utf8=utf8))


Reader = Callable[[str | None], dict[str, Any]]


def _read(text: str, offered: Set[str], table: dict[str, tuple[str, Reader]], *, utf8: bool = False) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in split_parameters(text, utf8=utf8).items():
        extension, read = table.get(name, ("", _no_value))
        if extension not in offered:
            why = "is not offered here" if extension else "is not known here"
            raise ParameterError(f"parameter {name[:40]} {why}", 555)
        fields |= read(value)
    return fields


def _need(good: object, text: str) -> None:
    if not good:
        raise ParameterError(text)


def _no_value(value: str | None) -> dict[str, Any]:
    return {}


def _size(value: str | None) -> dict[str, Any]:
    _need(value and value.isascii() and value.isdigit() and len(value) <= SIZE_DIGITS, "SIZE must be a number")
    return {"size": int(value or 0)}


def _body(value: str | None) -> dict[str, Any]:
    body = (value or "").upper()
    _need(body in ("7BIT", "8BITMIME", "BINARYMIME"), "BODY must be 7BIT, 8BITMIME or BINARYMIME")
    return {"body": body}


def _smtputf8(value: str | None) -> dict[str, Any]:
    _need(value is None, "SMTPUTF8 takes no value")
    return {"smtputf8": True}


def _ret(value: str | None) -> dict[str, Any]:
    ret = (value or "").upper()
    _need(ret in ("FULL", "HDRS"), "RET must be FULL or HDRS")
    return {"ret": ret}


def _envid(value: str | None) -> dict[str, Any]:
    envid = value or ""
    _need(envid and len(envid) <= ENVID_LIMIT, f"ENVID must have 1 to {ENVID_LIMIT} characters")
    # RFC 3461 §4.4: what it decodes to is printable ASCII, so that a report can quote it
    _need(_XTEXT.fullmatch(envid) and all(" " <= one <= "~" for one in from_xtext(envid)), "ENVID must be xtext")
    return {"envid": envid}


def _auth(value: str | None) -> dict[str, Any]:
    _need(value and _XTEXT.fullmatch(value), "AUTH must be <> or a mailbox, as xtext")
    mailbox = from_xtext(value or "")
    if mailbox == "<>":
        return {"auth": mailbox}
    try:
        return {"auth": parse_address(mailbox)}
    except AddressError as wrong:
        raise ParameterError(f"AUTH: {wrong}") from None


def _require_tls(value: str | None) -> dict[str, Any]:
    _need(value is None, "REQUIRETLS takes no value")
    return {"require_tls": True}


def _by(value: str | None) -> dict[str, Any]:
    match = _BY.fullmatch(value or "")
    if match is None:
        raise ParameterError("BY must be seconds;N or seconds;R, with T behind it for a trace")
    seconds, mode = int(match[1]), match[2].upper()
    _need(seconds > 0 or mode == "N", "BY with R needs a time that is still to come")  # RFC 2852 §4
    return {"by": seconds, "by_mode": mode + match[3].upper()}


def _hold_for(value: str | None) -> dict[str, Any]:
    good = value and value.isascii() and value.isdigit() and len(value) <= 9
    _need(good, "HOLDFOR must be a number of seconds, of at most 9 digits")
    return {"hold_for": int(value or 0)}


def _hold_until(value: str | None) -> dict[str, Any]:
    text = value or ""
    _need(_DATE_TIME.fullmatch(text), "HOLDUNTIL must be a time such as 2030-01-31T08:00:00Z")
    # a leap second is not known to Python, and one second does not matter here
    text = re.sub(r":60(?=[.Zz+-])", ":59", text.upper())
    try:
        return {"hold_until": datetime.datetime.fromisoformat(text).timestamp()}
    except (ValueError, OverflowError):
        raise ParameterError("HOLDUNTIL is no time that exists") from None


def _priority(value: str | None) -> dict[str, Any]:
    _need(re.fullmatch(r"-?[0-9]", value or ""), "MT-PRIORITY must be a number from -9 to 9")
    return {"priority": int(value or 0)}


def _notify(value: str | None) -> dict[str, Any]:
    words = (value or "").upper().split(",")
    if words == ["NEVER"]:
        return {"notify": NOTIFY_NEVER}
    _need(all(word in _NOTIFY for word in words), "NOTIFY must be NEVER, or a list of SUCCESS, FAILURE and DELAY")
    return {"notify": sum(bit for word, bit in _NOTIFY.items() if word in words)}


def _orcpt(value: str | None) -> dict[str, Any]:
    text = value or ""
    kind, found, rest = text.partition(";")
    _need(len(text) <= ORCPT_LIMIT, f"ORCPT is longer than {ORCPT_LIMIT} characters")
    # RFC 6533 §3: under SMTPUTF8 a utf-8 address may stand there as it is
    pattern = _XTEXT8 if kind.lower() == "utf-8" else _XTEXT
    _need(found and rest and _TYPE.fullmatch(kind) and pattern.fullmatch(rest), "ORCPT must be type;address, as xtext")
    return {"orcpt": text}


_MAIL: dict[str, tuple[str, Reader]] = {
    "SIZE": ("SIZE", _size),
    "BODY": ("8BITMIME", _body),
    "SMTPUTF8": ("SMTPUTF8", _smtputf8),
    "RET": ("DSN", _ret),
    "ENVID": ("DSN", _envid),
    "AUTH": ("AUTH", _auth),
    "REQUIRETLS": ("REQUIRETLS", _require_tls),
    "BY": ("DELIVERBY", _by),
    "HOLDFOR": ("FUTURERELEASE", _hold_for),
    "HOLDUNTIL": ("FUTURERELEASE", _hold_until),
    "MT-PRIORITY": ("MT-PRIORITY", _priority),
}
_RCPT: dict[str, tuple[str, Reader]] = {
    "NOTIFY": ("DSN", _notify),
    "ORCPT": ("DSN", _orcpt),
}


def is_xtext(text: str) -> bool:
    """RFC 3461 §4: printable ASCII, + and = as +2B and +3D."""
    return _XTEXT.fullmatch(text) is not None


def from_xtext(text: str) -> str:
    """What `text` stands for; octets beyond ASCII as UTF-8, else as �."""
    if "+" not in text:
        return text
    return _HEX.sub(lambda match: chr(int(match[1], 16)), text).encode("latin-1", "replace").decode("utf-8", "replace")
