"""who may look, who may act: the rules of the monitor's port

Pure: told the time, the tokens and what a request says of itself.

Rules    - A token opens everything that it is for, from anywhere: `Authorization:
           Bearer …`, or the cookie that POST /login gave for it.
         - Without one, a client on this machine may look. It is on this machine when
           its address is, and no header says that somebody else asks through it.
         - Nobody acts without the acting token. Message content is for that token too.
         - The host that a request names is a name of loopback, or of one of `origins`:
           a foreign page whose name was pointed at us reads nothing. A request that
           shows the token itself may name any: no page knows it.
         - What a browser sends on behalf of a foreign page (Origin) is refused where
           it acts and where it opens a websocket.
Promise  tokens are compared in constant time, and stand in no URL, page or event. A
         cookie holds no token: what it may do, until when, and a MAC keyed by the
         token, so that it outlives a restart and ends with the token.
Bounds   wrong tokens: WRONG for each client; then none of its tokens is looked at for a
         while. REVOKED cookies that were logged out are remembered (`sessions`).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from tripost.gateway.windows import Rate, Windows

May = Literal["nothing", "look", "act"]

WRONG = Rate(10, 60.0)
REFUSED = Rate(60, 60.0)  # 401s for each client that come without delay
SLOW = 2.0  # seconds that others take
SESSION = 12 * 3600.0  # seconds
REVOKED = 10_000
LEAST_TOKEN = 16  # characters
COOKIE = "tripost"
SECURE_COOKIE = "__Host-tripost"
CONTEXT = b"tripost monitor session v1"
_THROUGH = ("forwarded", "x-real-ip", "via", "cf-connecting-ip", "true-client-ip", "x-client-ip")


class Tokens(msgspec.Struct, frozen=True):
    """As their files have them; "" where there is none."""

    act: str = ""
    look: str = ""


class Asker(msgspec.Struct, frozen=True, kw_only=True):
    """Who makes a request. `client` is "" for a Unix socket."""

    client: str
    loopback: bool
    secure: bool


class Verdict(msgspec.Struct, frozen=True):
    """`status` 0: it may go on, and do what `may` says; else what to answer, and `why`. `who`: for the audit trail."""

    may: May = "nothing"
    who: str = ""
    status: int = 0
    why: str = ""
    wait: float = 0.0  # until it makes sense to ask again


NO_TOKEN = "a token is needed: Authorization: Bearer …, or log in"


class Doorman:
    """`random(n)` gives n octets nobody can guess; `origins` are written as a browser does: scheme://host[:port];
    `revoked`: cookies that were logged out before, as `revoke` gave them."""

    def __init__(
        self, tokens: Tokens, origins: list[str], random: Callable[[int], bytes], revoked: Iterable[str] = ()
    ) -> None:
        self.become(tokens, origins)
        self._random = random
        self._wrong = Windows(WRONG)
        self._refused = Windows(REFUSED)
        self._revoked: OrderedDict[str, None] = OrderedDict.fromkeys(revoked)

    def become(self, tokens: Tokens, origins: list[str]) -> None:
        """From now on; sessions end with the token that they were given for."""
        self._tokens = tokens
        self._origins = frozenset(one.lower().rstrip("/") for one in origins)
        self._hosts = frozenset(urlsplit(one).netloc.lower() for one in origins)

    @property
    def login(self) -> bool:
        """Is there a token at all?"""
        return bool(self._tokens.act or self._tokens.look)

    # --- a request ---

    def judge(self, asker: Asker, headers: Mapping[str, str], now: float) -> Verdict:
        """What a request may do, before anybody looks at its path."""
        may, who, verdict = self._shown(asker, headers, now)
        if verdict is not None:
            return verdict
        if may == "nothing" and asker.loopback and not _through(headers):
            may, who = "look", f"monitor, from {asker.client or 'a Unix socket'}"
        if may == "nothing":
            return Verdict(status=401, why=NO_TOKEN, wait=self._pace(asker, now))
        if "authorization" not in headers and not self._known_host(headers.get("host", "")):
            return Verdict(status=403, why="this Host is neither loopback nor one of [monitor] origins")
        return Verdict(may, who)

    def _shown(self, asker: Asker, headers: Mapping[str, str], now: float) -> tuple[May, str, Verdict | None]:
        """What its token or cookie says; a wrong token is told, an old cookie counts as none."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme:
            if scheme.lower() != "bearer":
                return "nothing", "", Verdict(status=401, why=NO_TOKEN, wait=self._pace(asker, now))
            verdict = self.check(asker, token.strip(), now)
            return verdict.may, verdict.who, verdict if verdict.status else None
        cookie = self.cookie(headers.get("cookie", ""), secure=asker.secure)
        may = self._cookie_says(cookie, now) if cookie else "nothing"
        return may, f"monitor session, from {asker.client}" if may != "nothing" else "", None

    def shown(self, asker: Asker, headers: Mapping[str, str], now: float) -> May:
        """What the token or cookie of a request opens now; nobody is counted for it, or slowed."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme:
            return self._opens(token.strip())
        cookie = self.cookie(headers.get("cookie", ""), secure=asker.secure)
        return self._cookie_says(cookie, now) if cookie else "nothing"

    def _opens(self, token: str) -> May:
        given = token.encode()
        act = hmac.compare_digest(given, self._tokens.act.encode()) and bool(self._tokens.act)
        look = hmac.compare_digest(given, self._tokens.look.encode()) and bool(self._tokens.look)
        return "act" if act else "look" if look else "nothing"

    def check(self, asker: Asker, token: str, now: float) -> Verdict:
        """What a token opens; `status` 401 for a wrong one, 429 where too many were wrong."""
        wait = self._wrong.wait(asker.client, now)
        if wait:
            return Verdict(status=429, why="too many wrong tokens", wait=wait)
        may = self._opens(token)
        if may != "nothing":
            self._wrong.forget(asker.client)
            return Verdict(may, f"monitor token, from {asker.client or 'a Unix socket'}")
        self._wrong.add(asker.client, now)
        return Verdict(status=401, why="wrong token")

    def _pace(self, asker: Asker, now: float) -> float:
        """Seconds before a 401 is told: whoever asks on and on is slowed."""
        wait = self._refused.take(asker.client, now)
        return min(wait, SLOW)

    def _known_host(self, host: str) -> bool:
        host = host.lower()
        if host in self._hosts:
            return True
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        if name in ("localhost", "localhost.") or name.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def foreign(self, asker: Asker, headers: Mapping[str, str]) -> str:
        """Why what a browser sends is refused where it acts or opens a websocket; "" when it is not."""
        origin = headers.get("origin", "").lower()
        if not origin:
            cookie = self.cookie(headers.get("cookie", ""), secure=asker.secure)
            if headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none") and not (
                cookie and "authorization" not in headers
            ):
                return ""
            return "a request with a cookie must tell its Origin"
        own = f"{'https' if asker.secure else 'http'}://{headers.get('host', '').lower()}"
        if origin == own or origin in self._origins:
            return ""
        return "this Origin is foreign: it is not one of [monitor] origins"

    def secure(self, asker: Asker, headers: Mapping[str, str]) -> bool:
        """May a cookie be for TLS only? So it is, or a proxy says TLS for an origin that is configured."""
        origin = headers.get("origin", "").lower()
        return asker.secure or (origin.startswith("https://") and origin in self._origins)

    # --- sessions ---

    def session(self, may: May, now: float) -> str:
        """A cookie's value."""
        head = f"{may}.{int(now + SESSION)}.{self._random(12).hex()}"
        return f"{head}.{self._mac(may, head)}"

    def _mac(self, may: str, head: str) -> str:
        key = self._tokens.act if may == "act" else self._tokens.look
        return hmac.new(key.encode(), CONTEXT + head.encode(), hashlib.sha256).hexdigest()

    def _cookie_says(self, value: str, now: float) -> May:
        head, _, mac = value.rpartition(".")
        may, _, rest = head.partition(".")
        until, _, _ = rest.partition(".")
        if may not in ("act", "look") or not (self._tokens.act if may == "act" else self._tokens.look):
            return "nothing"
        if not mac.isascii() or not hmac.compare_digest(mac, self._mac(may, head)):
            return "nothing"
        if int(until) <= now or head in self._revoked:
            return "nothing"
        return "act" if may == "act" else "look"

    def revoke(self, headers: Mapping[str, str], now: float, *, secure: bool) -> str:
        """The cookie of a request is good no more. What to remember of it; "" where there is none."""
        value = self.cookie(headers.get("cookie", ""), secure=secure)
        if not value or self._cookie_says(value, now) == "nothing":
            return ""
        head = value.rpartition(".")[0]
        self._revoked[head] = None
        if len(self._revoked) > REVOKED:
            self._revoked.popitem(last=False)
        return head

    @property
    def revoked(self) -> list[str]:
        """The oldest first."""
        return list(self._revoked)

    @staticmethod
    def cookie(header: str, *, secure: bool) -> str:
        """Ours, of those in a Cookie header; "". Where the connection is not `secure` a proxy's may be."""
        found: dict[str, str] = {}
        for pair in header.split(";"):
            name, _, value = pair.strip().partition("=")
            found.setdefault(name, value)
        plain = "" if secure else found.get(COOKIE, "")
        return found.get(SECURE_COOKIE, plain)

    @staticmethod
    def set_cookie(value: str, *, secure: bool) -> str:
        """A Set-Cookie header; "" ends the session."""
        name = SECURE_COOKIE if secure else COOKIE
        age = int(SESSION) if value else 0
        return f"{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")


def _through(headers: Mapping[str, str]) -> bool:
    """Does somebody else ask through the client?"""
    return any(name in _THROUGH or name.startswith("x-forwarded") for name in headers)
