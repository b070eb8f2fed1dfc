"""what `tripost trace` asks of a running gateway: the dialogue of live sessions, until the client goes

Fails    `Refused` for what cannot be meant, and when too many trace already.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import AsyncGenerator
from typing import Literal

import msgspec
import trio

from tripost.gateway.control.frames import Answer, End, Row
from tripost.gateway.control.server import Refused, Verb
from tripost.queue.dialogue import TRACERS, Network, TooMany, Tracing, Wanted

SIGN_OF_LIFE = 5.0  # seconds after which an empty row is sent: so we notice a client that is gone, and it a gateway


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`client`: an address or a network; `seconds` 0: until the client goes."""

    client: str = ""
    destination: str = ""
    service: Literal["", "smtp", "submission", "lmtp", "pop3", "delivery"] = ""
    seconds: float = 0.0


class TraceVerb:
    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    @property
    def verbs(self) -> dict[str, Verb]:
        return {"trace": self._trace}

    async def _trace(self, arguments: dict[str, object], who: str) -> AsyncGenerator[Answer, None]:
        try:
            asked = msgspec.convert(arguments, Asked)
            client: Network | None = ipaddress.ip_network(asked.client, strict=False) if asked.client else None
        except (msgspec.ValidationError, ValueError) as wrong:
            raise Refused(f"not understood: {wrong}", 2) from wrong
        wanted = Wanted(client=client, destination=asked.destination, service=asked.service)
        lines = dropped = 0
        end = trio.current_time() + (asked.seconds or math.inf)
        try:
            with self._tracing.listen(wanted) as tracer:
                yield Row({"tracing": True})
                while (now := trio.current_time()) < end:
                    line = None
                    with trio.move_on_at(min(end, now + SIGN_OF_LIFE)):
                        line = await tracer.receive()
                    if line is not None:
                        lines += 1
                        yield Row(msgspec.to_builtins(line))
                    elif now + SIGN_OF_LIFE < end:
                        yield Row({})
                    if tracer.dropped > dropped:
                        yield Row({"dropped": tracer.dropped - dropped})
                        dropped = tracer.dropped
        except TooMany:
            raise Refused(f"{TRACERS} traces are under way, as many as there may be") from None
        yield End({"lines": lines, "dropped": dropped})
