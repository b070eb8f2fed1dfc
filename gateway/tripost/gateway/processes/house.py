"""what the manager has of the other processes

Their board and bell, the sockets that the supervisor holds for it, their limits
and events (`answering`), what the supervisor tells of their deaths, and restarts.
A reload is the supervisor's: it is asked, and told when it is over (`reported`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import msgspec
import trio

from tripost.delivery.processes.crew import Crew
from tripost.delivery.routing import Refusal
from tripost.gateway.admission import Admission
from tripost.gateway.guard import Guard
from tripost.gateway.ingress.quotas import Quotas
from tripost.gateway.inherited import Inherited
from tripost.gateway.listening import Listening
from tripost.gateway.processes.answering import Ingress
from tripost.gateway.processes.hand import CONTROL, RESTART, Bell, Hand, News, board_of, listener_of
from tripost.gateway.processes.obeying import Obeying, link_of
from tripost.gateway.processes.orders import Changed, Present, Running, ToChild, Wanted
from tripost.gateway.processes.orders import Listening as Bound
from tripost.gateway.processes.sockets_held import is_ingress
from tripost.gateway.reloading import Live, Reloaded, ReloadError
from tripost.gateway.restarting import RestartRefused
from tripost.gateway.settings import Config
from tripost.gateway.trial import PATIENCE as TRIAL
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Trouble
from tripost.queue.opening import Others

BEAT = 1.0
LOOK = 0.05
PATIENCE = TRIAL + 5.0  # seconds for the supervisor to try a restart out


class _Question:
    """Somebody who waits for the end of a reload."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.outcome: Reloaded | ReloadError | None = None


def _addresses(listening: list[Bound]) -> dict[str, list[str]]:
    """Service → addresses."""
    found: dict[str, list[str]] = {}
    for one in listening:
        if one.service != CONTROL:
            found.setdefault(one.service, []).append(one.bound)
    return found


