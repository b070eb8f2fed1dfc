"""/api/v1: the control socket's verbs, over HTTP

Who looks may ask, who acts may do; what is refused is told as {"error": …} with a
status: 400 for what cannot be meant, 404 where nothing is found, 409 where it
cannot be done, 503 where it cannot be done now.

Promise  message content (headers too, and whether one holds a text) is for the acting
         token alone. Rows are sent as they come: an answer of any length costs one piece
         in memory. An answer that breaks off ends with "error" in place of "sum".
Bounds   AT_ONCE requests are worked on, others wait for up to PATIENCE s.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import msgspec
import trio

from tripost.gateway.control.frames import Answer, End, Error, Row
from tripost.gateway.control.server import Refused, Upload
from tripost.gateway.monitor.api_table import OPERATIONS, PREFIX, Operation, Session
from tripost.gateway.monitor.auth import Doorman
from tripost.gateway.monitor.http import Request, Response, problem
from tripost.gateway.monitor.provider import Sources
from tripost.gateway.monitor.server import Caller

AT_ONCE = 32
PATIENCE = 10.0
PIECE = 32 << 10
CONTENT = 64 << 20  # octets of a message that is shown whole
STATUS = {1: 409, 2: 400, 3: 503}  # by the exit code that a command would have
_encode = msgspec.json.Encoder().encode


class Api:
    """Of one gateway."""

    def __init__(self, sources: Sources, doorman: Doorman) -> None:
        self._from = sources
        self._doorman = doorman
        self._busy = trio.CapacityLimiter(AT_ONCE)
        self._known = {(one.path, one.acts): one for one in OPERATIONS}

    async def answer(self, request: Request, caller: Caller) -> Response:
        acts = request.method == "POST"
        if request.path == f"{PREFIX}/session" and not acts:
            return self._session(caller)
        if request.path == f"{PREFIX}/openapi.json" and not acts:
            from tripost.gateway.monitor.openapi import openapi

            return Response(body=_encode(openapi()))
        operation = self._known.get((request.path, acts))
        if operation is None:
            if (request.path, not acts) in self._known:
                return problem(405, f"it takes a {'GET' if acts else 'POST'}", Allow="GET, HEAD" if acts else "POST")
            return problem(404, f"there is no such operation: see {PREFIX}/openapi.json")
        try:
            arguments = arguments_of(operation, request)
        except Refused as wrong:
            return problem(400, str(wrong))
        if not caller.acts and (arguments.get("header") or arguments.get("content")):
            return problem(403, "message content is for the token of [monitor] token_file")
        turn = object()
        with trio.move_on_after(PATIENCE) as scope:
            await self._busy.acquire_on_behalf_of(turn)
        if scope.cancelled_caught:
            return problem(503, f"{AT_ONCE} requests are worked on, as many as there may be", Retry_After="5")
        return await self._begin(operation, arguments, caller, lambda: self._busy.release_on_behalf_of(turn))

    def _session(self, caller: Caller) -> Response:
        known = self._from
        return Response(
            body=_encode(Session(caller.may, known.hostname, known.version, known.boot, self._doorman.login))
        )

    async def _begin(
        self, operation: Operation, arguments: dict[str, Any], caller: Caller, release: Callable[[], None]
    ) -> Response:
        """Up to the first row, on which the status depends."""
        verb = self._from.verbs[operation.verb]
        assert not isinstance(verb, Upload)
        answers = verb(dict(arguments), caller.who)
        body = _Body(answers, release)
        given = False
        try:
            if operation.verb == "queue.show":
                return await self._show(answers, arguments, caller)
            await body.begin()
            given = True
            return Response(rows=body)
        except Refused as wrong:
            status = STATUS.get(wrong.exit, 400)
            return problem(404 if status == 409 and not operation.acts else status, str(wrong))
        finally:
            if not given:
                await body.aclose()

    async def _show(self, answers: AsyncGenerator[Answer, None], arguments: dict[str, Any], caller: Caller) -> Response:
        """The envelope; for who acts the header too, or the content as it is."""
        first = await anext(answers)
        assert isinstance(first, Row)
        if not caller.acts:
            return Response(body=_encode({"rows": [first.row], "sum": {}}))
        data = bytearray()
        async for one in answers:
            if isinstance(one, Row):
                data += one.row["data"]
                if len(data) > CONTENT:
                    return problem(413, f"a message of more than {CONTENT} octets; tripost queue show --content")
        if arguments.get("content"):
            name = ("Content-Disposition", f'attachment; filename="{first.row["id"]}.eml"')
            return Response(kind="message/rfc822", body=bytes(data), headers=(name,))
        header = data.decode("utf-8", "replace").replace("\r\n", "\n").strip()
        return Response(body=_encode({"rows": [first.row | {"header": header}], "sum": {}}))


class _Body:
    """An answer as it is sent; `release` is called once, at its end."""

    def __init__(self, answers: AsyncGenerator[Answer, None], release: Callable[[], None]) -> None:
        self._answers = answers
        self._release: Callable[[], None] | None = release
        self._first: Answer

    async def begin(self) -> None:
        """Raises Refused: nothing is sent yet."""
        self._first = await anext(self._answers)

    async def aclose(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()
            await self._answers.aclose()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        piece, comma, end = bytearray(b'{"rows":['), b"", b'],"error":"the answer broke off"}\n'
        one: Answer | None = self._first
        try:
            while one is not None:
                if isinstance(one, Row):
                    piece += comma + _encode(one.row)
                    comma = b",\n"
                else:
                    end = _ending(one)
                if len(piece) >= PIECE:
                    yield bytes(piece)
                    piece.clear()
                one = await anext(self._answers, None)
        except Refused as wrong:
            end = b'],"error":' + _encode(str(wrong)) + b"}\n"
        yield bytes(piece) + end


def _ending(one: End | Error | Row) -> bytes:
    if isinstance(one, End):
        return b'],"sum":' + _encode(one.sum) + b"}\n"
    return b'],"error":' + _encode(getattr(one, "text", "")) + b"}\n"


def arguments_of(operation: Operation, request: Request) -> dict[str, Any]:
    """Raises Refused."""
    if operation.acts:
        try:
            found = msgspec.json.decode(request.body or b"{}")
        except msgspec.DecodeError as wrong:
            raise Refused(f"the body is no JSON: {wrong}", 2) from wrong
        if not isinstance(found, dict):
            raise Refused("the body must be a JSON object", 2)
        return _checked(operation, cast("dict[str, Any]", found), strict=True)
    values: dict[str, Any] = dict(request.query)
    if "states" in values:
        values["states"] = [one for one in values["states"].split(",") if one]
    return _checked(operation, values, strict=False)


def _checked(operation: Operation, values: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    try:
        made = msgspec.convert(values, operation.arguments, strict=strict)
    except (msgspec.ValidationError, ValueError) as wrong:
        raise Refused(f"not understood: {wrong}", 2) from wrong
    return {name: value for name, value in msgspec.to_builtins(made).items() if name in values}
