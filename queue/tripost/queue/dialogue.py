"""the dialogue of live sessions, for whoever traces them

Sessions of all kinds (SMTP and POP3 clients, our own connections to hosts) tell
what is said, in both directions, while somebody listens.

Promise  never a secret: sessions tell commands and replies, of AUTH, USER and PASS
         only that they were said, and of content how long it is. Nobody waits: a
         tracer that is slow loses lines and is told how many.
Cost     without a tracer, one look at an empty list per command.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import lru_cache

import msgspec
import trio

ROOM = 2000  # lines that wait for one tracer
TRACERS = 8
LONGEST = 1000  # characters of a line; more is cut
HIDDEN = "***"
DELIVERY = "delivery"  # the service of our own connections

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Line(msgspec.Struct, frozen=True, gc=False):
    """`session` numbers the connections; `peer`: who is at the other end; `direction`: "<" said to us, ">" by us, "*"
    what happened beside."""

    time: float
    session: int
    service: str
    peer: str
    direction: str
    text: str


class TooMany(Exception):
    """As many tracers as there may be."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Whose dialogue. `client`: a network; `destination`: a next hop, site, host, address or domain; `service`: smtp |
    submission | lmtp | pop3 | delivery. What is empty is any."""

    client: Network | None = None
    destination: str = ""
    service: str = ""

    def fits(self, one: Dialogue) -> bool:
        if self.service and self.service != one.service:
            return False
        if self.client is not None and (one.service == DELIVERY or not _within(one.client, self.client)):
            return False
        if not self.destination:
            return True
        return one.service == DELIVERY and any(_names(name, self.destination) for name in (one.client, *one.names))


@lru_cache(maxsize=1024)
def _within(client: str, network: Network) -> bool:
    try:
        return ipaddress.ip_address(client.partition("%")[0]) in network
    except ValueError:  # of a Unix socket
        return False


@lru_cache(maxsize=1024)
def _names(name: str, wanted: str) -> bool:
    wanted, name = wanted.lower(), name.lower()
    plain = name.partition("?")[0]  # without the options of a route
    return wanted in (name, plain) or f"mx:{wanted}" == name or wanted in name.split(",")


class Tracer:
    """One listener. `dropped` counts the lines that came too fast for it."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.dropped = 0
        self._send, self._receive = trio.open_memory_channel[Line](ROOM)

    def offer(self, line: Line) -> None:
        try:
            self._send.send_nowait(line)
        except trio.WouldBlock:
            self.dropped += 1

    async def receive(self) -> Line:
        return await self._receive.receive()

    def close(self) -> None:
        self._send.close()
        self._receive.close()


class Tracing:
    """All tracers of a gateway. `watchers` are called when the first one comes and the last one goes."""

    def __init__(self) -> None:
        self.tracers: list[Tracer] = []
        self.watchers: list[Callable[[], None]] = []
        self._sessions = 0

    def session(self, service: str, client: str = "", names: tuple[str, ...] = ()) -> Dialogue:
        self._sessions += 1
        return Dialogue(self.tracers, self._sessions, service, client, names)

    @contextmanager
    def listen(self, wanted: Wanted) -> Generator[Tracer]:
        """Raises TooMany."""
        if len(self.tracers) >= TRACERS:
            raise TooMany
        tracer = Tracer(wanted)
        self.tracers.append(tracer)
        self._told(1)
        try:
            yield tracer
        finally:
            self.tracers.remove(tracer)
            tracer.close()
            self._told(0)

    def _told(self, tracers: int) -> None:
        if len(self.tracers) == tracers:
            for watcher in self.watchers:
                watcher()


class Dialogue:
    """One session's voice. `client`: the address at the other end; `names`: by which a destination is known too.
    Sessions look at `tracers` before they make any text, which holds no secret and no content."""

    __slots__ = ("client", "content", "names", "number", "service", "tracers")

    def __init__(self, tracers: list[Tracer], number: int, service: str, client: str, names: tuple[str, ...]) -> None:
        self.tracers = tracers  # the list itself: empty while nobody listens
        self.number = number
        self.service = service
        self.client = client
        self.names = names
        self.content = 0  # octets of it that were heard and not told yet

    def heard(self, text: str) -> None:
        self.tell("<", text)

    def said(self, text: str) -> None:
        self.tell(">", text)

    def sends(self, data: bytes, instead: str = "") -> None:
        """SMTP commands of ours, or what is told instead of them."""
        for text in [instead] if instead else commands(data):
            self.said(text)

    def hears(self, data: bytes) -> None:
        """SMTP replies to us."""
        for text in replies(data):
            self.heard(text)

    def noted(self, text: str) -> None:
        self.tell("*", text)

    def also(self, name: str) -> None:
        """It speaks for this next hop too."""
        if name not in self.names:
            self.names = (*self.names[-8:], name)

    def tell(self, direction: str, text: str) -> None:
        """See Line."""
        line: Line | None = None
        for tracer in self.tracers:
            if tracer.wanted.fits(self):
                line = line or self._line(direction, text)
                tracer.offer(line)

    def _line(self, direction: str, text: str) -> Line:
        shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
        return Line(time.time(), self.number, self.service, self.client, direction, shown)


SILENT = Dialogue([], 0, "", "", ())


def octets(count: int) -> str:
    """In place of content."""
    return f"<{count:,} octets of data>"


def commands(data: bytes) -> list[str]:
    """SMTP command lines as they may be told; behind BDAT's line is content."""
    shown: list[str] = []
    while data:
        line, _, data = data.partition(b"\r\n")
        shown.append(command(line))
        if line[:5].upper() == b"BDAT ":
            return [*shown, octets(len(data))] if data else shown
    return shown


def command(line: bytes) -> str:
    """One, without what only AUTH may know."""
    text = line.decode("utf-8", "replace")
    if text[:4].upper() != "AUTH":
        return text
    words = text.split(" ", 2)
    return " ".join(words[:2]) + (f" {HIDDEN}" if len(words) > 2 else "")


def replies(data: bytes) -> list[str]:
    """SMTP replies as they may be told: those within AUTH without their challenge."""
    lines = data.decode("utf-8", "replace").split("\r\n")
    return [f"334 {HIDDEN}" if line.startswith("334") else line for line in lines if line]