class House:
    """`troubles`: role → why it does not work as it should; `processes`: all that there are."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._ending = False
        self.board = board_of(hand.board, hand.writers)
        self.others = Others(self.board, Bell(hand.bell).wait)
        self.addresses = _addresses(hand.listening)
        self.leave: Callable[[], None] = lambda: None  # what we do for a restart
        self._refused = ""
        self._told = trio.Event()  # what comes of a restart
        self.troubles: dict[str, str] = {}
        self.processes: list[Running] = []
        self.reported: Callable[[Reloaded | ReloadError], None] = lambda outcome: None
        self._live: Live
        self._link = link_of(hand.link)
        self._listening: Listening
        self._asked: dict[int, _Question] = {}
        self._number = 0
        self.ingress: Ingress | None = None
        self.crew: Crew | None = None  # the delivery processes

    def opener(self, config: Config, bus: Bus, clock: Clock) -> Crew | None:
        """Who opens connections to other hosts; None: this process."""
        if not self._hand.delivery:
            return None
        self.crew = Crew(os.path.join(config.state, "spool"), bus, clock)
        return self.crew

    def offer(self, inherited: Inherited) -> None:
        """Have the sockets that the supervisor bound for us among the inherited ones."""
        for one in self._hand.listening:
            if is_ingress(one):
                os.close(one.descriptor)
            else:
                inherited.add(one.address, listener_of(one.descriptor), given=True)

    def meet(self, listening: Listening) -> None:
        """Ours, which serve what was offered."""
        self._listening = listening
        listening.told(self.addresses)

    def taken_in(self) -> bool:
        """Does an ingress process take connections?"""
        return any(self.board.accepts(one) for one in self._hand.rows)

    def inform(self, live: Live) -> None:
        """Which configuration it is that we were given."""
        self._live = live
        live.generation, live.loaded = self._hand.generation, self._hand.loaded

    async def reload(self) -> Reloaded:
        """Raises ReloadError."""
        self._number += 1
        number, question = self._number, _Question()
        self._asked[number] = question
        try:
            await self._link.send(Wanted(number))
            await question.answered.wait()
        finally:
            del self._asked[number]
        assert question.outcome is not None
        if isinstance(question.outcome, ReloadError):
            raise question.outcome
        return question.outcome

    async def _obey(self) -> None:
        """Until cancelled: take part in reloads."""

        def moved(listening: list[Bound]) -> None:
            self.addresses = _addresses(listening)
            self._listening.told(self.addresses)

        await Obeying(self._link, self._live, self._listening, told=self._heard, moved=moved).run()

    def _heard(self, order: ToChild) -> None:
        if isinstance(order, Present):
            self.processes = order.processes
        elif isinstance(order, Changed):
            outcome: Reloaded | ReloadError = ReloadError("\n".join(order.problems))
            if not order.problems:
                outcome = Reloaded(order.changed, order.restart, order.generation, order.behind)
            self.reported(outcome)
            question = self._asked.get(order.asked)
            if question is not None:
                question.outcome = outcome
                question.answered.set()

    def trouble(self) -> str:
        """Why the gateway is not what it should be; "" when it is."""
        return "; ".join(self.troubles.values())

    def end(self, _reason: str) -> None:
        """Ask the supervisor for the end of all processes, once: a second time would cut what is under way."""
        if not self._ending:
            self._ending = True
            os.kill(os.getppid(), signal.SIGTERM)

    async def restart(self) -> None:
        """By the supervisor; returns once it begins. Raises RestartRefused."""
        told = self._told
        os.kill(os.getppid(), signal.SIGUSR2)
        try:
            with trio.fail_after(PATIENCE):
                await told.wait()
        except trio.TooSlowError:
            raise RestartRefused("the supervisor does not answer") from None
        if self._refused:
            raise RestartRefused(self._refused)

    def _restart(self, refused: str) -> None:
        """What the supervisor says of it."""
        self._refused = refused
        self._told.set()
        self._told = trio.Event()
        if not refused:
            self.leave()

    async def beat(self) -> None:
        """Until cancelled: the supervisor kills who does not."""
        while True:
            self.board.beat(0)
            await trio.sleep(BEAT)

    async def run(
        self,
        bus: Bus,
        clock: Clock,
        admission: Admission,
        quotas: Quotas,
        guard: Guard,
        full: Callable[[str], Refusal | None],
    ) -> None:
        """Until cancelled."""

        def why(account: str) -> str:
            found = full(account)
            return f"{found.code} {found.enhanced} {found.text}" if found is not None else ""

        self.ingress = Ingress(bus, admission, quotas, guard, why)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.ingress.run, listener_of(self._hand.ingress))
            nursery.start_soon(self._hear, bus, clock)
            nursery.start_soon(self._obey)
            if self.crew is not None:
                nursery.start_soon(self.crew.serve, listener_of(self._hand.couriers))
            self.board.serve(True)
            await trio.sleep_forever()

    async def _hear(self, bus: Bus, clock: Clock) -> None:
        """What the supervisor tells."""
        rest = b""
        while True:
            await trio.lowlevel.wait_readable(self._hand.news)
            try:
                data = os.read(self._hand.news, 65_536)
            except BlockingIOError:
                continue
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                news = msgspec.json.decode(line, type=News)
                if news.role == RESTART:
                    self._restart(news.text)
                    if not news.text:
                        continue
                elif news.loops and news.text:
                    self.troubles[news.role] = news.text
                elif news.loops:
                    self.troubles.pop(news.role, None)
                where = RESTART if news.role == RESTART else "processes"
                bus.emit(Trouble(time=clock.now(), where=where, reason=news.text or f"{news.role} lives again"))

    async def quiet(self) -> None:
        """Until no ingress process is left, and all that they wrote is taken in."""
        while self.board.runs() or self.others.growing():  # noqa: ASYNC110  (the supervisor sets it, in shared memory)
            await trio.sleep(LOOK)
