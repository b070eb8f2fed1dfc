"""a channel between two of our own processes

The Trio driver of `framing` over a Unix stream socket, one end of a pair that a
child inherits. Both ends are alike: each tells, asks and answers.

API      `send` waits for room · `post` is for what something else bounds · `offer`
         is lost, and counted, where there is little room · `ask` waits for the
         answer, which the other side gives by `reply` · `run` reads and writes.
Promise  Messages arrive in the order in which they were given. All that is given
         within one pass of the loop leaves in one system call. `receive` is called
         at once, in sync code, so what it decides cannot be half done.
States   open → gone, once: the peer closed, broke off, sent what is no message, or
         said nothing for SILENCE seconds. Then every `ask` under way and to come
         raises `ChannelGone`, and `run` returns the reason.
Bounds   `send`, `ask` and `offer` keep to `most` octets. Answers are not held back:
         the peer's requests bound them, and reading never stops for want of room,
         or two full ends would wait for each other.
Why      the socket is used as it is: trio.SocketStream's locks and checkpoints cost
         more than the rest. Silence is counted in our own wakings, so that a machine
         or a process that was stopped for a while does not take its peers for dead.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
import trio

from tripost.queue.framing import BEAT, FrameError, In, Reader, decoder, frame

Out = TypeVar("Out", bound=msgspec.Struct)

READ = 256 << 10  # octets at a time
BUFFER = 1 << 20  # octets that the system keeps for each direction
MOST = 4 << 20
BEATS = 5.0  # seconds
SILENCE = 30.0


class ChannelGone(Exception):
    """There is nobody at the other end; the text says why."""


class ChannelStatistics(msgspec.Struct, frozen=True):
    """Since the channel was made; `waiting`: octets that are not sent yet; `writes`: system calls."""

    sent: int
    received: int
    octets_sent: int
    octets_received: int
    writes: int
    reads: int
    dropped: int
    waiting: int


class _Question:
    """An `ask` that waits."""

    __slots__ = ("answer", "task")

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.answer: object = None


class Channel(Generic[In, Out]):
    """`kinds`: a Struct, or a union of tagged ones, that may be received. `receive(number, message)` is called for
    every message but answers; a number that is not 0 wants `reply(number, …)`, now or later. `dropped` counts what
    `offer` lost."""

    def __init__(
        self,
        end: socket.socket,
        kinds: Any,
        receive: Callable[[int, In], None],
        *,
        most: int = MOST,
        beats: float = BEATS,
        silence: float = SILENCE,
    ) -> None:
        end.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        self._socket = end
        self._reader: Reader[In] = Reader(decoder(kinds))
        self._receive = receive
        self._most = most
        self._beats = beats
        self._silence = silence
        self._parts: list[bytes] = []
        self._waiting = 0
        self._room = trio.lowlevel.ParkingLot()
        self._flushed = trio.lowlevel.ParkingLot()
        self._writer: trio.lowlevel.Task | None = None  # while it has nothing to do
        self._questions: dict[int, _Question] = {}
        self._number = 0
        self._scope = trio.CancelScope()
        self._heard = False
        self._told = False
        self.dropped = 0
        self._sent = self._received = self._octets_sent = self._octets_received = self._writes = self._reads = 0
        self.gone = ""  # why, once it is

    # --- giving ---

    async def send(self, message: Out) -> None:
        """One way; waits while there is no room. Raises ChannelGone."""
        await self._until_room()
        self._put(frame(0, message))

    def post(self, message: Out) -> None:
        """One way, at once; for what is seldom, or bounded by something else. Lost where the peer is gone."""
        self._put(frame(0, message))

    def offer(self, message: Out) -> bool:
        """One way, where there is room to spare; else lost, False."""
        if self.gone or self._waiting > self._most // 2:
            self.dropped += 1
            return False
        self._put(frame(0, message))
        return True

    async def ask(self, message: Out) -> In:
        """The answer. Raises ChannelGone. A cancelled one is not told to the peer; its answer is not waited for."""
        await self._until_room()
        self._number += 1
        number, question = self._number, _Question()
        self._put(frame(number, message))
        self._questions[number] = question

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._questions[number]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        answer = question.answer
        if isinstance(answer, ChannelGone):
            raise answer
        return answer  # type: ignore[return-value]

    def reply(self, number: int, message: Out) -> None:
        """The answer to what `receive` was given. Lost where the peer is gone."""
        self._put(frame(-number, message))

    async def _until_room(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._waiting > self._most and not self.gone:
            await self._room.park()
        if self.gone:
            raise ChannelGone(self.gone)

    def _put(self, data: bytes) -> None:
        if self.gone:
            return
        self._parts.append(data)
        self._waiting += len(data)
        self._sent += 1
        if self._writer is not None:
            writer, self._writer = self._writer, None
            trio.lowlevel.reschedule(writer)

    async def flush(self) -> None:
        """Until all that was given is the system's, or the peer is gone."""
        await trio.lowlevel.checkpoint()
        while self._waiting and not self.gone:
            await self._flushed.park()

    # --- running ---

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> str:
        """Until the peer is gone: why. The socket is closed then."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._beat)
                    task_status.started()
                    await self._read()
        finally:
            self._end("closed here")
            self._socket.close()
        return self.gone

    def close(self, why: str = "closed here") -> None:
        """Be gone now; what is not sent is lost. `run` returns soon."""
        self._end(why)

    def _end(self, why: str) -> None:
        if self.gone:
            return
        self.gone = why
        self._parts.clear()
        self._waiting = 0
        self._room.unpark_all()
        self._flushed.unpark_all()
        questions, self._questions = self._questions, {}
        for question in questions.values():
            question.answer = ChannelGone(why)
            trio.lowlevel.reschedule(question.task)
        self._scope.cancel()

    async def _read(self) -> None:
        end, feed, wait = self._socket, self._reader.feed, trio.lowlevel.wait_readable
        while not self.gone:
            try:
                data = end.recv(READ)
            except BlockingIOError:
                await wait(end)
                continue
            except OSError as wrong:
                self._end(f"broken off: {wrong.strerror}")
                return
            if not data:
                self._end("closed by the peer")
                return
            self._heard = True
            self._reads += 1
            self._octets_received += len(data)
            try:
                self._take(feed(data))
            except FrameError as wrong:
                self._end(str(wrong))
                return
            await wait(end)

    def _take(self, messages: list[tuple[int, In]]) -> None:
        self._received += len(messages)
        receive, questions = self._receive, self._questions
        for number, message in messages:
            if number >= 0:
                receive(number, message)
                continue
            question = questions.pop(-number, None)
            if question is not None:
                question.answer = message
                trio.lowlevel.reschedule(question.task)
            elif -number > self._number:
                raise FrameError(f"an answer to question {-number}, which nobody asked")

    async def _write(self) -> None:
        def abort(_: object) -> trio.lowlevel.Abort:
            self._writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            if not self._parts:
                self._flushed.unpark_all()
                self._writer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(abort)
            parts, self._parts = self._parts, []
            self._told = True
            if not await self._push(parts[0] if len(parts) == 1 else b"".join(parts)):
                return

    async def _push(self, data: bytes) -> bool:
        """False when the peer takes nothing more."""
        left = memoryview(data)
        while left:
            try:
                done = self._socket.send(left)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
                continue
            except OSError:  # nothing more can be told; what the peer said before is read, and then the end
                return False
            left = left[done:]
            self._writes += 1
            self._octets_sent += done
            self._waiting -= done
            if self._room and self._waiting <= self._most:
                self._room.unpark_all()
        return True

    async def _beat(self) -> None:
        quiet = 0
        while quiet * self._beats < self._silence:
            await trio.sleep(self._beats)
            if not self._told and not self._waiting:
                self._put(BEAT)
                self._sent -= 1
            self._told = False
            quiet = 0 if self._heard else quiet + 1
            self._heard = False
        self._end(f"silent for {self._silence:g} s")

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(
            self._sent,
            self._received,
            self._octets_sent,
            self._octets_received,
            self._writes,
            self._reads,
            self.dropped,
            self._waiting,
        )


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends; neither is inherited unless it is named to the child (subprocess's `pass_fds`)."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def inherited(descriptor: int) -> socket.socket:
    """A child's end. Raises OSError."""
    end = socket.socket(fileno=descriptor)
    end.set_inheritable(False)
    return end
