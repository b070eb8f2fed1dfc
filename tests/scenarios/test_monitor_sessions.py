"""who may look and act after a logout, a restart and a reload; websockets that were opened before it"""

from __future__ import annotations

import json
import pathlib

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from support.gateways import Running, running
from support.monitor import ACT, LOOK, Caller, write_tokens

FAR = {"X_Forwarded_For": "192.0.2.7"}  # as a proxy on this machine has it
OTHER = "another-token-that-acts"


def logged_in(gateway: Running) -> Caller:
    one = Caller(gateway, "", **FAR, Origin=f"http://127.0.0.1:{gateway.monitor}")
    let_in = one.post("/login", token=ACT)
    assert let_in.status == 204
    one.headers["Cookie"] = let_in.headers["set-cookie"].partition(";")[0]
    return one


async def closed(socket: WebSocketConnection) -> int | None:
    """With what code."""
    with trio.fail_after(20):
        while True:
            try:
                await socket.get_message()
            except ConnectionClosed as over:
                await socket._close_stream()  # the library leaves it open when the other side closes
                return over.reason.code if over.reason else None


async def test_who_logged_out_stays_out_over_a_restart_and_watches_no_more(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, write_tokens(tmp_path)) as gateway:
        out, stays = logged_in(gateway), logged_in(gateway)
        headers = [list(one.headers.items()) for one in (out, stays)]
        url = f"ws://127.0.0.1:{gateway.monitor}"
        async with (
            open_websocket_url(f"{url}/live", extra_headers=headers[0]) as live,
            open_websocket_url(f"{url}/events", extra_headers=headers[0]) as events,
            open_websocket_url(f"{url}/live", extra_headers=headers[1]) as other,
        ):
            assert (await trio.to_thread.run_sync(out.ask, "POST", "/logout")).status == 204
            assert [await closed(live), await closed(events)] == [1008, 1008]
            assert (await trio.to_thread.run_sync(out.get, "/api/v1/session")).status == 401
            for _ in range(3):
                assert json.loads(await other.get_message())["kind"] in ("snapshot", "delta")
        await trio.to_thread.run_sync(gateway.stop)
        kept = tmp_path / "state" / "monitor.loggedout"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert out.headers["Cookie"].partition("=")[2] not in kept.read_text()  # it is no cookie
        await trio.to_thread.run_sync(gateway.start)
        assert (await trio.to_thread.run_sync(out.get, "/api/v1/session")).status == 401
        again = await trio.to_thread.run_sync(stays.get, "/api/v1/session")
        assert again.json["may"] == "act"


async def test_a_reload_takes_other_tokens_or_none(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, write_tokens(tmp_path)) as gateway:
        session, token = logged_in(gateway), tmp_path / "act.token"
        url = f"ws://127.0.0.1:{gateway.monitor}/live"
        acts, looks = [[*FAR.items(), ("Authorization", f"Bearer {one}")] for one in (ACT, LOOK)]
        async with (
            open_websocket_url(url, extra_headers=acts) as gone,
            open_websocket_url(url, extra_headers=looks) as stays,
            open_websocket_url(url) as local,
        ):
            token.write_text("short\n")
            refused = await trio.to_thread.run_sync(gateway.command, "reload")
            assert (refused.returncode, "act.token: a token is" in refused.stderr) == (2, True), refused.stderr
            assert (await trio.to_thread.run_sync(session.get, "/api/v1/session")).json["may"] == "act"
            token.write_text(f"{OTHER}\n")
            done = await trio.to_thread.run_sync(gateway.command, "reload")
            assert done.returncode == 0, done.stderr
            assert await closed(gone) == 1008
            for one in (stays, local):
                assert json.loads(await one.get_message())["kind"] in ("snapshot", "delta")
        for asker, status in ((Caller(gateway, ACT), 401), (Caller(gateway, OTHER), 200), (session, 401)):
            found = await trio.to_thread.run_sync(asker.get, "/api/v1/session")
            assert found.status == status
