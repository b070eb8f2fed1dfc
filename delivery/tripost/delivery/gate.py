"""what a worker passes before it opens a connection

The site's bounds for its sockets: room for those of a race, the rate of
connections; and while the site is in doubt (the last connection was refused,
none was good since) one attempt at a time, so that connections that end
together are not refused together. Who waits goes one by one, also when the first is good.

Promise  Nobody waits for another's attempt longer than PATIENCE seconds.
Fails    `Crowded`: meanwhile fewer are allowed, and this one is too many.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from tripost.delivery.links import Spare
from tripost.delivery.outside import Outside
from tripost.delivery.site import Site

PATIENCE = 5.0


class Crowded(Exception):
    """The site takes no connection more: the message is to go back."""


class Gate(Spare):
    """Of one worker. `begun`: how many the site had refused when the last attempt began."""

    def __init__(self, site: Site, outside: Outside) -> None:
        self._site = site
        self._out = outside
        self.begun = 0

    @property
    def paced(self) -> bool:
        return bool(self._site.terms.connection_rate.count)

    async def take(self) -> bool:
        return self._site.connecting.wait(self._out.clock.now()) <= 0 and self._out.crowd.extra(self._site)

    def give(self) -> None:
        self._out.crowd.extra_gone(self._site)

    async def ready(self) -> None:
        site, now = self._site, self._out.clock.now
        async with site.door:
            waited = False
            while (wait := site.connecting.wait(now())) > 0:
                waited = True
                await trio.sleep(wait)
            site.connecting.take(now(), waited=waited)
            if site.connecting.slow:
                await self._out.crowd.remember(site)

    @asynccontextmanager
    async def attempt(self) -> AsyncGenerator[None]:
        """Around one, until it is greeted or refused. Raises Crowded."""
        site, alone = self._site, False
        if site.window.doubtful or site.doubt.locked():
            with trio.move_on_after(PATIENCE):
                await site.doubt.acquire()
                alone = True
        try:
            if site.surplus:
                raise Crowded
            self.begun = site.window.refusals
            yield
        finally:
            if alone:
                site.doubt.release()
