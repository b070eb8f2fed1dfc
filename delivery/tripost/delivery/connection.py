"""one connection to a mail host

The thin Trio driver of `smtp_protocol`: opens, greets, sends transactions, and
turns what happens into outcomes.

Fails    `Down` when the host could not be spoken to; `deliver` never raises
         for what the peer does: it is an outcome, and `usable` is False then.
Source   time limits of RFC 5321 §4.5.3.2.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from tripost.delivery.demands import Content, Host, Plan, limits, needs_look, plan
from tripost.delivery.smtp_protocol import Transaction, read_extensions
from tripost.delivery.verdicts import lost, verdict
from tripost.delivery.wire.dots import DotStuffer
from tripost.delivery.wire.replies import Reply, ReplyError, ReplyReader
from tripost.queue.body import BodyReader
from tripost.queue.errors import SpoolError
from tripost.queue.message import Deferred, Envelope, Outcome, Recipient

GREETING = 300.0
COMMAND = 300.0
DATA = 120.0
BLOCK = 180.0
DOT = 600.0
QUIT = 2.0
READ = 65_536

Connect = Callable[[str, int], Awaitable[trio.abc.Stream]]


class Down(Exception):
    """The host cannot be spoken to; the text says why."""


async def connect_tcp(address: str, port: int) -> trio.abc.Stream:
    """Raises OSError."""
    return await trio.open_tcp_stream(address, port)


class Connection:
    """`host` names the peer in outcomes."""

    def __init__(self, stream: trio.abc.Stream, host: str) -> None:
        self._stream = stream
        self._replies = ReplyReader()
        self._extensions: dict[str, str] = {}
        self.host = host
        self.usable = True
        self.stale = False  # a connection that was used before broke before anything was said to the message
        self.messages = 0

    @classmethod
    async def open(
        cls, connect: Connect, address: str, port: int, *, host: str, hostname: str, timeout: float
    ) -> Connection:
        """Connected and greeted. Raises Down."""
        try:
            with trio.fail_after(timeout):
                stream = await connect(address, port)
        except trio.TooSlowError:
            raise Down(f"{host} [{address}]:{port}: no connection within {timeout:g} s") from None
        except OSError as wrong:
            raise Down(f"{host} [{address}]:{port}: {_reason(wrong)}") from wrong
        one = cls(stream, host)
        try:
            await one._greet(hostname)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError, ReplyError, EOFError) as wrong:
            await trio.aclose_forcefully(stream)
            raise Down(f"{host} [{address}]:{port}: {_reason(wrong)} at the greeting") from wrong
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return one

    async def _greet(self, hostname: str) -> None:
        greeting = await self._reply(GREETING)
        if greeting.code != 220:
            raise ReplyError(str(greeting))
        reply = await self._command(f"EHLO {hostname}".encode())
        if reply.code == 250:
            self._extensions = read_extensions(reply)
        elif reply.code in (500, 501, 502, 504, 550):
            reply = await self._command(f"HELO {hostname}".encode())
        if reply.code != 250:
            raise ReplyError(str(reply))

    async def _command(self, line: bytes, timeout: float = COMMAND) -> Reply:
        await self._send(line + b"\r\n", timeout)
        return await self._reply(timeout)

    async def _send(self, data: bytes, timeout: float) -> None:
        with trio.fail_after(timeout):
            await self._stream.send_all(data)

    async def _reply(self, timeout: float) -> Reply:
        with trio.fail_after(timeout):
            while (reply := self._replies.next()) is None:
                data = await self._stream.receive_some(READ)
                if not data:
                    raise EOFError("connection closed by the peer")
                self._replies.feed(bytes(data))
        return reply

    @property
    def recipients(self) -> int:
        """How many recipients the host takes in one transaction, by its LIMITS; 0 where it does not say."""
        return limits(self._extensions).get("RCPTMAX", 0)

    @property
    def spent(self) -> bool:
        """As many messages as the host's LIMITS allow on one connection were sent."""
        return 0 < limits(self._extensions).get("MAILMAX", 0) <= self.messages

    async def deliver(
        self,
        envelope: Envelope,
        recipients: tuple[Recipient, ...],
        open_reader: Callable[[], Awaitable[BodyReader]],
        now: float,
    ) -> dict[int, Outcome]:
        """One transaction; an outcome for every recipient. `now` is wall time. Raises SpoolError."""
        content = Content(envelope.size)
        if needs_look(envelope, self._extensions):
            content = await _look(open_reader)
        reader = await open_reader()
        try:
            content = Content(reader.size, content.ascii_header, content.ascii)
            planned = plan(envelope, recipients, Host(self._extensions, self.host), content, now)
            if not isinstance(planned, Plan):
                return {one.id: planned for one in recipients}
            return await self._transact(planned, recipients, reader)
        finally:
            reader.close()

    async def _transact(
        self, planned: Plan, recipients: tuple[Recipient, ...], reader: BodyReader
    ) -> dict[int, Outcome]:
        self.messages += 1
        transaction = Transaction(
            planned.mail, planned.rcpts, pipelining="PIPELINING" in self._extensions, chunking=planned.chunking
        )
        phase = ["mail"]
        broken: Deferred | None = None
        try:
            await self._run(transaction, reader, phase, chunking=planned.chunking)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError, ReplyError, EOFError) as wrong:
            self.usable = False
            broken = lost(phase[0], _reason(wrong), self.host)
            self.stale = self.messages > 1 and phase[0] == "mail" and not transaction.heard
        outcomes: dict[int, Outcome] = {}
        for one in recipients:
            found = transaction.verdicts.get(one.id)
            if found is not None:
                outcomes[one.id] = verdict(found.phase, found.reply, self.host)
                self.usable = self.usable and found.reply.code != 421
            else:
                outcomes[one.id] = broken or lost("dot", "no verdict", self.host)
        return outcomes

    async def _run(self, transaction: Transaction, reader: BodyReader, phase: list[str], *, chunking: bool) -> None:
        while not transaction.over and not transaction.content:
            await self._send(transaction.commands(), COMMAND)
            while transaction.waiting:
                transaction.take(await self._reply(COMMAND))
        if transaction.content:
            phase[0] = "content"
            if chunking:
                await self._chunk(reader, phase)
            elif transaction.accepted:
                await self._dots(reader, phase)
            else:  # DATA was pipelined and taken although no recipient was: an empty message ends it
                await self._send(b".\r\n", BLOCK)
            transaction.take_end(await self._reply(DOT))
        elif self.usable:
            await self._reset()

    async def _dots(self, reader: BodyReader, phase: list[str]) -> None:
        stuffer = DotStuffer()
        while data := await reader.read(READ):
            await self._send(stuffer.feed(data), BLOCK)
        phase[0] = "dot"
        await self._send(stuffer.finish(), BLOCK)

    async def _chunk(self, reader: BodyReader, phase: list[str]) -> None:
        """The content as it is, in one chunk (RFC 3030 §2). Raises SpoolError when it is not as long as it was."""
        head, left = b"BDAT %d LAST\r\n" % reader.size, reader.size
        while left:
            data = await reader.read(min(READ, left))
            if not data:
                self.usable = False  # the host waits for octets that do not exist
                raise SpoolError("a content is shorter than its record says")
            left -= len(data)
            if not left:
                phase[0] = "dot"
            await self._send(head + data, BLOCK)
            head = b""
        if head:
            phase[0] = "dot"
            await self._send(head, BLOCK)

    async def _reset(self) -> None:
        """Nothing of a refused transaction may be left for the next one."""
        if (await self._command(b"RSET")).code != 250:
            self.usable = False

    async def close(self) -> None:
        """QUIT, politely but shortly."""
        with trio.move_on_after(QUIT):
            try:
                if self.usable:
                    await self._command(b"QUIT", QUIT)
            except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError, ReplyError, EOFError):
                pass  # nothing depends on it
        await trio.aclose_forcefully(self._stream)


async def _look(open_reader: Callable[[], Awaitable[BodyReader]]) -> Content:
    """Read all of the content, for what only its octets can tell."""
    reader = await open_reader()
    try:
        header_ascii = all_ascii = in_header = True
        tail = b""
        while data := await reader.read(READ):
            if in_header:
                whole = tail + data
                end = whole.find(b"\r\n\r\n")
                header_ascii = header_ascii and (whole if end < 0 else whole[:end]).isascii()
                in_header, tail = end < 0, whole[-3:]
            all_ascii = all_ascii and data.isascii()
        return Content(reader.size, header_ascii, all_ascii)
    finally:
        reader.close()


def _reason(wrong: BaseException) -> str:
    if isinstance(wrong, OSError) and wrong.strerror:
        return wrong.strerror
    if isinstance(wrong, trio.TooSlowError):
        return "no answer in time"
    if isinstance(wrong, trio.BrokenResourceError):
        return "connection broken"
    return str(wrong)
