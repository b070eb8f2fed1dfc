"""state/control.sock: who may ask, and one request per connection

Promise  only root, the gateway's own user and the members of `[admin] group` are
         heard (by the socket's peer credentials, whatever its mode). A client
         that does not take its rows is cut after `PATIENCE`; mail never waits for it.
Bounds   CLIENTS at a time, REQUEST_LIMIT octets of request.
Fails    `ListenError` by `bind`; a request's error is told to its client.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket as stdlib_socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import NamedTuple

import msgspec
import trio

from tripost.delivery.fast_stream import FastStream
from tripost.gateway import sockets
from tripost.gateway.control.frames import (
    REQUEST_LIMIT,
    VERSION,
    Answer,
    Error,
    FrameError,
    Reader,
    Request,
    decode_request,
    frame,
)
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Trouble

CLIENTS = 32
PATIENCE = 10.0  # seconds for a request to come, and for a client to take what it asked for
_CREDENTIALS = struct.Struct("3i")

# (arguments, who) → rows and an End; raises Refused
Verb = Callable[[dict[str, object], str], AsyncGenerator[Answer, None]]


class Upload(NamedTuple):
    """A verb that takes frames of octets behind its request, until an empty one."""

    verb: Callable[[dict[str, object], str, AsyncIterator[bytes]], AsyncGenerator[Answer, None]]


class Refused(Exception):
    """A request that is not done; the text is for the user, `exit` the exit code."""

    def __init__(self, text: str, exit: int = 1) -> None:
        super().__init__(text)
        self.exit = exit


class ControlServer:
    """`verbs`: name → what answers it."""

    def __init__(self, path: str, group: str, verbs: Mapping[str, Verb | Upload], bus: Bus, clock: Clock) -> None:
        self._path = path
        self.address = f"{sockets.UNIX}{path}"
        self._group = group
        self.verbs = verbs
        self._bus = bus
        self._clock = clock
        self._clients = trio.CapacityLimiter(CLIENTS)
        self._listener: stdlib_socket.socket | None = None

    def bind(self, listener: stdlib_socket.socket | None = None) -> None:
        """`listener`: it is there already. Raises ListenError."""
        self._listener = listener or sockets.listen(self.address)
        try:
            self._give_to_group()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Harmless when it was not bound, and when called twice."""
        listener, self._listener = self._listener, None
        if listener is not None:
            sockets.close(listener, self.address)

    def leave(self) -> stdlib_socket.socket | None:
        """The socket goes on with somebody else; whoever asks meanwhile waits for him."""
        listener, self._listener = self._listener, None
        return listener

    async def run(self) -> None:
        """Until cancelled; `bind` comes first."""
        listener = self._listener
        assert listener is not None
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    for sock, _ in await sockets.accept(listener):
                        nursery.start_soon(self._client, FastStream(sock))
        finally:
            self.close()

    def _give_to_group(self) -> None:
        if self._group:
            try:
                os.chown(self._path, -1, grp.getgrnam(self._group).gr_gid)
            except (OSError, KeyError) as wrong:
                raise sockets.ListenError(f"[admin] group: {self._group}: {wrong}") from wrong

    async def _client(self, stream: FastStream) -> None:
        async with stream:
            try:
                async with self._clients:
                    await self._serve(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
                pass  # it did not wait for the answer
            except Exception as wrong:  # a request must not end the gateway
                reason = f"{type(wrong).__name__}: {wrong}"
                self._bus.emit(Trouble(time=self._clock.now(), where="control", reason=reason))

    async def _serve(self, stream: FastStream) -> None:
        with trio.fail_after(PATIENCE):
            uid, gid, who = credentials(stream)
            if not may_steer(uid, gid, who, self._group):
                await stream.send_all(frame(Error("you may not steer this gateway: see [admin] group", 1)))
                return
            reader = Reader(REQUEST_LIMIT)
            request, more = await read_request(stream, reader)
        try:
            async for answer in self._answers(request, who, _incoming(stream, reader, more)):
                with trio.fail_after(PATIENCE):
                    await stream.send_all(frame(answer))
        except Refused as wrong:
            with trio.fail_after(PATIENCE):
                await stream.send_all(frame(Error(str(wrong), wrong.exit)))

    async def _answers(
        self, request: Request | Error, who: str, more: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[Answer, None]:
        if isinstance(request, Error):
            yield request
            return
        verb = self.verbs.get(request.verb)
        if verb is None:
            yield Error(f"this gateway does not know {request.verb!r}", 3)
            return
        called = verb.verb(request.arguments, who, more) if isinstance(verb, Upload) else verb(request.arguments, who)
        async with aclosing(more), aclosing(called) as answers:
            async for answer in answers:
                yield answer


async def read_request(stream: FastStream, reader: Reader) -> tuple[Request | Error, list[bytes]]:
    """And what came behind it. Raises BrokenResourceError when the client went away."""
    while data := await stream.receive_some(REQUEST_LIMIT):
        try:
            payloads = reader.feed(bytes(data))
            if payloads:
                request = decode_request(payloads[0])
                if request.version != VERSION:
                    return Error(f"this gateway speaks version {VERSION} of the protocol, not {request.version}", 3), []
                return request, payloads[1:]
        except (FrameError, msgspec.DecodeError, msgspec.ValidationError) as wrong:
            return Error(f"not a request: {wrong}", 3), []
    raise trio.BrokenResourceError("the client went away")


async def _incoming(stream: FastStream, reader: Reader, payloads: list[bytes]) -> AsyncGenerator[bytes, None]:
    """Frames of octets until an empty one. Raises BrokenResourceError, TooSlowError, Refused."""
    while True:
        for payload in payloads:
            if not payload:
                return
            yield payload
        with trio.fail_after(PATIENCE):
            data = await stream.receive_some(REQUEST_LIMIT)
        if not data:
            raise trio.BrokenResourceError("the client went away")
        try:
            payloads = reader.feed(bytes(data))
        except FrameError as wrong:
            raise Refused(str(wrong), 3) from wrong


def credentials(stream: FastStream) -> tuple[int, int, str]:
    """The user at the other end: uid, gid, name."""
    data = stream.socket.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, gid = _CREDENTIALS.unpack(data)
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    return uid, gid, name


def may_steer(uid: int, gid: int, name: str, group: str) -> bool:
    """Is it root, the gateway's own user, or of the group?"""
    return uid in (0, os.geteuid()) or (bool(group) and _in_group(name, gid, group))


def _in_group(name: str, gid: int, group: str) -> bool:
    try:
        found = grp.getgrnam(group)
    except KeyError:
        return False
    return gid == found.gr_gid or name in found.gr_mem
