"""a stream with few layers on real sockets"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tripost.delivery.fast_stream import FastStream


@asynccontextmanager
async def pair() -> AsyncGenerator[tuple[FastStream, trio.SocketStream]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as other:
        one = FastStream(ours)
        with trio.fail_after(10):
            yield one, other
        one.close()


async def test_there_and_back() -> None:
    async with pair() as (one, other):
        await one.send_all(b"hello")
        assert await other.receive_some() == b"hello"
        await other.send_all(b"abcdef")
        assert await one.receive_some(4) == b"abcd"
        assert await one.receive_some() == b"ef"
        await other.send_eof()
        assert await one.receive_some() == b""


async def test_what_does_not_fit_at_once_waits() -> None:
    data = bytes(range(256)) * 8192
    async with pair() as (one, other), trio.open_nursery() as nursery:
        nursery.start_soon(one.send_all, data)
        got = b""
        while len(got) < len(data):
            await trio.sleep(0.001)
            got += await other.receive_some(65_536)
        assert got == data
        while one.send_now(b"x" * 65_536):
            pass
        assert one.send_now(b"x") == 0


async def test_a_peer_that_is_gone() -> None:
    async with pair() as (one, other):
        await other.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await one.send_all(b"x")
        assert await one.receive_some() == b""


async def test_closed_is_closed() -> None:
    async with pair() as (one, _):
        await one.aclose()
        for act in (one.receive_some, lambda: one.send_all(b"x")):
            with pytest.raises(trio.ClosedResourceError):
                await act()


async def test_closing_wakes_who_reads() -> None:
    async with pair() as (one, _), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await one.receive_some()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        one.close()


async def test_reading_can_be_cancelled() -> None:
    async with pair() as (one, other):
        with trio.move_on_after(0.01) as scope:
            await one.receive_some()
        assert scope.cancelled_caught
        await other.send_all(b"later")
        assert await one.receive_some() == b"later"
