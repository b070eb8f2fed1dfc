"""what a session may use at this moment, and what EHLO says of it

`Terms` is a value: the driver makes a new one when TLS begins, somebody logs in
or the client turns out to be another (XCLIENT). An extension is announced when
it is in `keywords`, and understood when it is in `keywords`: there is no second
list.

Source   the registry of EHLO keywords; RFC 5321 §4.1.1.1; RFC 2033 for LMTP.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from tripost.delivery.wire.replies import Reply

XCLIENT_NAMES = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
XFORWARD_NAMES = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")


class Terms(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """Hashable: replies that depend on it are made once."""

    hostname: str
    profile: str = "smtp"  # smtp | submission | lmtp
    message_size: int
    recipients: int  # of one message
    starttls: bool = False  # TLS may be begun
    secured: bool = False  # TLS runs
    need_tls: bool = False  # nothing is done without
    mechanisms: tuple[str, ...] = ()  # AUTH, usable now
    need_auth: bool = False  # no mail without
    authenticated: bool = False
    trusted: bool = False  # may relay: a relay network, or somebody who has logged in
    xclient: bool = False
    hold_most: int = 0  # FUTURERELEASE: seconds, 0 where it is not offered
    hold_until: str = ""  # its latest time, as in RFC 3339

    @property
    def lmtp(self) -> bool:
        return self.profile == "lmtp"


@lru_cache(maxsize=256)
def offers(terms: Terms) -> dict[str, str]:
    """Keyword → the rest of its line in the reply to EHLO."""
    found = {
        "PIPELINING": "",
        "SIZE": str(terms.message_size),
        "8BITMIME": "",
        "ENHANCEDSTATUSCODES": "",
        "SMTPUTF8": "",
        "CHUNKING": "",
        "BINARYMIME": "",
        "DSN": "",
        "DELIVERBY": "",
        "LIMITS": f"RCPTMAX={terms.recipients}",
    }
    if terms.starttls and not terms.secured:
        found["STARTTLS"] = ""
    if terms.mechanisms and not terms.authenticated:
        found["AUTH"] = " ".join(terms.mechanisms)
    if terms.secured:
        found["REQUIRETLS"] = ""  # RFC 8689 §2: only where TLS runs
    if terms.trusted:
        found["MT-PRIORITY"] = ""  # a stranger does not get ahead of others
        if terms.hold_most:
            found["FUTURERELEASE"] = f"{terms.hold_most} {terms.hold_until}"
    if terms.xclient:
        found["XCLIENT"] = " ".join(XCLIENT_NAMES)
        found["XFORWARD"] = " ".join(XFORWARD_NAMES)
    return found


@lru_cache(maxsize=256)
def keywords(terms: Terms) -> frozenset[str]:
    """What parameters of MAIL and RCPT may build on."""
    found = frozenset(offers(terms))
    # RFC 4954 §5: AUTH= is understood also by those who need not, or need no longer, log in
    return found | {"AUTH"} if terms.authenticated else found


@lru_cache(maxsize=256)
def greeting_octets(terms: Terms) -> bytes:
    return greeting(terms).encode()


@lru_cache(maxsize=256)
def hello_octets(terms: Terms, *, extended: bool) -> bytes:
    """The reply to EHLO and LHLO, or to HELO."""
    return (hello(terms) if extended else Reply(250, "", (terms.hostname,))).encode()


@lru_cache(maxsize=256)
def greeting(terms: Terms) -> Reply:
    return Reply(220, "", (f"{terms.hostname} {'LMTP' if terms.lmtp else 'ESMTP'} tripost",))


@lru_cache(maxsize=256)
def hello(terms: Terms) -> Reply:
    """The reply to EHLO and LHLO."""
    lines = [f"{name} {rest}".rstrip() for name, rest in offers(terms).items()]
    return Reply(250, "", (terms.hostname, *lines))
