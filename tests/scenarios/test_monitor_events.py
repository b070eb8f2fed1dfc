"""/events: from a number on, over restarts, without a gap or with one that is told; /trace"""

from __future__ import annotations

import json
import pathlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio_websocket import WebSocketConnection, open_websocket_url

from support.gateways import TOML, Running, running
from support.steering import send


@asynccontextmanager
async def events(gateway: Running, query: str = "", path: str = "events") -> AsyncGenerator[WebSocketConnection]:
    async with open_websocket_url(f"ws://127.0.0.1:{gateway.monitor}/{path}{query}") as socket:
        yield socket


async def until(socket: WebSocketConnection, **wanted: Any) -> list[dict[str, Any]]:
    """What comes up to a message with these members."""
    found: list[dict[str, Any]] = []
    with trio.fail_after(20):
        while not found or any(found[-1].get(name) != value for name, value in wanted.items()):
            found.append(json.loads(await socket.get_message()))
    return found


async def sent(gateway: Running, to: str = "marc@machin.com") -> str:
    ids = await trio.to_thread.run_sync(send, gateway, to)
    return ids[0]


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return [one["seq"] for one in found if "event" in one]


async def test_events_go_on_after_a_restart_without_a_gap(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway:
        async with events(gateway) as socket:
            first = json.loads(await socket.get_message())
            assert first["kind"] == "hello"
            id = await sent(gateway)
            seen = await until(socket, event="delivered", id=id)
            assert numbers(seen) == list(range(seen[0]["seq"], seen[0]["seq"] + len(seen)))
        at = seen[-1]["seq"]
        missed = await sent(gateway)
        await trio.to_thread.run_sync(gateway.stop)
        await trio.to_thread.run_sync(gateway.start)
        async with events(gateway, f"?after={at}") as socket:
            hello = json.loads(await socket.get_message())
            assert hello["boot"] > first["boot"]
            assert hello["first"] <= at
            id = await sent(gateway)
            rest = await until(socket, event="delivered", id=id)
        assert [one for one in rest if one.get("kind") == "gap"] == []
        assert {"stopped", "started"} <= {one["event"] for one in rest}
        assert [one["event"] for one in rest if one.get("id") == missed and one["event"] != "attempted"] == [
            "accepted",
            "routed",
            "delivered",
        ]
        logged = [row["seq"] for row in gateway.events() if at < row["seq"] <= rest[-1]["seq"]]
        assert numbers(rest) == logged  # what the log has, each once


async def test_what_a_kill_may_have_lost_is_told(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway:
        async with events(gateway) as socket:
            id = await sent(gateway)
            seen = (await until(socket, event="delivered", id=id))[1:]
        await trio.sleep(0.5)  # it is written
        await trio.to_thread.run_sync(gateway.kill)
        with (tmp_path / "state" / "events" / "current").open("ab") as file:
            file.write(b'{"event":"acc')  # torn
        await trio.to_thread.run_sync(gateway.start)
        async with events(gateway, f"?after={seen[0]['seq']}") as socket:
            found = await until(socket, event="started")
        assert [one["event"] for one in found[1:] if "event" in one and one["seq"] <= seen[-1]["seq"]] == [
            one["event"] for one in seen[1:] if "event" in one
        ]
        (gap,) = [one for one in found if one.get("kind") == "gap"]
        assert gap["reason"] == "killed"
        assert gap["after"] >= seen[-1]["seq"]


async def test_what_other_processes_do_is_told_too(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, toml="processes = 2\n" + TOML) as gateway:
        async with events(gateway) as socket, events(gateway, "?service=smtp", "trace") as trace:
            assert json.loads(await trace.get_message()) == {"tracing": True}
            id = await sent(gateway)
            seen = await until(socket, event="delivered", id=id)
            assert {"connected", "accepted", "delivered"} <= {one.get("event") for one in seen}
            assert numbers(seen) == list(range(seen[1]["seq"], seen[1]["seq"] + len(seen) - 1))
            await until(trace, text=f"250 2.0.0 queued as {id}")


async def test_numbers_that_are_not_there(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway:
        async with events(gateway, "?after=1") as socket:
            found = await until(socket, event="started")
            assert [one["reason"] for one in found if one.get("kind") == "gap"] == ["old"]
        future = found[-1]["seq"] + 10**9
        async with events(gateway, f"?after={future}") as socket:
            id = await sent(gateway)
            found = await until(socket, event="delivered", id=id)
            assert [one["reason"] for one in found if one.get("kind") == "gap"] == ["future"]
        async with events(gateway, "?after=0") as socket:
            found = await until(socket, event="delivered", id=id)
            assert [one for one in found if one.get("kind") == "gap"] == []
            assert found[1]["event"] == "started"


async def test_only_what_is_asked_for(tmp_path: pathlib.Path) -> None:
    route = '[[route]]\ndomain = "nobody.example"\nto = "discard"\n'
    with running(tmp_path, route) as gateway:
        async with (
            events(gateway, "?event=accepted,delivered") as kinds,
            events(gateway, "?domain=nobody.example&event=accepted,discarded") as domain,
            events(gateway, "?address=MARC@*") as address,
            events(gateway, "?client=127.0.0.0/8&service=smtp&event=connected") as client,
        ):
            other = await sent(gateway, "x@nobody.example")
            id = await sent(gateway)
            assert [one.get("event") for one in await until(kinds, event="delivered", id=id)] == [
                None,
                "accepted",
                "accepted",
                "delivered",
            ]
            assert {one.get("id") for one in await until(domain, event="discarded")} == {None, other}
            assert {one.get("id") for one in await until(address, event="delivered")} == {None, id}
            assert len(await until(client, event="connected")) == 2


async def test_the_dialogue_of_a_session_is_told_without_its_content(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway:
        async with events(gateway, "?service=smtp", "trace") as socket:
            assert json.loads(await socket.get_message()) == {"tracing": True}
            await sent(gateway)
            found = await until(socket, text="rcpt TO:<marc@machin.com>")
            found += await until(socket, direction=">")
            assert "Subject" not in json.dumps(found)
        async with events(gateway, "?seconds=0.2", "trace") as socket:
            assert json.loads(await socket.get_message()) == {"tracing": True}
