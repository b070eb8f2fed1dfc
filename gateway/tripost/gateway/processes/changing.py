"""the supervisor's side of a reload: all processes, or none

Order    read and check the file → bind what is new → every process that there is prepares → (all are ready) → the new
         configuration is the one in force, here, in one step → every process puts it in place, and says so.
Promise  until that step nothing has changed, and whoever has prepared something is told to forget it: one reason from
         one process, one that dies or does not answer, is enough. After it nothing goes back: who dies is started
         with the new configuration. Nobody is started in between. Reloads come one after the other.
Bounds   PREPARE, COMMIT and MANAGER seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable

import msgspec
import trio

from tripost.gateway.config import Loaded
from tripost.gateway.processes.hand import keep_config
from tripost.gateway.processes.link import Link, LinkGone
from tripost.gateway.processes.orders import (
    Changed,
    Commit,
    Discard,
    FromChild,
    Listening,
    Prepare,
    Present,
    Ready,
    Running,
    ToChild,
    Wanted,
)
from tripost.gateway.processes.sockets_held import Change, Sockets, is_ingress
from tripost.gateway.reloading import ReloadError, look
from tripost.gateway.reloading import Wanted as Found
from tripost.gateway.settings import Config
from tripost.gateway.sockets import ListenError
from tripost.gateway.tls import TlsError
from tripost.gateway.wiring_listen import certificates_of

PREPARE = 20.0
COMMIT = 5.0
MANAGER = 5.0  # for a manager that is just being started
MOST_UNTOLD = 8  # outcomes that wait for a manager
DIED = "it died"
NO_MANAGER = "there is no manager at the moment"


class Partner:
    """A process that has a link. `ingress`: it takes mail in; else it is the manager."""

    def __init__(self, name: str, pid: int, link: Link[FromChild, ToChild], *, ingress: bool) -> None:
        self.name = name
        self.pid = pid
        self.ingress = ingress
        self.link = link
        self.generation = 0
        self.loaded = 0.0
        self._answer: tuple[int, list[str]] | None = None  # to which question, and what
        self._answered = trio.Event()

    async def run(self, wanted: Callable[[Partner, int], None]) -> None:
        """Until it is gone or we are cancelled."""
        try:
            while True:
                order, _ = await self.link.receive()
                if isinstance(order, Wanted):
                    wanted(self, order.asked)
                else:
                    self._answer = order.number, order.problems if isinstance(order, Ready) else []
                    self._answered.set()
        except (LinkGone, trio.ClosedResourceError):
            pass
        finally:
            self._answer = None
            self._answered.set()

    async def ask(self, number: int, order: ToChild, descriptors: list[int], patience: float) -> list[str]:
        """Why not; [] when it is ready, or has done it."""
        self._answered = trio.Event()
        with trio.move_on_after(patience):
            try:
                await self.link.send(order, descriptors)
                while True:
                    await self._answered.wait()
                    if self._answer is None:
                        return [DIED]
                    if self._answer[0] == number:
                        return self._answer[1]
                    self._answered = trio.Event()  # to a question for which we did not wait
            except (LinkGone, trio.ClosedResourceError):
                return [DIED]
            except OSError as wrong:
                return [f"it cannot be told: {wrong.strerror}"]
        return [f"it has not answered within {patience:g} s"]

    async def tell(self, order: ToChild) -> None:
        with trio.move_on_after(COMMIT):
            try:
                await self.link.send(order)
            except (LinkGone, trio.ClosedResourceError, OSError):
                pass


class Changing:
    """`config` in force, `settings` a descriptor with it, `held` the sockets. `ready()`: is there a manager that
    serves? `obstacle()`: why there can be no reload now, "" when there can."""

    def __init__(
        self,
        config: Config,
        read: Callable[[], Loaded] | None,
        held: Sockets,
        ready: Callable[[], bool],
        obstacle: Callable[[], str],
    ) -> None:
        self.config = config
        self.settings = keep_config(config)
        self.generation = 1
        self.loaded = time.time()
        self.held = held
        self.partners: list[Partner] = []
        self._read = read
        self._ready = ready
        self._obstacle = obstacle
        self._number = 0
        self._turn = trio.Lock()
        self._between = trio.Event()  # set while nobody prepares
        self._between.set()
        self._moved = trio.Event()
        self._hungup = trio.Event()
        self._untold: deque[Changed] = deque(maxlen=MOST_UNTOLD)
        self._nursery: trio.Nursery
        self._preparing = trio.CancelScope()  # while they do
        self._lost: list[str] = []  # who has died meanwhile

    # --- who there is ---

    def join(self, one: Partner) -> None:
        """It was started with the configuration in force."""
        one.generation, one.loaded = self.generation, self.loaded
        self.partners.append(one)
        self.moved()

    def leave(self, one: Partner) -> None:
        """It is dead. Where others still prepare, all of it was in vain: its successor does not wait for them."""
        self.partners.remove(one)
        self._lost.append(one.name)
        self._preparing.cancel()
        one.link.close()
        self.moved()

    def moved(self) -> None:
        """The manager is to be told who there is."""
        self._moved.set()

    async def run(self, others: Callable[[], list[Running]]) -> None:
        """Until cancelled. `others`: processes that have no configuration."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._present, others)
            while True:
                await self._hungup.wait()
                self._hungup = trio.Event()
                await self._report(await self.reload())

    def hangup(self) -> None:
        """SIGHUP: as many as come while one waits for its turn are one."""
        self._hungup.set()

    def wanted(self, by: Partner, asked: int) -> None:
        """A manager's Wanted."""
        self._nursery.start_soon(self._wanted, by, asked)

    async def _wanted(self, by: Partner, asked: int) -> None:
        outcome = await self.reload()
        same = by in self.partners  # another one has not asked
        await self._report(msgspec.structs.replace(outcome, asked=asked if same else 0))

    async def _present(self, others: Callable[[], list[Running]]) -> None:
        while True:
            await self._moved.wait()
            self._moved = trio.Event()
            manager = self._manager()
            if manager is None:
                continue
            found = [Running(one.name, one.pid, one.generation, one.loaded) for one in self.partners]
            await manager.tell(Present(sorted([*found, *others()], key=_order)))
            while self._untold:
                await manager.tell(self._untold.popleft())

    async def _report(self, outcome: Changed) -> None:
        """To the manager, or to the next one."""
        manager = self._manager()
        if manager is None:
            self._untold.append(outcome)
        else:
            await manager.tell(outcome)
        for line in outcome.problems if manager is None else []:
            print(f"tripost: reload: {line}", file=sys.stderr, flush=True)

    def _manager(self) -> Partner | None:
        return next((one for one in self.partners if not one.ingress), None)

    # --- a reload ---

    @property
    def busy(self) -> bool:
        """Is a reload under way?"""
        return self._turn.locked()

    async def may_start(self) -> None:
        """Until nobody prepares: who is started gets the configuration in force, and nothing else."""
        while not self._between.is_set():
            await self._between.wait()

    async def reload(self) -> Changed:
        """What became of it; nothing is raised."""
        async with self._turn:
            try:
                return await self._reload()
            except ReloadError as wrong:
                return Changed(0, str(wrong).splitlines(), [], [], self.generation, [])

    async def _reload(self) -> Changed:
        with trio.move_on_after(MANAGER):
            while not self._ready() and not self._obstacle():  # noqa: ASYNC110  (shared memory)
                await trio.sleep(0.05)
        if self._obstacle() or not self._ready():
            raise ReloadError(self._obstacle() or NO_MANAGER)
        found = await trio.to_thread.run_sync(self._look)
        try:
            change = self.held.prepare(found.config)
        except ListenError as wrong:
            raise ReloadError(str(wrong)) from wrong
        behind = await self._everywhere(found, change)
        return Changed(0, [], found.changed, found.restart, self.generation, behind)

    def _look(self) -> Found:
        """In a thread: a long file takes its time, and children die meanwhile."""
        found = look(self.config, self._read)
        try:
            certificates_of(found.config)  # a self-signed one is made before several look for it
        except TlsError as wrong:
            raise ReloadError(str(wrong)) from wrong
        return found

    async def _everywhere(self, found: Found, change: Change) -> list[str]:
        """Who has not confirmed it. Raises ReloadError; then nothing has changed."""
        self._number += 1
        settings, number, partners = keep_config(found.config), self._number, list(self.partners)
        self._between = trio.Event()
        try:
            problems = await self._prepare(number, settings, change, partners)
            if self._obstacle():
                problems.append(self._obstacle())
            if problems:
                raise ReloadError("\n".join(problems))
        except BaseException:
            self.held.discard(change)
            os.close(settings)
            self._between.set()
            with trio.CancelScope(shield=True):
                for one in partners:
                    await one.tell(Discard(number))
            raise
        # from here on it is in force: no await until all of it stands
        os.close(self.settings)
        self.config, self.settings = found.config, settings
        self.generation, self.loaded = self.generation + 1, time.time()
        self.held.commit(change)
        self._between.set()
        return await self._commit(number, partners)

    async def _prepare(self, number: int, settings: int, change: Change, partners: list[Partner]) -> list[str]:
        problems: list[str] = []

        async def one_of_them(one: Partner) -> None:
            added = _added(self.held.listening, change.listening, ingress=one.ingress)
            order = Prepare(number, change.listening, added)
            for why in await one.ask(number, order, [settings, *added], PREPARE):
                problems.append(f"{one.name}: {why}")

        self._lost = []
        with trio.CancelScope() as self._preparing:
            async with trio.open_nursery() as nursery:
                for one in partners:
                    nursery.start_soon(one_of_them, one)
        problems += [f"{name}: {DIED}" for name in self._lost if f"{name}: {DIED}" not in problems]
        if not any(not one.ingress for one in partners):
            problems.append(NO_MANAGER)
        return problems

    async def _commit(self, number: int, partners: list[Partner]) -> list[str]:
        behind: list[str] = []
        order = Commit(number, self.generation, self.loaded)

        async def one_of_them(one: Partner) -> None:
            why = await one.ask(number, order, [], COMMIT)
            if not why:
                one.generation, one.loaded = order.generation, order.loaded
            elif why != [DIED]:
                behind.append(one.name)

        async with trio.open_nursery() as nursery:
            for one in partners:
                nursery.start_soon(one_of_them, one)
        self.moved()
        return sorted(behind)


def _added(old: list[Listening], new: list[Listening], *, ingress: bool) -> list[int]:
    """Descriptors of sockets which those processes have not, and are to have."""
    had = {one.descriptor for one in old if is_ingress(one) == ingress}
    return [one.descriptor for one in new if is_ingress(one) == ingress and one.descriptor not in had]


def _order(one: Running) -> tuple[str, int, str]:
    """ "ingress 2" before "ingress 10"."""
    return one.name.partition(" ")[0], len(one.name), one.name
