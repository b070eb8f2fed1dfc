"""from the running parts to the `monitor` listener

API      `Monitor(config, sources, file)`: `serve` is the listener's handler, `run` what
         paints the picture.
"""

from __future__ import annotations

import secrets

import msgspec
from trio_websocket import WebSocketConnection

from tripost.gateway.monitor.api import Api
from tripost.gateway.monitor.api_table import PREFIX
from tripost.gateway.monitor.auth import Doorman
from tripost.gateway.monitor.events import Events, Traces
from tripost.gateway.monitor.http import Request, Response
from tripost.gateway.monitor.live import Live
from tripost.gateway.monitor.provider import Sources
from tripost.gateway.monitor.server import Caller, Server
from tripost.gateway.monitor.static import Static
from tripost.gateway.monitor.tokens import read_tokens
from tripost.gateway.monitor.wire import Wire
from tripost.gateway.observe.event_file import EventFile
from tripost.gateway.settings import Config
from tripost.gateway.wiring_metrics import make_metrics


class Monitor:
    """Raises TokenError."""

    def __init__(self, config: Config, sources: Sources, file: EventFile) -> None:
        doorman = Doorman(read_tokens(config), config.monitor.origins, secrets.token_bytes)
        self._live = Live(sources)
        self.run = self._live.run
        server = Server(sources, doorman)
        self.serve = server.serve

        async def live(socket: WebSocketConnection, wire: Wire, request: Request, caller: Caller) -> None:
            await self._live.serve(socket, wire)

        async def static(request: Request, caller: Caller) -> Response:
            return files.answer(request)

        async def told(request: Request, caller: Caller) -> Response:
            kind, body = await metrics.text(request.headers.get("accept", ""))
            return Response(kind=kind, body=body)

        events, traces = Events(sources, file, self._live), Traces(sources, self._live)
        server.feed("/events", events.serve, events.check)
        server.feed("/trace", traces.serve, traces.check)
        metrics = make_metrics(config, sources, lambda: self._live.clients)
        server.route("/metrics", told)
        files = Static()
        server.route(f"{PREFIX}/*", Api(sources, doorman).answer)
        server.route("/asyncapi.json", _asyncapi)
        server.feed("/live", live)
        server.route("/", static)
        server.route("/static/*", static)


async def _asyncapi(request: Request, caller: Caller) -> Response:
    from tripost.gateway.monitor.asyncapi import asyncapi

    return Response(body=msgspec.json.encode(asyncapi()))
