"""the monitor's port: who asks for what, and who answers

Every connection of a `monitor` listener comes here: its requests are judged
(`auth`), then given to whoever is registered for their path.

API      `route(path, answer)` and `route(prefix + "*", answer)` for HTTP, `feed(path, serve)`
         for websockets; both get the request and what it may do.
Bounds   CONNECTIONS at a time, of which FEEDS are websockets; the rest as in `http`.
Order    /healthz and /readyz are open to all, and say one word; everything else is
         judged before anybody looks whether it is there.
Promise  a websocket is closed when what it was opened with is good no more: a session
         that logged out or is over, a token that a reload changed (`judge_again`).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast
from urllib.parse import parse_qs

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest
from wsproto.utilities import ProtocolError

from tripost.gateway.monitor.auth import Asker, Doorman, May, Verdict
from tripost.gateway.monitor.http import Request, Response, Upgrade, converse, problem
from tripost.gateway.monitor.provider import Sources
from tripost.gateway.monitor.wire import Wire
from tripost.gateway.peer import Peer

CONNECTIONS = 1000
FEEDS = 500
GOING_AWAY, POLICY = 1001, 1008
PARTING = 1.0
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
LOGIN_PAGE = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Log in</title>
<h1>Log in</h1>
<form method="post" action="/login">
<p><label>Token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<p><button>Log in</button>
</form></html>
"""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and what for. `who` is for the audit trail; `shown`: what its token or cookie opens."""

    may: May
    who: str
    asker: Asker
    shown: May = "nothing"

    @property
    def acts(self) -> bool:
        return self.may == "act"


Handler = Callable[[Request, Caller], Awaitable[Response]]
Serve = Callable[[WebSocketConnection, Wire, Request, Caller], Awaitable[None]]
Check = Callable[[Request, Caller], str]
Keep = Callable[[str], Awaitable[None]]


async def _forget(session: str) -> None:
    """Sessions that are logged out are known until the gateway ends."""


class Server:
    """Of one gateway."""

    def __init__(self, sources: Sources, doorman: Doorman, keep: Keep = _forget) -> None:
        """`keep` stores a session that was logged out; raises OSError."""
        self._from = sources
        self._doorman = doorman
        self._keep = keep
        self._shown: dict[trio.CancelScope, tuple[May, Request, Asker]] = {}  # websockets: what opened them
        self._routes: dict[str, Handler] = {}
        self._feeds: dict[str, tuple[Serve, Check]] = {}
        self._open = 0
        self.feeds = 0
        self.route("/login", self._login)
        self.route("/logout", self._logout)

    def route(self, path: str, answer: Handler) -> None:
        """`answer` gets GET and HEAD of who may look, and POST of who may act; a path that ends with * is a prefix."""
        self._routes[path] = answer

    def feed(self, path: str, serve: Serve, check: Check = lambda request, caller: "") -> None:
        """`check` says why a request is refused, "" when it is not."""
        self._feeds[path] = serve, check

    # --- a connection ---

    async def serve(self, stream: trio.abc.Stream, peer: Peer) -> None:
        """From its first octet to its end."""
        asker = Asker(client=peer.client, loopback=peer.loopback, secure=peer.tls is not None)
        wire = Wire(stream)

        async def answer(request: Request) -> Response | Upgrade:
            return await self._answer(request, asker)

        async def full(request: Request) -> Response | Upgrade:
            return problem(503, "too many connections to the monitor", Retry_After="5")

        self._open += 1
        try:
            await converse(wire, answer if self._open <= CONNECTIONS else full, self._from.draining.waiting)
        except* (ProtocolError, ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # what it sent was no websocket's, or it went away
        finally:
            self._open -= 1
            await wire.aclose()

    async def _answer(self, request: Request, asker: Asker) -> Response | Upgrade:
        word = self._word(request)
        if word is not None:
            return word
        now = trio.current_time()
        verdict = self._doorman.judge(asker, request.headers, self._from.now())
        if request.path == "/login" and verdict.status == 401:
            return await self._knock(request, asker)
        if verdict.status:
            if verdict.status == 401 and verdict.wait:
                await trio.sleep_until(now + verdict.wait)
            return refusal(verdict, request)
        shown = self._doorman.shown(asker, request.headers, self._from.now())
        caller = Caller(may=verdict.may, who=verdict.who, asker=asker, shown=shown)
        acts = request.method not in ("GET", "HEAD")
        if (acts or request.upgrade) and (why := self._doorman.foreign(asker, request.headers)):
            return problem(403, why)
        if request.upgrade:
            return self._upgrade(request, caller)
        return await self._routed(request, caller, acts)

    def _word(self, request: Request) -> Response | None:
        """The two pages that are open to all."""
        if request.path not in ("/healthz", "/readyz") or request.method not in ("GET", "HEAD"):
            return None
        if request.path == "/healthz":
            return Response(kind=TEXT, body=b"draining\n" if self._from.draining.begun else b"ok\n")
        ready = not self._from.unready()
        return Response(status=200 if ready else 503, kind=TEXT, body=b"ready\n" if ready else b"not ready\n")

    async def _routed(self, request: Request, caller: Caller, acts: bool) -> Response:
        if acts and not caller.acts and request.path not in ("/login", "/logout"):
            if "authorization" in request.headers:
                return problem(403, "this token may look, not act")
            return refusal(Verdict(status=401, why="to act takes the token of [monitor] token_file"), request)
        if acts and request.method != "POST":
            return problem(405, f"no {request.method}; GET looks, POST acts", Allow="GET, HEAD, POST")
        handler = self._routes.get(request.path)
        if handler is None:
            prefixes = [path for path in self._routes if path.endswith("*") and request.path.startswith(path[:-1])]
            if prefixes:
                handler = self._routes[max(prefixes, key=len)]
        if handler is None:
            return problem(404, "there is no such page")
        return await handler(request, caller)

    # --- websockets ---

    def judge_again(self) -> None:
        """Close those whose token or session is good no more."""
        for scope, (may, request, asker) in list(self._shown.items()):
            if self._doorman.shown(asker, request.headers, self._from.now()) != may:
                scope.cancel()

    def _upgrade(self, request: Request, caller: Caller) -> Response | Upgrade:
        found = self._feeds.get(request.path)
        if found is None:
            return problem(404, "there is no such websocket")
        serve, check = found
        if self.feeds >= FEEDS:
            return problem(503, f"{FEEDS} websockets are open, as many as there may be", Retry_After="5")
        if request.method != "GET" or "sec-websocket-key" not in request.headers:
            return problem(400, "not a websocket's handshake (RFC 6455)")
        why = check(request, caller)
        if why:
            return problem(400, why)

        async def run(handshake: WebSocketRequest, wire: Wire) -> None:
            await self._run(handshake, wire, serve, request, caller)

        return Upgrade(run)

    async def _run(
        self, handshake: WebSocketRequest, wire: Wire, serve: Serve, request: Request, caller: Caller
    ) -> None:
        if self.feeds >= FEEDS:
            await handshake.reject(503, body=b"too many websockets\n")
            return
        scope = trio.CancelScope()
        self.feeds += 1
        self._shown[scope] = caller.shown, request, caller.asker
        try:
            wire.narrow()
            socket = await handshake.accept()
            with scope, self._from.draining.waiting(math.inf), suppress(ConnectionClosed):
                await serve(socket, wire, request, caller)
            code, why = GOING_AWAY, "the gateway is stopping" if self._from.draining.begun else None
            if scope.cancelled_caught:
                code, why = POLICY, "log in again"
            with trio.move_on_after(PARTING, shield=True):
                await socket.aclose(code, why)
        finally:
            self.feeds -= 1
            del self._shown[scope]

    # --- sessions ---

    async def _knock(self, request: Request, asker: Asker) -> Response:
        """POST /login of somebody who may do nothing yet."""
        if request.method != "POST":
            return refusal(Verdict(status=401, why="POST the token"), request)
        if why := self._doorman.foreign(asker, request.headers):
            return problem(403, why)
        return await self._login(request, Caller(may="nothing", who="", asker=asker))

    async def _login(self, request: Request, caller: Caller) -> Response:
        if request.method != "POST":
            return problem(405, "POST the token", Allow="POST")
        form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        token = _token(request.body, form=form)
        if token is None:
            return problem(400, 'not understood; send {"token": "…"}')
        now = self._from.now()
        verdict = self._doorman.check(caller.asker, token, now)
        if verdict.status:
            return refusal(verdict, request)
        secure = self._doorman.secure(caller.asker, request.headers)
        cookie = "Set-Cookie", self._doorman.set_cookie(self._doorman.session(verdict.may, now), secure=secure)
        if form:
            return Response(status=303, headers=(cookie, ("Location", "/")))
        return Response(status=204, headers=(cookie,))

    async def _logout(self, request: Request, caller: Caller) -> Response:
        if request.method != "POST":
            return problem(405, "POST, without a body", Allow="POST")
        secure = self._doorman.secure(caller.asker, request.headers)
        gone = "Set-Cookie", self._doorman.set_cookie("", secure=secure)
        session = self._doorman.revoke(request.headers, self._from.now(), secure=caller.asker.secure)
        self.judge_again()
        try:
            if session:
                await self._keep(session)
        except OSError as wrong:
            why = f"logged out until the gateway is restarted: {wrong.strerror}"
            return Response(status=503, body=msgspec.json.encode({"error": why}), headers=(gone,))
        return Response(status=204, headers=(gone,))


def refusal(verdict: Verdict, request: Request) -> Response:
    """What somebody is told who may not; a browser gets a form to log in with."""
    headers: list[tuple[str, str]] = []
    if verdict.status == 401:
        headers.append(("WWW-Authenticate", 'Bearer realm="tripost"'))
    if verdict.status == 429:
        headers.append(("Retry-After", str(math.ceil(verdict.wait))))
    if verdict.status == 401 and request.path == "/" and "text/html" in request.headers.get("accept", ""):
        return Response(status=401, kind=HTML, body=LOGIN_PAGE, headers=tuple(headers))
    body = msgspec.json.encode({"error": verdict.why})
    return Response(status=verdict.status, body=body, headers=tuple(headers))


def _token(body: bytes, *, form: bool) -> str | None:
    """Of a login; None where there is none."""
    found: Any
    try:
        if form and not body.startswith(b"{"):  # as curl -d would have it
            found = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=4).get("token", [None])[0]
        else:
            read = msgspec.json.decode(body)
            found = cast("dict[str, Any]", read).get("token") if isinstance(read, dict) else None
    except (ValueError, msgspec.DecodeError):
        return None
    return found if isinstance(found, str) and found else None
