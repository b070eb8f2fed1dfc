"""from the running parts to the `monitor` listener

API      `Monitor(config, sources, file)`: `serve` is the listener's handler, `run` what
         paints the picture.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

import msgspec
import trio
from trio_websocket import WebSocketConnection

from tripost.gateway.monitor.api import Api
from tripost.gateway.monitor.api_table import PREFIX
from tripost.gateway.monitor.auth import Doorman
from tripost.gateway.monitor.events import Events, Traces
from tripost.gateway.monitor.http import Request, Response
from tripost.gateway.monitor.live import Live
from tripost.gateway.monitor.provider import Sources
from tripost.gateway.monitor.server import Caller, Server
from tripost.gateway.monitor.sessions import FILE, keep, logged_out
from tripost.gateway.monitor.static import Static
from tripost.gateway.monitor.tokens import TokenError, read_tokens
from tripost.gateway.monitor.wire import Wire
from tripost.gateway.observe.event_file import EventFile
from tripost.gateway.peer import Peer
from tripost.gateway.settings import Config
from tripost.gateway.wiring_metrics import make_metrics

JUDGED_EVERY = 60.0  # seconds: sessions end by themselves, too


class Monitor:
    """Raises TokenError. Nothing hears of events, and nothing is painted, where no listener is configured for it, until
    somebody comes: a reload may have made one."""

    def __init__(self, config: Config, sources: Sources, file: EventFile) -> None:
        self._config = config
        self._from = sources
        self._file = file
        self._sessions = os.path.join(config.state, FILE)
        try:
            revoked = logged_out(self._sessions, sources.now())
        except OSError as wrong:  # who was logged out must not come in
            raise TokenError(f"{self._sessions}: {wrong.strerror}") from wrong
        self._doorman = Doorman(read_tokens(config), config.monitor.origins, secrets.token_bytes, revoked)
        self._keeping = trio.Lock()
        self._server: Server | None = None
        self._live: Live
        self._begun = trio.Event()
        if not file.off:
            self._begin()

    async def serve(self, stream: trio.abc.Stream, peer: Peer) -> None:
        """One connection."""
        await (self._server or self._begin()).serve(stream, peer)

    async def run(self) -> None:
        """Until cancelled."""
        await self._begun.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._live.run)
            while True:
                await trio.sleep(JUDGED_EVERY)
                self._judge_again()

    def prepare(self, config: Config) -> Callable[[], None]:
        """What a reload puts in place: tokens and origins. Raises TokenError."""
        tokens = read_tokens(config)

        def commit() -> None:
            self._doorman.become(tokens, config.monitor.origins)
            self._judge_again()

        return commit

    def _judge_again(self) -> None:
        if self._server is not None:
            self._server.judge_again()

    async def _keep(self, session: str) -> None:
        """Raises OSError."""
        async with self._keeping:
            await trio.to_thread.run_sync(keep, self._sessions, session, self._doorman.revoked)

    def _begin(self) -> Server:
        sources = self._from
        live = self._live = Live(sources)
        server = self._server = Server(sources, self._doorman, self._keep)
        events, traces = Events(sources, self._file, live), Traces(sources, live)
        files, metrics = Static(), make_metrics(self._config, sources, lambda: live.clients)

        async def watch(socket: WebSocketConnection, wire: Wire, request: Request, caller: Caller) -> None:
            await live.serve(socket, wire)

        async def static(request: Request, caller: Caller) -> Response:
            return files.answer(request)

        async def measured(request: Request, caller: Caller) -> Response:
            kind, body = await metrics.text(request.headers.get("accept", ""))
            return Response(kind=kind, body=body)

        server.feed("/live", watch)
        server.feed("/events", events.serve, events.check)
        server.feed("/trace", traces.serve, traces.check)
        server.route("/metrics", measured)
        server.route(f"{PREFIX}/*", Api(sources, self._doorman).answer)
        server.route("/asyncapi.json", _asyncapi)
        server.route("/", static)
        server.route("/static/*", static)
        self._begun.set()
        return server


async def _asyncapi(request: Request, caller: Caller) -> Response:
    from tripost.gateway.monitor.asyncapi import asyncapi

    return Response(body=msgspec.json.encode(asyncapi()))
