"""a mail host on real loopback sockets that misbehaves at one phase, in one way, as long as it is told to"""

from __future__ import annotations

import socket
import struct

import trio

PHASES = ("greeting", "ehlo", "mail", "rcpt", "data", "dot")
WAYS = (
    *("4xx", "5xx", "421", "hang", "close", "half-close", "reset"),
    *("garbage", "one-byte", "multi-line", "over-long", "many-lines"),
)
GOOD = {
    "greeting": b"220 chaos ESMTP\r\n",
    "ehlo": b"250-chaos\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
    "data": b"354 go\r\n",
}


class _Gone(Exception):
    """This connection is over."""


class Chaos:
    """`phase` and `way`: what goes wrong, "" for nothing."""

    def __init__(self, phase: str = "", way: str = "") -> None:
        self.phase = phase
        self.way = way
        self.messages: list[bytes] = []
        self.connections = self.open = 0
        self.port = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.open += 1
        try:
            await self._talk(stream)
        except (_Gone, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def _talk(self, stream: trio.SocketStream) -> None:
        await self._say(stream, "greeting")
        data = b""
        while part := await stream.receive_some():
            data += part
            while b"\r\n" in data:
                line, _, data = data.partition(b"\r\n")
                verb = line[:4].upper().decode("latin-1")
                if verb == "QUIT":
                    await stream.send_all(b"221 bye\r\n")
                    return
                phase = {"EHLO": "ehlo", "HELO": "ehlo", "MAIL": "mail", "RCPT": "rcpt", "DATA": "data"}.get(verb, "")
                said = await self._say(stream, phase)
                if phase == "data" and said.startswith(b"354"):
                    data = await self._content(stream, data)

    async def _content(self, stream: trio.SocketStream, data: bytes) -> bytes:
        if (self.phase, self.way) == ("content", "stall"):
            await trio.sleep_forever()
        while b"\r\n.\r\n" not in b"\r\n" + data:
            part = await stream.receive_some()
            if not part:
                raise _Gone
            data += part
        whole, _, rest = (b"\r\n" + data).partition(b"\r\n.\r\n")
        said = await self._say(stream, "dot")
        if said.startswith(b"250") and whole:
            self.messages.append(whole[2:])
        return rest

    async def _say(self, stream: trio.SocketStream, phase: str) -> bytes:
        good = GOOD.get(phase, b"250 2.0.0 ok\r\n")
        way = self.way if phase == self.phase else ""
        if way == "one-byte":
            for octet in good:
                await stream.send_all(bytes([octet]))
                await trio.sleep(0.1)
            return good
        said = {
            "4xx": b"450 4.2.0 not now\r\n",
            "5xx": b"554 5.7.0 never\r\n",
            "421": b"421 4.3.2 closing\r\n",
            "garbage": b"\x00\xffHTTP/1.1 200 OK\r\n",
            "multi-line": b"".join(good[:3] + b"-" + b"words " * 20 + b"\r\n" for _ in range(50)) + good,
            "over-long": good[:3] + b"-" + b"x" * 100_000 + b"\r\n" + good,
            "many-lines": (good[:3] + b"-x\r\n") * 10_000 + good,
        }.get(way, good)
        if way == "hang":
            await trio.sleep_forever()
        elif way == "close":
            raise _Gone
        elif way == "half-close":
            stream.socket.shutdown(socket.SHUT_WR)
            await trio.sleep_forever()
        elif way == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _Gone
        await stream.send_all(said)
        if way == "421":
            raise _Gone
        return said
