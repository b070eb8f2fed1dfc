"""TLS for those whom we connect to

API      `ClientTls(...)` is one for all connections: `wants(level, host)` says
         whether to ask for STARTTLS, `handshake(stream, level, host)` gives the
         secured stream, `keep(stream, …)` remembers its session for the next.
States   of a host: unknown, or broken until a time: its TLS failed where we did
         not insist on it, and it is spoken to in plain text meanwhile.
Promise  "may" takes whatever certificate there is: encryption without a proof is
         better than none (RFC 7435). "verify" wants one that names the host, from
         an authority that this machine trusts. One handshake ends in SECONDS.
Bounds   MOST hosts are remembered; the one not used for longest goes.
Fails    `TlsFailed` with a reason; the stream is of no use then.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections import OrderedDict
from collections.abc import Callable

import trio

SECONDS = 60.0
BROKEN = 3600.0  # seconds for which a host's broken TLS is remembered
MOST = 10_000

Secured = trio.SSLStream[trio.abc.Stream]


class TlsFailed(Exception):
    """No TLS with this host; the text says why."""


class ClientTls:
    """`now` is any clock that goes forward; `trusted` is what "verify" trusts, by default the system's authorities."""

    def __init__(self, now: Callable[[], float], trusted: ssl.SSLContext | None = None) -> None:
        self._now = now
        self.trusted = trusted
        self._any: ssl.SSLContext | None = None
        self._broken: OrderedDict[str, float] = OrderedDict()
        self._sessions: OrderedDict[tuple[bool, str], ssl.SSLSession] = OrderedDict()

    def wants(self, level: str, host: str) -> bool:
        """Is STARTTLS to be asked for where it is offered?"""
        if level == "may":
            return self._broken.get(host, 0.0) <= self._now()
        return level != "none"

    def broken(self, host: str) -> None:
        """TLS with the host failed."""
        self._broken[host] = self._now() + BROKEN
        self._broken.move_to_end(host)
        if len(self._broken) > MOST:
            self._broken.popitem(last=False)

    def _context(self, verify: bool) -> ssl.SSLContext:
        """Made once, when needed: reading the system's authorities takes tens of milliseconds."""
        if verify:
            if self.trusted is None:
                self.trusted = ssl.create_default_context()
            return self.trusted
        if self._any is None:
            self._any = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._any.check_hostname = False
            self._any.verify_mode = ssl.CERT_NONE
        return self._any

    async def handshake(self, stream: trio.abc.Stream, level: str, host: str) -> Secured:
        """Raises TlsFailed."""
        verify = level == "verify"
        try:
            secured = trio.SSLStream(stream, self._context(verify), server_hostname=_name(host), https_compatible=True)
            session = self._sessions.pop((verify, host), None)
            if session is not None:  # used once, as TLS 1.3 wants it (RFC 8446 §C.4)
                secured.session = session
            with trio.fail_after(SECONDS):
                await secured.do_handshake()
        except trio.TooSlowError:
            raise TlsFailed(f"no TLS handshake within {SECONDS:g} s") from None
        except (trio.BrokenResourceError, trio.ClosedResourceError) as wrong:
            raise TlsFailed(f"TLS handshake failed: {_why(wrong)}") from wrong
        except (ssl.SSLError, ValueError) as wrong:  # a name that cannot be one, or an unusable session
            raise TlsFailed(f"TLS handshake failed: {wrong}") from wrong
        return secured

    def keep(self, secured: Secured, level: str, host: str) -> None:
        """Remember the session, once something was read: a TLS 1.3 server sends its tickets late."""
        session = secured.session
        if session is not None:
            self._sessions[level == "verify", host] = session
            if len(self._sessions) > MOST:
                self._sessions.popitem(last=False)


def _name(host: str) -> str:
    """The name in a certificate: of an address literal the address."""
    literal = host.strip("[]").removeprefix("IPv6:")
    try:
        return str(ipaddress.ip_address(literal))
    except ValueError:
        return host


def _why(wrong: BaseException) -> str:
    cause = wrong.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return getattr(cause, "reason", None) or str(cause or wrong) or "the host hung up"
