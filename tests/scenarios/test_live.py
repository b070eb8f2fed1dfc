"""/live sends the queue's figures once a second"""

from __future__ import annotations

import json
import pathlib

import trio
from trio_websocket import open_websocket_url

from support.gateways import running


async def test_live_figures(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway, trio.fail_after(20):
        async with open_websocket_url(f"ws://127.0.0.1:{gateway.monitor}/live") as socket:
            first = json.loads(await socket.get_message())
            second = json.loads(await socket.get_message())
        assert first["queue"]["queued"] == 0
        assert 0.5 < second["time"] - first["time"] < 5
        # raw: the library's client leaves its socket open when it is refused
        async with await trio.open_tcp_stream("127.0.0.1", gateway.monitor) as stream:
            await stream.send_all(
                b"GET /other HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 404")
