"""which domains say that they take no mail (null MX, RFC 7505)

For those who take mail in: whoever is told at once needs no report, and a
sender's domain that takes no mail gets none either.

Promise  An answer within PATIENCE seconds; who is not known by then is taken to take
         mail, and delivery will see. Many who ask about one domain are one question.
         After a silence no new question is asked for REST seconds: a client with a
         thousand recipients does not wait for a thousand.
Bounds   MOST answers, each for its TTL; UNSURE seconds where there was none; ASKING
         questions at a time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import trio

PATIENCE = 1.0
REST = 30.0
UNSURE = 60.0
ASKING = 100
MOST = 10_000


class NullMx:
    """`ask(domain)` gives (is there a null MX?, seconds for which that holds)."""

    def __init__(self, ask: Callable[[str], Awaitable[tuple[bool, float]]], now: Callable[[], float]) -> None:
        self._ask = ask
        self._now = now
        self._known: OrderedDict[str, tuple[bool, float]] = OrderedDict()
        self._asked: dict[str, trio.Event] = {}
        self._resting = -math.inf  # until then

    async def __call__(self, domain: str) -> bool:
        """Does it take no mail?"""
        found = self._known.get(domain)
        if found is not None and found[1] > self._now() and domain not in self._asked:
            return found[0]
        if domain not in self._asked and (self._now() < self._resting or len(self._asked) >= ASKING):
            return False
        with trio.move_on_after(PATIENCE) as scope:
            if domain in self._asked:
                await self._asked[domain].wait()
            else:
                await self._find(domain)
        if scope.cancelled_caught:
            self._resting = self._now() + REST
        return self._known.get(domain, (False, 0.0))[0]

    async def _find(self, domain: str) -> None:
        event = self._asked[domain] = trio.Event()
        self._keep(domain, False, UNSURE)
        try:
            self._keep(domain, *await self._ask(domain))
        finally:
            del self._asked[domain]
            event.set()

    def _keep(self, domain: str, answer: bool, seconds: float) -> None:
        self._known.pop(domain, None)
        self._known[domain] = answer, self._now() + seconds
        if len(self._known) > MOST:
            self._known.popitem(last=False)
