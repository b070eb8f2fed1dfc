"""after a restart: new processes in the places of those that the image before left

Order    the manager was told to make room before; when it is dead, and its delivery
         processes are, new ones may start (`over`). Old ingress processes take
         connections until all new ones do; then they are told to finish (`done`): they
         end their sessions within their `[lifecycle] drain`. What they have written by
         their death is taken in like that of any ingress process.
Promise  at no time does nobody take connections; where a new ingress process cannot start,
         an old one goes on. Who does not end is killed.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import trio

from tripost.gateway.handover import DELIVERY, INGRESS, MANAGER
from tripost.gateway.lifecycle import HANDING
from tripost.gateway.processes.child import Child
from tripost.queue.board import Board

CLOSING = 10.0  # seconds beyond HANDING in which a manager closes the spool
LOOK = 0.02


class Relief:
    """`before`: those of the image before that are not dead yet; `finish`: seconds for ingress; `died` is called once
    for ingress and manager."""

    def __init__(self, before: list[Child], finish: float, died: Callable[[Child], Awaitable[None]]) -> None:
        self.before = before
        self.over = trio.Event()
        self.done = trio.Event()
        self._finish = finish
        self._died = died

    async def run(self, board: Board, rows: list[int]) -> None:
        """`rows`: of the new ingress processes."""
        async with trio.open_nursery() as nursery:
            for one in [one for one in self.before if one.role == INGRESS]:
                nursery.start_soon(self._ingress, one)
            await self._managers()
            self.over.set()
            while not all(board.accepts(row) for row in rows):  # noqa: ASYNC110  (shared memory)
                await trio.sleep(LOOK)
            for one in self.before:
                if not one.finishing:
                    one.finishing = True
                    one.signal(signal.SIGTERM)
            self.done.set()

    async def _managers(self) -> None:
        for one in [one for one in self.before if one.role == MANAGER]:
            one.finishing = True
            with trio.move_on_after(HANDING + CLOSING):
                await one.wait()
            one.signal(signal.SIGKILL)
            await one.wait()
            await self._died(one)  # kills those that deliver
            self._forget(one)
        for one in [one for one in self.before if one.role == DELIVERY]:
            one.signal(signal.SIGKILL)
            await one.wait()
            self._forget(one)

    async def _ingress(self, one: Child) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._limit, one)
            await one.wait()
            nursery.cancel_scope.cancel()
        await self._died(one)
        self._forget(one)

    async def _limit(self, one: Child) -> None:
        if not one.finishing:
            await self.done.wait()
        await trio.sleep(self._finish)
        one.signal(signal.SIGKILL)

    def _forget(self, one: Child) -> None:
        self.before.remove(one)
        one.gone.set()


def free_rows(before: list[Child], count: int) -> list[int]:
    """As many rows of the board as are wanted: the first ones in which nobody writes."""
    taken = {one.number for one in before if one.role == INGRESS}
    return [row for row in range(1, count + len(taken) + 1) if row not in taken][:count]
