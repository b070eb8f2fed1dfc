"""`tripost top`: the model, a screen or lines, and a gateway, put together

Four tasks: what the gateway tells, keys, signals, and drawing twice a second and after
each key. Questions are put one at a time, beside the rest.

Exit     0 left; 1 the gateway says no (401); 3 none answers. A gateway that answered
         once is waited for.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from tripost.gateway.top import plain
from tripost.gateway.top.drawing import draw
from tripost.gateway.top.link import Link, Rejected, Unanswered, Where
from tripost.gateway.top.model import Ask, Model

if TYPE_CHECKING:
    from tripost.gateway.top.screen import Screen

TICK = 0.5  # seconds
PATIENCE = 3.0  # seconds for the first line
SEARCH = 5.0  # seconds between two searches for what a filter wants


def failure(where: Where, wrong: BaseException) -> tuple[int, str]:
    """(exit code, what to tell)."""
    if isinstance(wrong, Rejected):
        if wrong.status == 401:
            return 1, f"the gateway at {where.shown} wants a token ({wrong}): --token-file FILE"
        return 1, f"the gateway at {where.shown} refuses: {wrong}"
    return 3, f"no gateway answers at {where.shown}: {wrong}"


class Watching:
    """On a screen."""

    def __init__(self, link: Link, screen: Screen, now: Callable[[], float] = time.time) -> None:
        self._link = link
        self._screen = screen
        self._now = now
        self.model = Model()
        self._some = trio.Event()  # something is to be drawn before the next tick
        self._asks: list[Ask] = []
        self._asked = trio.Event()

    async def run(self) -> None:
        """Until it is left. Raises Unanswered, Rejected, in groups."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._link.follow, self.model.told, self.model.lost)
            nursery.start_soon(self._hear, nursery.cancel_scope)
            nursery.start_soon(self._signals, nursery.cancel_scope)
            nursery.start_soon(self._put_questions)
            nursery.start_soon(self._search_again)
            while True:
                self._draw()
                with trio.move_on_after(TICK):
                    await self._some.wait()
                self._some = trio.Event()

    def _draw(self) -> None:
        self._screen.show(draw(self.model, *self._screen.size(), self._now()))

    async def _hear(self, scope: trio.CancelScope) -> None:
        while not self.model.ended:
            try:
                keys = await self._screen.keys()
            except EOFError:
                break
            for key in keys:
                self._put(self.model.key(key))
            self._some.set()
        scope.cancel()

    async def _signals(self, scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGWINCH, signal.SIGTSTP, signal.SIGTERM, signal.SIGHUP) as received:
            async for number in received:
                if number in (signal.SIGTERM, signal.SIGHUP):
                    scope.cancel()
                elif number == signal.SIGTSTP:
                    self._screen.suspend()
                self._screen.redraw()
                self._some.set()

    # --- questions ---

    def _put(self, ask: Ask | None) -> None:
        if ask is not None:
            self._asks.append(ask)
            self._asked.set()

    async def _put_questions(self) -> None:
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            while self._asks:
                ask = self._asks.pop(0)
                try:
                    rows, sums = await self._link.ask(ask.path, ask.arguments, post=ask.post)
                except Rejected as wrong:
                    self.model.refused(ask, wrong.status, str(wrong))
                except Unanswered as wrong:
                    self.model.refused(ask, 0, str(wrong))
                else:
                    self._put(self.model.answered(ask, rows, sums))
                self._some.set()

    async def _search_again(self) -> None:
        while True:
            await trio.sleep(SEARCH)
            if not self._asks:
                self._put(self.model.again())


async def write_lines(link: Link, *, as_json: bool, interval: float, most: int) -> None:
    """A line each `interval` seconds on stdout, `most` of them, 0 for no end. Raises Unanswered, Rejected."""
    newest: dict[str, Any] = {}
    some = trio.Event()

    def told(state: dict[str, Any]) -> None:
        newest.clear()
        newest.update(state)
        if state.get("sampled"):
            some.set()

    def lost(why: str) -> None:
        newest.clear()
        print(f"tripost: {why}", file=sys.stderr, flush=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.follow, told, lost)
        written = 0
        with trio.move_on_after(PATIENCE):  # the queue is looked at only since somebody watches
            await some.wait()
        while True:
            if newest:
                print(plain.row(newest).decode() if as_json else plain.line(newest, time.time()), flush=True)
                written += 1
                if written == most:
                    nursery.cancel_scope.cancel()
            await trio.sleep(interval)
