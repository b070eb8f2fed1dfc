"""mail addresses and paths

RFC 5321 §4.1.2 and RFC 6531 §3.3: what stands between < and > after MAIL FROM
and RCPT TO. The domain is kept lower-case, the local part as it came. With
SMTPUTF8 a domain in U-labels is kept so, in NFC; `ascii_form` gives the address
with A-labels, by which mail is routed.

Fails    `AddressError` with a text that says what is wrong, and an enhanced
         code where a special one fits.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import lru_cache

LOCAL_LIMIT = 64  # octets, RFC 5321 §4.5.3.1.1
DOMAIN_LIMIT = 255  # §4.5.3.1.2
PATH_LIMIT = 256  # §4.5.3.1.3, with its brackets
NEEDS_UTF8 = "5.6.7"  # RFC 6531 §3.5

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_ATOM8 = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
_LABELS = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_DOT_STRING8 = re.compile(rf"{_ATOM8}(?:\.{_ATOM8})*")
_QUOTED = re.compile(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*"')
_QUOTED8 = re.compile(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e\u0080-\U0010ffff]|\\[\x20-\x7e])*"')
_LABEL = re.compile(_LABELS)
_ROUTE = re.compile(r"@[^:@]+(?:,@[^:@]+)*:")
# what nearly every path is; everything else takes the long way with the same result
_PLAIN = re.compile(rf"<({_ATOM}(?:\.{_ATOM})*)@({_LABELS}(?:\.{_LABELS})*)>")


class AddressError(ValueError):
    """No address; the text says why. `enhanced` is "" where the general code of the command fits."""

    def __init__(self, text: str, enhanced: str = "") -> None:
        super().__init__(text)
        self.enhanced = enhanced


def split(address: str) -> tuple[str, str]:
    """(local part, domain); the domain is "" where there is none."""
    local, at, domain = address.rpartition("@")
    return (local, domain) if at else (address, "")


def ascii_form(address: str) -> str:
    """The same address with its domain in A-labels; the local part stays as it is."""
    if address.isascii():
        return address
    local, domain = split(address)
    return f"{local}@{check_domain(domain)}" if domain else address


def parse_address(text: str, *, utf8: bool = False) -> str:
    """Check local@domain and give its kept form; without `utf8` that is ASCII."""
    local, at, domain = text.rpartition("@")
    if not at:
        raise AddressError("the address has no domain")
    if not (utf8 or local.isascii()):
        raise AddressError("the local part is not ASCII", NEEDS_UTF8)
    return f"{_check_local(local)}@{_kept_domain(domain) if utf8 else check_domain(domain)}"


def _check_local(local: str) -> str:
    if len(local.encode()) > LOCAL_LIMIT:
        raise AddressError(f"the local part is longer than {LOCAL_LIMIT} octets")
    plain, quoted = (_DOT_STRING, _QUOTED) if local.isascii() else (_DOT_STRING8, _QUOTED8)
    if not (plain.fullmatch(local) or quoted.fullmatch(local)) or not _harmless(local):
        raise AddressError("the local part is malformed")
    return local


def _harmless(text: str) -> bool:
    """No control character hides among the letters beyond ASCII."""
    return text.isascii() or text.isprintable()


def check_domain(domain: str) -> str:
    """A host name or an address literal, lower-case, in A-labels."""
    if domain.startswith("["):
        return _check_literal(domain)
    if not domain.isascii():
        domain = _a_labels(domain)
    if len(domain) > DOMAIN_LIMIT:
        raise AddressError(f"the domain is longer than {DOMAIN_LIMIT} octets")
    if not all(_LABEL.fullmatch(label) for label in domain.split(".")):
        raise AddressError("the domain is malformed")
    return domain.lower()


@lru_cache(maxsize=1024)
def _a_labels(domain: str) -> str:
    import idna  # large tables, for few domains

    try:
        return idna.encode(domain, uts46=True, std3_rules=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise AddressError("the domain is no internationalised name") from None


def _kept_domain(domain: str) -> str:
    """In U-labels as it came, where it is one (RFC 6531 §3.3); checked by its A-labels."""
    ascii_domain = check_domain(domain)
    return ascii_domain if domain.isascii() else unicodedata.normalize("NFC", domain).lower()


def _check_literal(domain: str) -> str:
    inner = domain[1:-1]
    if not domain.endswith("]"):
        raise AddressError("the address literal has no end")
    try:
        if inner[:5].lower() == "ipv6:":
            if "%" in inner:
                raise ValueError("a scope")
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        raise AddressError("the address literal is malformed") from None


def parse_path(text: str, *, null: bool = False, utf8: bool = False) -> tuple[str, str]:
    """`<address>` at the beginning of `text` → (address, what follows it).

    `null` allows <>; <postmaster> (any case) needs no domain (RFC 5321 §4.1.1.3). A source route is
    read and ignored (§4.1.1.3, appendix F.2).
    """
    plain = _PLAIN.match(text)
    if plain is not None:
        local, domain = plain[1], plain[2]
        if len(local) <= LOCAL_LIMIT and len(local) + len(domain) + 3 <= PATH_LIMIT:
            return f"{local}@{domain.lower()}", text[plain.end() :]
    if not text.startswith("<"):
        raise AddressError("the address must stand between < and >")
    end = _end_of_path(text)
    if end < 0:
        raise AddressError("the address has no closing >")
    inner, rest = text[1:end], text[end + 1 :]
    if len(inner.encode()) + 2 > PATH_LIMIT:
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
    if not (utf8 or inner.isascii()):
        raise AddressError("the address is not ASCII, and SMTPUTF8 was not asked for", NEEDS_UTF8)
    return parse_address(inner, utf8=utf8), rest


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
