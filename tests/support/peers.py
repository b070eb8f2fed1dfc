"""a mail host in memory that answers as told, and names that need no DNS"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import trio
from trio.testing import memory_stream_pair

from tripost.delivery.links import Unroutable
from tripost.delivery.resolver import Hosts

Answer = Callable[[str], str]


class Peer:
    """`answers` maps a verb, "greeting" or "." to a reply, or to a function of the whole line.

    A reply "" closes the connection instead. `refused`: OSError at connect.
    """

    def __init__(self, nursery: trio.Nursery, answers: dict[str, str | Answer] | None = None) -> None:
        self._nursery = nursery
        self.answers: dict[str, str | Answer] = {
            "greeting": "220 peer",
            "EHLO": "250-peer\r\n250-PIPELINING\r\n250 8BITMIME",
            "DATA": "354 go",
            "STARTTLS": "220 go",
            "QUIT": "221 bye",
        } | (answers or {})
        self.refused: bool | set[str] = False  # True, or the addresses that refuse
        self.tls: ssl.SSLContext | None = None  # for STARTTLS
        self.challenged: Callable[[str], str] | None = None  # gets the line after a 334
        self.sources: list[str] = []
        self.addresses: list[str] = []
        self.secured = 0
        self.slow: dict[str, float] = {}  # verb → seconds until its reply
        self.each = False  # LMTP: a reply to the content for each RCPT
        self.silent: bool | set[str] = False  # True, or the addresses that do not answer
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.messages: list[bytes] = []
        self.lines: list[str] = []

    async def connect(self, address: str, port: int, source: str = "") -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.addresses.append(address)
        self.sources.append(source)
        if self.silent is True or (self.silent and address in self.silent):
            await trio.sleep_forever()
        if self.refused is True or (self.refused and address in self.refused):
            raise ConnectionRefusedError(111, "Connection refused")
        client, server = memory_stream_pair()
        self.connections += 1
        self._nursery.start_soon(self._serve, server)
        return client

    async def _serve(self, stream: trio.abc.Stream) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._talk(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client hung up
        finally:
            self.open -= 1
            await stream.aclose()

    async def _talk(self, stream: trio.abc.Stream) -> None:
        if not await self._say(stream, "greeting", ""):
            return
        data, content, rcpts, challenged = b"", None, 0, False
        while part := await stream.receive_some():
            data += part
            while b"\r\n" in data:
                if content is not None:
                    end = (b"\r\n" + data).find(b"\r\n.\r\n")
                    if end < 0:
                        break
                    self.messages.append(data[:end])
                    data, content = data[end + 3 :], None
                    for _ in range(rcpts if self.each else 1):
                        if not await self._say(stream, ".", ""):
                            return
                    rcpts = 0
                    continue
                line, _, data = data.partition(b"\r\n")
                text = line.decode()
                self.lines.append(text)
                verb = text.partition(" ")[0].upper()
                if challenged and self.challenged is not None:
                    reply = self.challenged(text)
                    challenged = reply.startswith("334")
                    await stream.send_all(reply.encode() + b"\r\n")
                    continue
                if verb == "RCPT":
                    rcpts += 1
                if verb == "BDAT":
                    size = int(text.split()[1])
                    while len(data) < size and (part := await stream.receive_some()):
                        data += part
                    self.messages.append(data[:size])
                    data = data[size:]
                reply = await self._say(stream, verb, text)
                if not reply or verb == "QUIT":
                    return
                challenged = reply.startswith("334")
                if verb == "STARTTLS" and reply.startswith("220") and self.tls is not None:
                    stream = trio.SSLStream(stream, self.tls, server_side=True, https_compatible=True)
                    await stream.do_handshake()
                    self.secured += 1
                    data = b""
                if verb == "DATA" and reply.startswith("354"):
                    content = b""

    async def _say(self, stream: trio.abc.Stream, what: str, line: str) -> str:
        if what in self.slow:
            await trio.sleep(self.slow[what])
        answer = self.answers.get(what, "250 ok")
        reply = answer if isinstance(answer, str) else answer(line)
        if reply:
            await stream.send_all(reply.encode() + b"\r\n")
        return reply


class Names:
    """Every domain has the host mx.DOMAIN at 192.0.2.1, but for what `hosts` and `wrong` say."""

    def __init__(self) -> None:
        self.hosts: dict[str, list[str]] = {}
        self.wrong: dict[str, Unroutable] = {}
        self.delay = 0.0  # seconds until an answer, but for domains in `quick`
        self.quick: set[str] = set()
        self.best: dict[str, int] = {}  # how many of the hosts are equals; all
        self.found: dict[str, list[str]] = {}  # host → addresses

    async def mx(self, domain: str) -> Hosts:
        await trio.sleep(0.0 if domain in self.quick else self.delay)
        if domain in self.wrong:
            raise self.wrong[domain]
        names = tuple(self.hosts.get(domain, [f"mx.{domain}"]))
        return Hosts(names, best=self.best.get(domain, len(names)), ttl=300.0)

    async def addresses(self, host: str) -> list[str]:
        await trio.lowlevel.checkpoint()
        if host in self.wrong:
            raise self.wrong[host]
        return self.found.get(host, ["192.0.2.1"])
