"""limits that hold over all processes, as ingress processes keep them

The manager counts; while there is none, each process counts for itself, so that
a limit may be passed by as many times as there are processes, and not more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tripost.gateway.admission import FULL, Admission
from tripost.gateway.ingress.quotas import Quotas
from tripost.gateway.peer import Network, is_in
from tripost.gateway.processes.asking import Manager
from tripost.gateway.windows import Rate


class SharedAdmission(Admission):
    """`everywhere()`: connections of all processes but ours; `publish(n)`: ours, for the others."""

    def __init__(
        self,
        alone: Admission,
        most: int,
        exempt: tuple[Network, ...],
        manager: Manager,
        everywhere: Callable[[], int],
        publish: Callable[[int], None],
    ) -> None:
        super().__init__(most, lag=alone.lag)
        self._alone = alone  # for times without a manager
        self._free = exempt
        self._manager = manager
        self._everywhere = everywhere
        self._publish = publish
        self._shared: Counter[str] = Counter()  # of clients that are not exempt, as they came in

    def become(self, other: Admission) -> None:
        """Its limits, with our connections."""
        self._alone.become(other)
        self.most, self._free, self.lag = other.most, other.exempt, other.lag

    @property
    def full(self) -> bool:
        return self.open + self._everywhere() >= self.most

    async def ask(self, client: str, now: float) -> str:
        if self.full:
            self.refused += 1
            return FULL
        why = ""
        self.open += 1  # counted at once, so that nobody passes while the manager is asked
        self._publish(self.open)
        if client and not is_in(client, self._free):
            try:
                found = await self._manager.enter(client)
                why = self._alone.enter(client, now) if found is None else found
            except BaseException:
                self._gone()
                raise
            if not why:
                self._shared[client] += 1
        if why:
            self.refused += 1
            self._gone()
        return why

    def leave(self, client: str) -> None:
        self._gone()
        if not self._shared[client]:  # it was exempt; also one that is not any more
            del self._shared[client]
            return
        self._shared[client] -= 1
        if not self._shared[client]:
            del self._shared[client]
        if not self._manager.leave(client):
            self._alone.leave(client)

    def _gone(self) -> None:
        self.open -= 1
        self._publish(self.open)


class SharedQuotas(Quotas):
    def __init__(self, clients: Rate, messages: Rate, recipients: Rate, manager: Manager) -> None:
        super().__init__(clients, messages, recipients)
        self._manager = manager

    async def take(self, kind: str, key: str, now: float) -> float:
        wait = await self._manager.take(kind, key, 1)
        return await super().take(kind, key, now) if wait is None else wait

    def give_back(self, kind: str, key: str, now: float) -> None:
        self._manager.give(kind, key, 1)
