"""what a trusted proxy says of the client behind it: XCLIENT and XFORWARD

NAME=value pairs in xtext, as Postfix documents them (XCLIENT_README and
XFORWARD_README). [UNAVAILABLE] and [TEMPUNAVAIL] mean that it is not known.

Fails    `ClaimError` for a name that does not belong to the command, and for a
         value that cannot be one.
"""

from __future__ import annotations

import ipaddress
import re

from tripost.delivery.wire.parameters import from_xtext, is_xtext
from tripost.gateway.ingress.terms import XCLIENT_NAMES, XFORWARD_NAMES

VALUE_LIMIT = 255
_NAMES = {"XCLIENT": frozenset(XCLIENT_NAMES), "XFORWARD": frozenset(XFORWARD_NAMES)}
_UNKNOWN = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})
_PORT = re.compile(r"[0-9]{1,5}")


class ClaimError(ValueError):
    """The text says what is wrong."""


def read_claim(verb: str, text: str) -> dict[str, str | None]:
    """The attributes, names in upper case; None where the proxy does not know. Raises ClaimError."""
    found: dict[str, str | None] = {}
    for word in text.split(" "):
        name, equals, value = word.partition("=")
        name = name.upper()
        if not equals or name not in _NAMES[verb]:
            raise ClaimError(f"syntax: {verb} name=value …, the names that EHLO announces")
        if name in found:
            raise ClaimError(f"{name} given twice")
        found[name] = _value(name, value)
    return found


def _value(name: str, value: str) -> str | None:
    if value.upper() in _UNKNOWN:
        return None
    if not value or not is_xtext(value):
        raise ClaimError(f"{name} must be xtext, or [UNAVAILABLE]")
    plain = from_xtext(value)
    if len(plain) > VALUE_LIMIT or not plain.isprintable():
        raise ClaimError(f"{name} has no value that can be used")
    if name in ("ADDR", "DESTADDR"):
        return _address(name, plain)
    if name in ("PORT", "DESTPORT") and (not _PORT.fullmatch(plain) or int(plain) > 65_535):
        raise ClaimError(f"{name} must be a port")
    if name == "PROTO" and plain.upper() not in ("SMTP", "ESMTP"):
        raise ClaimError("PROTO must be SMTP or ESMTP")
    if name == "SOURCE" and plain.upper() not in ("LOCAL", "REMOTE"):
        raise ClaimError("SOURCE must be LOCAL or REMOTE")
    return plain


def _address(name: str, text: str) -> str:
    if text[:5].upper() == "IPV6:":
        text = text[5:]
    try:
        if "%" in text:
            raise ValueError("a scope")
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ClaimError(f"{name} must be an IP address") from None
