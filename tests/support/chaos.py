"""a mail host on real loopback sockets that misbehaves at one phase, in one way, as long as it is told to"""

from __future__ import annotations

import socket
import ssl
import struct

import trio

PHASES = ("greeting", "ehlo", "mail", "rcpt", "data", "dot")
WAYS = (
    *("4xx", "5xx", "421", "hang", "close", "half-close", "reset"),
    *("garbage", "one-byte", "multi-line", "over-long", "many-lines"),
)
HANDSHAKES = ("garbage", "close", "reset", "half-close", "hang", "injected", "after")
GOOD = {"greeting": b"220 chaos ESMTP\r\n", "data": b"354 go\r\n", "starttls": b"220 go\r\n"}
VERBS = {
    "EHLO": "ehlo",
    "HELO": "ehlo",
    "STARTTLS": "starttls",
    "MAIL": "mail",
    "RCPT": "rcpt",
    "DATA": "data",
}


class _Gone(Exception):
    """This connection is over."""


class Chaos:
    """`phase` and `way`: what goes wrong, "" for nothing. `chunks`: it offers CHUNKING; `tls`: STARTTLS, with that."""

    def __init__(
        self, phase: str = "", way: str = "", *, chunks: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        self.phase = phase
        self.way = way
        self.tls = tls
        self.chunks = chunks
        more = "250-CHUNKING\r\n" * chunks + "250-STARTTLS\r\n" * (tls is not None)
        self.hello = f"250-chaos\r\n{more}250-PIPELINING\r\n250 8BITMIME\r\n".encode()
        self.plain: list[str] = []  # commands in plain text
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
        except (_Gone, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def _talk(self, stream: trio.abc.Stream) -> None:
        await self._say(stream, "greeting")
        data, mailed, taken = b"", False, 0
        while part := await stream.receive_some():
            data += part
            while b"\r\n" in data:
                line, _, data = data.partition(b"\r\n")
                verb = line.partition(b" ")[0].upper().decode("latin-1")
                if isinstance(stream, trio.SocketStream):
                    self.plain.append(verb)
                if verb == "QUIT":
                    await stream.send_all(b"221 bye\r\n")
                    return
                if verb == "BDAT":
                    data = await self._chunk(stream, data, int(line.split()[1]), taken)
                    continue
                phase = VERBS.get(verb, "")
                if phase == "rcpt" and self.chunks and not mailed:
                    await stream.send_all(b"503 5.5.1 MAIL first\r\n")
                    continue
                said = await self._say(stream, phase)
                good = said[:1] == b"2"
                if phase == "mail":
                    mailed, taken = good, 0
                elif phase == "rcpt":
                    taken += good
                if phase == "starttls" and said.endswith(b"220 go\r\n"):
                    stream, data = await self._secured(stream), b""
                if phase == "data" and said.startswith(b"354"):
                    data = await self._content(stream, data)

    async def _secured(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        """A handshake, or what goes wrong instead."""
        assert self.tls is not None
        way = self.way if self.phase == "handshake" else ""
        if way == "garbage":
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        elif way not in ("", "after"):
            await self._badly(stream, way)
        secured = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
        await secured.do_handshake()
        if way == "after":
            raise _Gone
        return secured

    async def _chunk(self, stream: trio.abc.Stream, data: bytes, size: int, taken: int) -> bytes:
        """BDAT … LAST."""
        if (self.phase, self.way) == ("content", "stall"):
            await trio.sleep_forever()
        while len(data) < size:
            part = await stream.receive_some()
            if not part:
                raise _Gone
            data += part
        if not taken:
            await stream.send_all(b"503 5.5.1 no recipient\r\n")
        elif (await self._say(stream, "dot")).startswith(b"250"):
            self.messages.append(data[:size])
        return data[size:]

    async def _content(self, stream: trio.abc.Stream, data: bytes) -> bytes:
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

    async def _say(self, stream: trio.abc.Stream, phase: str) -> bytes:
        good = self.hello if phase == "ehlo" else GOOD.get(phase, b"250 2.0.0 ok\r\n")
        if phase == "starttls" and (self.phase, self.way) == ("handshake", "injected"):
            good = b"250 2.0.0 from somebody else\r\n".join([good, b""])
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
        await self._badly(stream, way)
        await stream.send_all(said)
        if way == "421":
            raise _Gone
        return said

    async def _badly(self, stream: trio.abc.Stream, way: str) -> None:
        raw = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        assert isinstance(raw, trio.SocketStream)
        if way == "hang":
            await trio.sleep_forever()
        elif way == "close":
            raise _Gone
        elif way == "half-close":
            raw.socket.shutdown(socket.SHUT_WR)
            await trio.sleep_forever()
        elif way == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise _Gone
