"""the channel between our own processes: however it is cut, whoever dies"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tripost.queue.channel import Channel, ChannelGone, inherited, pair
from tripost.queue.framing import BEAT, FrameError, Reader, decoder, frame


class Ask(msgspec.Struct, frozen=True, tag="ask", array_like=True):
    n: int


class Tell(msgspec.Struct, frozen=True, tag="tell", array_like=True):
    text: str
    data: bytes = b""


Kinds = Ask | Tell
MESSAGES: list[tuple[int, Kinds]] = [(0, Tell("é" * 9)), (7, Ask(-3)), (-7, Tell("", b"\0\xff")), (0, Ask(1 << 40))]
DATA = b"".join([BEAT, *[frame(*one) for one in MESSAGES], BEAT])


def _fed(*parts: bytes) -> tuple[list[tuple[int, Kinds]], int]:
    reader: Reader[Kinds] = Reader(decoder(Kinds))
    found = [one for part in parts for one in reader.feed(part)]
    return found, reader.beats


# --- framing ---


def test_cut_at_every_octet() -> None:
    assert _fed(DATA) == (MESSAGES, 2)
    assert _fed(*[DATA[n : n + 1] for n in range(len(DATA))]) == (MESSAGES, 2)
    for cut in range(len(DATA) + 1):
        assert _fed(DATA[:cut], DATA[cut:]) == (MESSAGES, 2)


TEXTS = st.builds(Tell, st.text(max_size=300), st.binary(max_size=300))


@given(st.lists(st.tuples(st.integers(-(2**31), 2**31), TEXTS), max_size=8), st.lists(st.integers(0, 3000), max_size=8))
def test_any_messages_cut_anywhere(messages: list[tuple[int, Kinds]], cuts: list[int]) -> None:
    data = b"".join(frame(*one) for one in messages)
    ends = [*sorted(min(one, len(data)) for one in cuts), len(data)]
    parts = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    assert _fed(*parts)[0] == messages


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_octets_are_messages_or_a_frame_error(data: bytes, cut: int) -> None:
    try:
        _fed(data[:cut], data[cut:])
    except FrameError:
        pass  # the only way in which it may fail


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",  # no MessagePack
        b"\x92\x00\x92\xa3who\x01",  # no such message
        b"\x92\x00\x92\xa3ask\xa1x",  # of another type
        b"\x92\x00\x92\xa4tell\xa1\xff",  # no UTF-8
        b"\x91" * 5000,  # deep
        b"",
    ],
)
def test_garbage(payload: bytes) -> None:
    good = frame(0, Ask(1))
    data = len(payload).to_bytes(4, "little") + payload
    reader: Reader[Kinds] = Reader(decoder(Kinds))
    assert reader.feed(good) == [(0, Ask(1))]
    if payload:
        with pytest.raises(FrameError):
            reader.feed(data)


def test_too_long_is_refused_before_it_is_there() -> None:
    reader: Reader[Kinds] = Reader(decoder(Kinds), limit=100)
    with pytest.raises(FrameError, match="101 octets; 100 are allowed"):
        reader.feed((101).to_bytes(4, "little"))
    with pytest.raises(FrameError, match="are allowed"):
        frame(0, Tell("", bytes(16 << 20)))


def test_a_long_frame_in_small_pieces_is_not_copied_for_each() -> None:
    data = frame(0, Tell("", bytes(2 << 20)))
    assert len(_fed(*[data[n : n + 512] for n in range(0, len(data), 512)])[0]) == 1  # 4,096 pieces: 4 GiB if it were


# --- the driver ---


class Side:
    """One end, and what it got; a question N is answered with N + 1, a negative one never."""

    def __init__(self, end: socket.socket, **more: Any) -> None:
        self.got: list[Kinds] = []
        self.channel: Channel[Kinds, Kinds] = Channel(end, Kinds, self.receive, **more)
        self.why: list[str] = []

    def receive(self, number: int, message: Kinds) -> None:
        self.got.append(message)
        if number and isinstance(message, Ask) and message.n >= 0:
            self.channel.reply(number, Ask(message.n + 1))

    async def run(self) -> None:
        self.why.append(await self.channel.run())


@asynccontextmanager
async def _two(**more: Any) -> AsyncGenerator[tuple[Side, Side]]:
    ours, theirs = (Side(end, **more) for end in pair())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.run)
        nursery.start_soon(theirs.run)
        yield ours, theirs
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _raw(**more: Any) -> AsyncGenerator[tuple[Side, trio.socket.SocketType]]:
    """A side, and a bare socket at the other end."""
    end, other = pair()
    ours, raw = Side(end, **more), trio.socket.from_stdlib_socket(other)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.run)
        yield ours, raw
        nursery.cancel_scope.cancel()
    raw.close()


async def test_told_asked_and_answered_in_order() -> None:
    async with _two() as (ours, theirs):
        ours.channel.post(Tell("first"))
        await ours.channel.send(Tell("second"))
        assert ours.channel.offer(Tell("third"))
        answers: dict[int, Kinds] = {}

        async def ask(n: int) -> None:
            answers[n] = await ours.channel.ask(Ask(n))

        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(ask, n)
        assert answers == {n: Ask(n + 1) for n in range(50)}
        assert theirs.got[:3] == [Tell("first"), Tell("second"), Tell("third")]
        assert await theirs.channel.ask(Ask(5)) == Ask(6)
        assert ours.got == [Ask(5)]


async def test_one_pass_of_the_loop_is_one_write() -> None:
    async with _two() as (ours, theirs):
        await wait_all_tasks_blocked()
        for n in range(1000):
            ours.channel.post(Ask(n))
        await ours.channel.flush()
        assert ours.channel.statistics().writes == 1
        await wait_all_tasks_blocked()
        assert theirs.got == [Ask(n) for n in range(1000)]
        counts = theirs.channel.statistics()
        assert counts.received == 1000 == ours.channel.statistics().sent
        assert counts.octets_received == ours.channel.statistics().octets_sent


async def test_a_full_buffer_holds_back_who_can_wait_and_loses_what_may_be_lost() -> None:
    async with _raw(most=100_000) as (ours, raw):
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            for _ in range(200):
                await ours.channel.send(Tell("", bytes(50_000)))
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all)
            await wait_all_tasks_blocked()
            assert 2 < sent < 100  # the system's buffers, and ours
            assert ours.channel.statistics().waiting < 200_000
            assert not ours.channel.offer(Tell("event"))
            assert ours.channel.dropped == 1
            held = sent
            reader: Reader[Kinds] = Reader(decoder(Kinds))
            found: list[tuple[int, Kinds]] = []
            while len(found) < 200:
                found += reader.feed(await raw.recv(1 << 20))
            assert held < sent == 200
        assert ours.channel.offer(Tell("event"))


async def test_answers_pass_a_full_buffer() -> None:
    """Two ends that fill each other must not wait for each other."""
    async with _two(most=10_000) as (ours, theirs):

        async def ask(side: Side) -> None:
            for _ in range(100):
                assert await side.channel.ask(Ask(1)) == Ask(2)
                await side.channel.send(Tell("", bytes(30_000)))

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for side in (ours, theirs) * 4:
                    nursery.start_soon(ask, side)


async def test_death_is_told_once_and_to_all_who_wait() -> None:
    async with _two() as (ours, theirs):
        reasons: list[str] = []

        async def ask() -> None:
            try:
                await ours.channel.ask(Ask(-1))
            except ChannelGone as gone:
                reasons.append(str(gone))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            theirs.channel.close("enough")
        assert reasons == ["closed by the peer"] * 3
        await wait_all_tasks_blocked()
        assert ours.why == ["closed by the peer"]
        assert theirs.why == ["enough"]
        with pytest.raises(ChannelGone, match="closed by the peer"):
            await ours.channel.ask(Ask(1))
        with pytest.raises(ChannelGone):
            await ours.channel.send(Ask(1))
        assert not ours.channel.offer(Ask(1))
        ours.channel.post(Ask(1))
        await ours.channel.flush()


async def test_what_was_said_before_the_end_is_heard() -> None:
    """The last answers of a process that is killed are true, also where we find out by writing to it."""
    end, raw = pair()
    ours = Side(end)
    raw.sendall(b"".join(frame(0, Ask(n)) for n in range(1000)))
    raw.close()
    ours.channel.post(Tell("to nobody", bytes(10_000)))
    await ours.run()
    assert ours.got == [Ask(n) for n in range(1000)]
    assert ours.why == ["closed by the peer"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (frame(0, Ask(1)) + b"\x01\0\0\0\xc1", "no message"),
        (frame(0, Ask(1)) + b"\xff\xff\xff\xff", "4294967295 octets"),
        (frame(-1, Ask(1)), "question 1, which nobody asked"),
    ],
)
async def test_garbage_is_a_dead_peer(data: bytes, why: str) -> None:
    async with _raw() as (ours, raw):
        await raw.send(data)
        with trio.fail_after(5):
            while not ours.why:
                await trio.lowlevel.checkpoint()
        assert why in ours.why[0]
        assert await raw.recv(1) == b""  # it is hung up on


async def test_a_cancelled_question_is_not_answered_to_another() -> None:
    async with _raw() as (ours, raw):
        with trio.move_on_after(0.01):
            await ours.channel.ask(Ask(1))
        await raw.send(frame(-1, Ask(666)))

        async def answer() -> None:
            await wait_all_tasks_blocked()
            await raw.send(frame(-2, Ask(3)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            assert await ours.channel.ask(Ask(2)) == Ask(3)
        assert not ours.why


async def test_a_silent_peer_is_dead_and_a_quiet_one_is_not(autojump_clock: MockClock) -> None:
    async with _two(beats=5.0, silence=30.0) as (ours, theirs):
        await trio.sleep(600)  # both say nothing but that they live
        assert not ours.why
        assert not theirs.why
    async with _raw(beats=5.0, silence=30.0) as (ours, raw):
        start = trio.current_time()
        await raw.send(BEAT)
        await trio.sleep(31)
        assert not ours.why
        while not ours.why:  # noqa: ASYNC110 - asks from outside
            await trio.sleep(1)
        assert ours.why == ["silent for 30 s"]
        assert trio.current_time() - start <= 36


async def test_who_slept_itself_takes_nobody_for_dead(mock_clock: MockClock) -> None:
    """A machine that is suspended for an hour: both ends wake, and neither counts the hour."""
    async with _two(beats=5.0, silence=30.0) as (ours, theirs):
        for _ in range(20):
            await wait_all_tasks_blocked()
            mock_clock.jump(3600.0)
        await wait_all_tasks_blocked()
        assert not ours.why + theirs.why


async def test_cancelled_in_the_middle_the_socket_is_closed() -> None:
    async with _two() as (ours, theirs):
        pass
    assert ours.why == theirs.why == []
    assert ours.channel.gone == "closed here"
    with pytest.raises(ChannelGone):
        await ours.channel.ask(Ask(1))


def test_a_child_takes_over_its_end_and_hands_it_to_nobody() -> None:
    one, other = pair()
    one.set_inheritable(True)
    taken = inherited(one.detach())
    assert not taken.get_inheritable()
    taken.close()
    other.close()
