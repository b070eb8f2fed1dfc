"""mail addresses and paths

RFC 5321 §4.1.2: what stands between < and > after MAIL FROM and RCPT TO. The
domain is kept lower-case and in its A-label form; the local part as it came.

Fails    `AddressError` with a text that says what is wrong.
"""

from __future__ import annotations

import ipaddress
import re

LOCAL_LIMIT = 64  # octets, RFC 5321 §4.5.3.1.1
DOMAIN_LIMIT = 255  # §4.5.3.1.2
PATH_LIMIT = 256  # §4.5.3.1.3, with its brackets

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED = re.compile(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"')
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_ROUTE = re.compile(r"@[^:@]+(?:,@[^:@]+)*:")


class AddressError(ValueError):
    """No address; the text says why."""


def split(address: str) -> tuple[str, str]:
    """(local part, domain); the domain is "" where there is none."""
    local, at, domain = address.rpartition("@")
    return (local, domain) if at else (address, "")


def parse_address(text: str) -> str:
    """Check local@domain and give its kept form."""
    local, at, domain = text.rpartition("@")
    if not at:
        raise AddressError("the address has no domain")
    return f"{_check_local(local)}@{check_domain(domain)}"


def _check_local(local: str) -> str:
    if len(local.encode()) > LOCAL_LIMIT:
        raise AddressError(f"the local part is longer than {LOCAL_LIMIT} octets")
    if not local.isascii():
        raise AddressError("the local part is not ASCII, and SMTPUTF8 is not offered")
    if not (_DOT_STRING.fullmatch(local) or _QUOTED.fullmatch(local)):
        raise AddressError("the local part is malformed")
    return local


def check_domain(domain: str) -> str:
    """A host name or an address literal, lower-case, in A-labels."""
    if domain.startswith("["):
        return _check_literal(domain)
    if not domain.isascii():
        try:
            domain = domain.encode("idna").decode("ascii")
        except UnicodeError:
            raise AddressError("the domain is no internationalised name") from None
    if len(domain) > DOMAIN_LIMIT:
        raise AddressError(f"the domain is longer than {DOMAIN_LIMIT} octets")
    if not all(_LABEL.fullmatch(label) for label in domain.split(".")):
        raise AddressError("the domain is malformed")
    return domain.lower()


def _check_literal(domain: str) -> str:
    inner = domain[1:-1]
    if not domain.endswith("]"):
        raise AddressError("the address literal has no end")
    try:
        if inner[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        raise AddressError("the address literal is malformed") from None


def parse_path(text: str, *, null: bool = False) -> tuple[str, str]:
    """`<address>` at the beginning of `text` → (address, what follows it).

    `null` allows <>; <postmaster> (any case) needs no domain (RFC 5321 §4.1.1.3). A source route is
    read and ignored (§4.1.1.3, appendix F.2).
    """
    if not text.startswith("<"):
        raise AddressError("the address must stand between < and >")
    end = _end_of_path(text)
    if end < 0:
        raise AddressError("the address has no closing >")
    inner, rest = text[1:end], text[end + 1 :]
    if end + 1 > PATH_LIMIT:
        raise AddressError(f"the path is longer than {PATH_LIMIT} octets")
    if not inner:
        if null:
            return "", rest
        raise AddressError("the address is empty")
    route = _ROUTE.match(inner)
    if route is not None:
        inner = inner[route.end() :]
    if inner.lower() == "postmaster" and not null:
        return "postmaster", rest
    return parse_address(inner), rest


def _end_of_path(text: str) -> int:
    """Where the > is that no quoted string hides."""
    quoted = escaped = False
    for at, one in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and one == "\\":
            escaped = True
        elif one == '"':
            quoted = not quoted
        elif one == ">" and not quoted:
            return at
    return -1
