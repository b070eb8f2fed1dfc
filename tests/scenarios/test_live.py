"""/live sends the queue's figures once a second"""

from __future__ import annotations

import json
import pathlib

import pytest
import trio
from trio_websocket import HandshakeError, open_websocket_url

from support.gateways import running


async def test_live_figures(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway, trio.fail_after(20):
        async with open_websocket_url(f"ws://127.0.0.1:{gateway.monitor}/live") as socket:
            first = json.loads(await socket.get_message())
            second = json.loads(await socket.get_message())
        assert first["queue"]["queued"] == 0
        assert 0.5 < second["time"] - first["time"] < 5
        with pytest.raises(HandshakeError):
            async with open_websocket_url(f"ws://127.0.0.1:{gateway.monitor}/other"):
                pass
