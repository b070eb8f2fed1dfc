"""one POP3 client's open mailbox: the TRANSACTION and UPDATE states

What is deleted goes at QUIT and not before, all of it or nothing (RFC 1939 §6);
in a one-shot mailbox, what was retrieved whole counts as deleted.

Promise  a large message is never held in memory; a list of any length goes out
         in pieces; the disk is waited for in worker threads.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import trio

from tripost.delivery.mailbox.session import READ, MailboxInUse, MailboxSession, Message
from tripost.delivery.wire.dots import DotStuffer, stuffed
from tripost.gateway.egress.pop3_protocol import Command
from tripost.gateway.egress.pop3_top import Top

T = TypeVar("T")
ROWS = 1000  # of a list, in one piece
SMALL = 65_536  # octets of a message that is read in one go
UPKEEP_WAIT, SESSION_WAIT = 10.0, 0.25  # seconds before a mailbox is said to be in use
BATCH = 262_144  # octets of as many of them as are read together
NO_SUCH = "no such message"
Piece = bytes


class Refused(Exception):
    """To be answered with -ERR and this; `mistake`: the client should have known."""

    def __init__(self, text: str, *, mistake: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.mistake = mistake


class Maildrop:
    """`box` is closed by `close`."""

    def __init__(self, box: MailboxSession, *, one_shot: bool) -> None:
        self._box = box
        self._one_shot = one_shot
        self._deleted: set[int] = set()
        self._retrieved: set[int] = set()
        self.sent = 0

    @property
    def messages(self) -> int:
        return len(self._box)

    async def answer(self, command: Command) -> AsyncGenerator[Piece, None]:
        """The reply to any command of the TRANSACTION state but QUIT. Raises Refused, before the first piece; an
        OSError after it ends the connection, for a part must not be taken for the whole."""
        verb, numbers = command.verb, command.numbers
        if verb == "NOOP":
            yield b"+OK\r\n"
        elif verb == "RSET":
            self._deleted.clear()
            yield b"+OK\r\n"
        elif verb == "STAT":
            there = self._there()
            yield f"+OK {len(there)} {sum(self._box.sizes[one] for one in there)}\r\n".encode()
        elif not numbers:
            for piece in self._list(verb):
                yield piece
                await trio.lowlevel.checkpoint()
        elif verb == "DELE":
            self._deleted.add(self._one(numbers[0]))
            yield b"+OK to be deleted at QUIT\r\n"
        elif verb in ("LIST", "UIDL"):
            yield f"+OK {self._row(verb, self._one(numbers[0]))}\r\n".encode()
        else:
            async for piece in self._content(self._one(numbers[0]), numbers[1] if verb == "TOP" else None):
                yield piece

    async def small(self, numbers: Sequence[int]) -> list[bytes | None]:
        """The replies to the first of a run of RETR, as many as fit into `BATCH`, at least one; read in one go.
        None where `answer` has to reply: what is large, and what cannot be had."""
        places: list[int | None] = []
        room = BATCH
        for number in numbers:
            there = 1 <= number <= len(self._box) and number - 1 not in self._deleted
            size = self._box.sizes[number - 1] if there else 0
            if places and size > room:
                break
            room -= size
            places.append(number - 1 if there and size <= SMALL else None)
        found = await in_thread(partial(_read_small, self._box, places))
        for place, reply in zip(places, found, strict=True):
            if place is not None and reply is not None:
                self._retrieved.add(place)
                self.sent += 1
        return found

    def _one(self, number: int) -> int:
        """A message's place from its number."""
        if not 1 <= number <= len(self._box) or number - 1 in self._deleted:
            raise Refused(NO_SUCH, mistake=True)
        return number - 1

    def _there(self) -> Sequence[int]:
        every = range(len(self._box))
        return [one for one in every if one not in self._deleted] if self._deleted else every

    def _row(self, verb: str, one: int) -> str:
        return f"{one + 1} {self._box.uidl(one) if verb == 'UIDL' else self._box.sizes[one]}"

    def _list(self, verb: str) -> Iterable[Piece]:
        yield b"+OK\r\n"
        there = self._there()
        for start in range(0, len(there), ROWS):
            yield "".join([f"{self._row(verb, one)}\r\n" for one in there[start : start + ROWS]]).encode()
        yield b".\r\n"

    async def _content(self, one: int, lines: int | None) -> AsyncGenerator[Piece, None]:
        """RETR, or TOP with its number of body lines."""
        try:
            message, data = await in_thread(partial(_begin, self._box, one))
        except FileNotFoundError:
            raise Refused("[SYS/TEMP] another program removed the message") from None
        except OSError:
            raise Refused("[SYS/TEMP] the message cannot be read now") from None
        try:
            yield f"+OK {self._box.sizes[one]} octets\r\n".encode() if lines is None else b"+OK\r\n"
            stuffer, top = DotStuffer(), Top(lines) if lines is not None else None
            while data:
                yield stuffer.feed(top.feed(data) if top is not None else data)
                if message is None or (top is not None and top.over):
                    break
                data = await in_thread(message.read)
            yield stuffer.finish()
        finally:
            if message is not None:
                message.close()
        if lines is None:
            self._retrieved.add(one)
            self.sent += 1

    async def update(self) -> int:
        """Remove what is to go; how many. Raises OSError: all of it is still there, or will be gone at the next
        opening."""
        gone = self._deleted | self._retrieved if self._one_shot else self._deleted
        if gone:
            with trio.CancelScope(shield=True):
                await in_thread(partial(self._box.remove, sorted(gone)))
        return len(gone)

    def close(self) -> None:
        self._box.close()


def _read_small(box: MailboxSession, places: Sequence[int | None]) -> list[bytes | None]:
    found: list[bytes | None] = []
    for place in places:
        try:
            content = box.read(place) if place is not None else None
        except OSError:
            content = None
        if place is None or content is None:
            found.append(None)
        else:
            found.append(b"+OK %d octets\r\n%b" % (box.sizes[place], stuffed(content)))
    return found


def _begin(box: MailboxSession, one: int) -> tuple[Message | None, bytes]:
    """The message's first octets; with None when they are all."""
    message = box.open(one)
    try:
        data = message.read(READ)
        while len(data) < READ:
            more = message.read(READ)
            if not more:
                message.close()
                return None, data
            data += more
    except BaseException:
        message.close()
        raise
    return message, data


async def in_thread(work: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(work)


async def opened(work: Callable[[], MailboxSession]) -> MailboxSession:
    """Raises MailboxInUse, but waits for who may be done soon: upkeep, or a session whose client has just gone."""
    began = trio.current_time()
    while True:
        try:
            return await in_thread(work)
        except MailboxInUse as wrong:
            if trio.current_time() - began > (UPKEEP_WAIT if wrong.briefly else SESSION_WAIT):
                raise
        await trio.sleep(0.1)
