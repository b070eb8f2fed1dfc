"""/live: a snapshot, then what changed, the same octets to everyone"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jsonschema
import msgspec
import trio
from trio_websocket import open_websocket_url

from support.gateways import running
from support.steering import send
from tripost.gateway.monitor.feed import Picture, Snapshot, merge

DOCUMENT = json.loads((pathlib.Path(__file__).resolve().parents[2] / "docs" / "asyncapi.json").read_text())


def as_documented(message: dict[str, Any]) -> None:
    name = "Snapshot" if message["kind"] == "snapshot" else "Delta"
    jsonschema.validate(message, {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


async def test_everyone_gets_the_same_octets(tmp_path: pathlib.Path) -> None:
    """Raw: what comes over two sockets, from the same tick on."""
    handshake = (
        b"GET /live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    got = [b"", b""]

    async def watch(port: int, number: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(handshake)
            while got[number].count(b'"kind":"delta"') < 8:
                got[number] += await stream.receive_some()

    with running(tmp_path) as gateway, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, gateway.monitor, 0)
            nursery.start_soon(watch, gateway.monitor, 1)
    told = [{one.partition(b",")[0]: one for one in raw.split(b'{"kind":"delta","tick":')[1:-1]} for raw in got]
    common = told[0].keys() & told[1].keys()
    assert len(common) >= 5
    assert [tick for tick in common if told[0][tick] != told[1][tick]] == []


async def test_live_tells_what_changes(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway, trio.fail_after(30):
        async with open_websocket_url(f"ws://127.0.0.1:{gateway.monitor}/live") as socket:
            state: dict[str, Any] = json.loads(await socket.get_message())
            first = msgspec.convert(state, Snapshot)  # it is what is documented
            as_documented(state)
            assert first.queue.queued == 0
            assert first.state == "serving"
            assert first.ready
            began, ticks = trio.current_time(), 0
            await trio.to_thread.run_sync(send, gateway, "marc@machin.com")
            while state["queue"]["delivered"] < 1 or ticks < 6:
                delta = json.loads(await socket.get_message())
                assert delta["kind"] == "delta"
                as_documented(delta)
                assert delta["tick"] == state["tick"] + 1
                state, ticks = merge(state, delta), ticks + 1
            assert 0.2 <= (trio.current_time() - began) / ticks < 1.5  # at most four a second
        async with open_websocket_url(f"ws://127.0.0.1:{gateway.monitor}/live") as socket:
            again: dict[str, Any] = json.loads(await socket.get_message())
        assert again["queue"]["delivered"] == 1
        assert set(Picture.__struct_fields__) <= set(again)
