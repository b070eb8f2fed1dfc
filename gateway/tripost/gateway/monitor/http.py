"""HTTP/1.1 for the monitor: requests in, responses out, upgrades handed on

h11 reads; what it read of a request that asks for a websocket is replayed to
trio-websocket, which answers it.

API      `converse(wire, answer)`: `answer(request)` gives a `Response`, or an `Upgrade`
         for a request that asks for one.
Bounds   HEAD octets of a request's head and BODY of its body, each within PATIENCE s;
         a connection that asks nothing for IDLE s is closed.
Fails    what is not HTTP is answered with 400 (413, 431) and closed; nothing a client
         sends raises.
"""

from __future__ import annotations

import http
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Protocol
from urllib.parse import parse_qsl

import h11
import msgspec
import trio
from trio_websocket import WebSocketRequest, wrap_server_stream

from tripost.gateway.monitor.wire import Wire

HEAD = 16 << 10
BODY = 64 << 10
PATIENCE = 10.0
IDLE = 60.0
MESSAGE = 4 << 10  # octets of a websocket message from a client
READ = 32 << 10

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
# for every response: nothing is loaded from elsewhere, nothing may frame it or guess its type
STRICT: tuple[tuple[str, str], ...] = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`headers` by their names in lower case, repeated ones joined by ", "; `query` as it came, its names once each."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    upgrade: bool = False


class Rows(Protocol):
    """A body in pieces. `aclose` comes in any case, and may come before any piece was asked for."""

    def pieces(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """`headers` in place of STRICT's of the same name; `rows`: the body in pieces, sent as they come, and closed."""

    status: int = 200
    kind: str = JSON
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    rows: Rows | None = None
    close: bool = False


class Upgrade(msgspec.Struct, frozen=True):
    """`serve` gets the websocket once it is accepted."""

    serve: Callable[[WebSocketRequest, Wire], Awaitable[None]]


Answer = Callable[[Request], Awaitable[Response | Upgrade]]
Waiting = Callable[[float], AbstractContextManager[trio.CancelScope]]  # a wait of so many seconds that a stop cuts


def problem(status: int, text: str, **headers: str) -> Response:
    """A refusal that says why."""
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Response(status=status, body=msgspec.json.encode({"error": text}), headers=pairs)


class _Conversation:
    """One connection."""

    def __init__(self, wire: Wire, waiting: Waiting) -> None:
        self.wire = wire
        self._waiting = waiting
        self.h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
        self.raw = b""  # of the request that is read

    async def event(self) -> h11.Event | type[h11.PAUSED]:
        """Raises RemoteProtocolError, BrokenResourceError."""
        while (found := self.h11.next_event()) is h11.NEED_DATA:
            if self.h11.they_are_waiting_for_100_continue:
                await self.wire.send_all(self.h11.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            data = await self.wire.receive_some(READ)
            if len(self.raw) <= HEAD + READ:
                self.raw += data
            self.h11.receive_data(data)
        return found  # type: ignore[return-value]

    async def request(self) -> Request | Response | None:
        """The next one; a Response where it has to be refused; None at the end."""
        try:
            with self._waiting(IDLE) as scope:
                while not self.raw:  # the first octet may be long in coming, the rest may not
                    data = await self.wire.receive_some(READ)
                    if not data:
                        return None
                    self.raw = data
                    self.h11.receive_data(data)
            if scope.cancelled_caught:
                return None
            with trio.fail_after(PATIENCE):
                head = await self.event()
                if not isinstance(head, h11.Request):
                    return None
                return await self._whole(head)
        except trio.TooSlowError:
            return problem(408, f"the request was not whole within {PATIENCE:g} s")
        except h11.RemoteProtocolError as wrong:
            return problem(wrong.error_status_hint, str(wrong))

    async def _whole(self, head: h11.Request) -> Request | Response:
        headers: dict[str, str] = {}
        for name, value in head.headers:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        path, _, query = head.target.decode("latin-1").partition("?")
        request = Request(
            method=head.method.decode("latin-1"),
            path=path,
            query=dict(parse_qsl(query, keep_blank_values=True, max_num_fields=64, errors="replace"))
            if query.count("&") < 64
            else {},
            headers=headers,
            upgrade="websocket" in headers.get("upgrade", "").lower(),
        )
        if request.upgrade:
            return request
        body = b""
        while not isinstance(event := await self.event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise h11.RemoteProtocolError("the connection ended within the body")
            body += bytes(event.data)
            if len(body) > BODY:
                return problem(413, f"a body may have {BODY} octets")
        return msgspec.structs.replace(request, body=body)

    async def respond(self, response: Response, head: bool) -> bool:
        """True when the connection can go on."""
        try:
            return await self._respond(response, head)
        finally:
            if response.rows is not None:
                with trio.CancelScope(shield=True):
                    await response.rows.aclose()

    async def _respond(self, response: Response, head: bool) -> bool:
        headers = dict(STRICT) | {"Cache-Control": "no-store"} | dict(response.headers)
        rows = response.rows
        bare = response.status in (204, 304)
        if not bare:
            headers["Content-Type"] = response.kind
            if rows is None:
                headers["Content-Length"] = str(len(response.body))
        if response.close or self.h11.their_state is not h11.DONE:
            headers["Connection"] = "close"
        reason = http.HTTPStatus(response.status).phrase
        send = self.h11.send
        out = (
            send(h11.Response(status_code=response.status, headers=list(headers.items()), reason=reason.encode()))
            or b""
        )
        if not head and not bare:
            if rows is not None:
                await self.wire.send_all(out)
                async for piece in rows.pieces():
                    await self.wire.send_all(send(h11.Data(data=piece)) or b"")
                out = b""
            else:
                out += send(h11.Data(data=response.body)) or b""
        out += send(h11.EndOfMessage()) or b""
        await self.wire.send_all(out)
        if self.h11.our_state is not h11.DONE or self.h11.their_state is not h11.DONE:
            return False
        self.raw = self.h11.trailing_data[0]
        self.h11.start_next_cycle()
        return True


async def converse(wire: Wire, answer: Answer, waiting: Waiting = trio.move_on_after) -> None:
    """One connection to its end."""
    talk = _Conversation(wire, waiting)
    try:
        going = True
        while going:
            request = await talk.request()
            if request is None:
                return
            if isinstance(request, Response):
                await talk.respond(request, head=False)
                break
            found = await answer(request)
            if isinstance(found, Upgrade):
                wire.replay(talk.raw)
                await _upgrade(wire, found)
                return
            going = await talk.respond(found, head=request.method == "HEAD")
        await wire.farewell()
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
        return  # it went away, or takes nothing


async def _upgrade(wire: Wire, upgrade: Upgrade) -> None:
    """The websocket's whole life. Whatever a client sends ends its own only."""
    async with trio.open_nursery() as nursery:
        request: WebSocketRequest | None = None
        with trio.move_on_after(PATIENCE):
            request = await wrap_server_stream(nursery, wire, max_message_size=MESSAGE)
        if request is not None:
            await upgrade.serve(request, wire)
        nursery.cancel_scope.cancel()
