"""/live: a snapshot, then what changed, the same octets to everyone"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import msgspec
import trio
from trio_websocket import open_websocket_url

from support.gateways import running
from support.steering import send
from tripost.gateway.monitor.feed import Picture, Snapshot, merge


async def test_live_tells_what_changes(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway, trio.fail_after(30):
        async with open_websocket_url(f"ws://127.0.0.1:{gateway.monitor}/live") as socket:
            state: dict[str, Any] = json.loads(await socket.get_message())
            first = msgspec.convert(state, Snapshot)  # it is what is documented
            assert first.queue.queued == 0
            assert first.state == "serving"
            assert first.ready
            began, ticks = trio.current_time(), 0
            await trio.to_thread.run_sync(send, gateway, "marc@machin.com")
            while state["queue"]["delivered"] < 1 or ticks < 6:
                delta = json.loads(await socket.get_message())
                assert delta["kind"] == "delta"
                assert delta["tick"] == state["tick"] + 1
                state, ticks = merge(state, delta), ticks + 1
            assert 0.2 <= (trio.current_time() - began) / ticks < 1.5  # at most four a second
        async with open_websocket_url(f"ws://127.0.0.1:{gateway.monitor}/live") as socket:
            again: dict[str, Any] = json.loads(await socket.get_message())
        assert again["queue"]["delivered"] == 1
        assert set(Picture.__struct_fields__) <= set(again)
