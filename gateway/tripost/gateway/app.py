"""the composition root

Builds the parts from a configuration, wires them, runs them, takes them down
in order. No decisions about mail are made here.

Order    queue open (locked, recovered) → delivery → listeners → serving;
         stop: listeners → sessions and deliveries, until the drain deadline →
         queue closed. Whatever the deadline cuts was not acknowledged, or is
         still queued.
Fails    `StartError`, one line for the operator; then nothing is left running.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from socket import socket

import trio

from tripost.delivery.dispatcher import Dispatcher
from tripost.delivery.null_mx import NullMx
from tripost.delivery.resolver import Resolver
from tripost.delivery.routing import Router
from tripost.gateway.accounts import AccountsError
from tripost.gateway.config import Config, Loaded
from tripost.gateway.control.life_verbs import LifeVerbs
from tripost.gateway.control.server import ControlServer, Upload, Verb
from tripost.gateway.handover import Handover, Kept
from tripost.gateway.ingress.patience import Patience
from tripost.gateway.ingress.policy import Policy
from tripost.gateway.inherited import Inherited
from tripost.gateway.lifecycle import Draining, StartError, Stop, leaves
from tripost.gateway.listeners import Acceptor, ListenError
from tripost.gateway.listening import Listening
from tripost.gateway.local_mail import LocalMail
from tripost.gateway.monitor.provider import Sources
from tripost.gateway.monitor.tokens import TokenError
from tripost.gateway.observe.event_file import EventFile
from tripost.gateway.observe.history import History
from tripost.gateway.observe.log import EventLog
from tripost.gateway.observe.observer import Observer
from tripost.gateway.own import Own
from tripost.gateway.processes.house import House
from tripost.gateway.processes.orders import Running
from tripost.gateway.reloading import Live, Reloaded, ReloadError
from tripost.gateway.reports import Reports
from tripost.gateway.restarting import Restarting, RestartRefused
from tripost.gateway.room import shortage
from tripost.gateway.submit import Submit
from tripost.gateway.submit_client import open_to_all
from tripost.gateway.tls import TlsError
from tripost.gateway.wiring_control import make_control
from tripost.gateway.wiring_delivery import delivery_settings
from tripost.gateway.wiring_egress import Readers, allow, make_logins
from tripost.gateway.wiring_ingress import ingress_context
from tripost.gateway.wiring_listen import admission_of, closed, keep_fresh, make_services, take_descriptors
from tripost.gateway.wiring_live import Faces, renew_connections, renew_delivery, renew_queue
from tripost.gateway.wiring_monitor import Monitor
from tripost.gateway.wiring_queue import queue_settings, spool_lock
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolDamaged, SpoolError, SpoolLocked
from tripost.queue.events import Reloaded as ReloadedEvent
from tripost.queue.events import Reopened, Started, Stopped, Stopping, Trouble
from tripost.queue.files import Handle, RealHandle
from tripost.queue.manager import Queue
from tripost.queue.opening import open_queue


def make_router(config: Config) -> Router:
    """The routing tables of a configuration; users are read from the accounts file."""
    return LocalMail(config).mailboxes.router


class Gateway:
    """One gateway: `bus` and `hostname` at once, `addresses` once `run` has started."""

    def __init__(
        self,
        config: Config,
        log: EventLog,
        read: Callable[[], Loaded] | None = None,
        inherited: Inherited | None = None,
        house: House | None = None,
        handed: Handover | None = None,
    ) -> None:
        """`read` reads the file anew, for a reload; `inherited` are sockets that were opened for us; `house`: we are
        the manager, and other processes take mail in; `handed`: what the image before us left."""
        self.config = config
        self.house = house
        self._handed = handed
        self.live = Live(config, read)
        if house is not None:
            house.inform(self.live)
            house.reported = self._reloaded
        self._inherited = inherited or Inherited({})
        self.phase = "starting"  # starting | serving | draining
        self.hostname = config.hostname
        self.bus = Bus()
        self.addresses: dict[str, list[str]] = {}
        self._draining = Draining()
        self._patience = Patience()
        self._admission = admission_of(config)
        self._mail = LocalMail(config, self.bus)
        self._log = log
        self._history = History(config)
        self._event_file = EventFile(config, self.bus.first)
        self._observer: Observer
        self._control: socket | None = None
        self._listening: Listening
        self._lock: Handle | None = None
        self._held: list[Kept] = []  # sockets for the next image
        self._stop = Stop()
        self._restarting = Restarting(self.picture, lambda reason: self._stop.leave(reason))
        self._open: Counter[str] = Counter()  # connections of clients by service

    async def run(self, stop: Stop, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> bool:
        """Serve until `stop`; True when nothing had to be cut. Raises StartError."""
        clock, self._stop = Clock(), stop
        if self.house is not None:
            self.house.leave = partial(stop.leave, "restart")
        take_descriptors()
        readers = [one for one in (self._log, self._history, self._event_file) if not one.off]
        self._observer = Observer(self.bus, readers, clock.now)
        try:
            async with trio.open_nursery() as observing:
                observing.start_soon(self._observer.run)
                if self.house is not None:
                    observing.start_soon(self.house.beat)
                clean = await self._run(clock, stop, task_status)
                observing.cancel_scope.cancel()
        finally:
            self._observer.close()
        return clean

    def reopen(self) -> None:
        """Begin the file of events anew, where there is one."""
        self._observer.flush()
        if self._log.reopen():
            self.bus.emit(Reopened(time=self._observer.now(), file=self.config.events.file))

    async def reload(self) -> Reloaded:
        """Take the file's configuration into use, in all processes. Raises ReloadError; then, and in the log, all is as
        it was."""
        return await self.house.reload() if self.house is not None else self._reload()

    def _reload(self) -> Reloaded:
        try:
            if self.phase != "serving":
                raise ReloadError(f"the gateway is {self.phase}")
            done = self.live.reload()
        except ReloadError as wrong:
            self._reloaded(wrong)
            raise
        self._reloaded(done)
        return done

    def _reloaded(self, found: Reloaded | ReloadError) -> None:
        """Tell what became of it."""
        now = self._observer.now()
        if isinstance(found, ReloadError):
            self.bus.emit(Trouble(time=now, where="reload", reason=str(found)))
        else:
            changed, restart, number = found.changed, found.restart, found.generation
            self.bus.emit(ReloadedEvent(time=now, changed=changed, restart=restart, generation=number))

    def hangup(self) -> None:
        """SIGHUP: the log's file may have been moved, and the configuration changed."""
        self.reopen()
        if self.house is None:  # else the supervisor has been told, too
            with suppress(ReloadError):
                self._reload()

    async def restart(self, reason: str) -> None:
        """Be replaced by another image of this process. Raises RestartRefused; then, and in the log, all is as it
        was."""
        try:
            await (self.house.restart() if self.house is not None else self._restarting.ask(reason))
        except RestartRefused as wrong:
            if self.house is None:  # else the supervisor has told it
                self.bus.emit(Trouble(time=self._observer.now(), where="restart", reason=str(wrong)))
            raise

    async def restart_told(self) -> None:
        """SIGUSR2."""
        with suppress(RestartRefused):
            await self.restart("SIGUSR2")

    def picture(self) -> Handover:
        """What is handed over. Raises RestartRefused."""
        if self.phase != "serving" and not self._stop.leaving:
            raise RestartRefused(f"the gateway is {self.phase}")
        if not self.live.from_file:
            raise RestartRefused("this gateway was not started by tripost serve")
        assert isinstance(self._lock, RealHandle)
        sockets = self._held or self._listening.held()
        return Handover(pid=os.getpid(), state=self.config.state, sockets=sockets, lock=self._lock.fileno())

    async def _run(self, clock: Clock, stop: Stop, task_status: trio.TaskStatus[None]) -> bool:
        config = self.config
        try:
            os.makedirs(config.state, mode=0o711, exist_ok=True)  # programs reach submit.sock in it
            os.makedirs(os.path.join(config.state, "mail"), mode=0o700, exist_ok=True)
        except OSError as wrong:
            raise StartError(f"{config.state}: {wrong.strerror}") from wrong
        router = self._mail.mailboxes.router
        reporter = Reports(config, router, clock)
        settings, clean = queue_settings(config), False
        self.live.parts = [self._mail.prepare, reporter.prepare, partial(renew_queue, settings)]
        locked = self.house is not None  # the supervisor has
        descriptor = self._handed.lock if self._handed is not None else -1
        keep = nullcontext() if locked else spool_lock(config, descriptor, lambda: stop.leaving)
        try:
            with keep as self._lock:
                async with open_queue(
                    os.path.join(config.state, "spool"),
                    settings,
                    clock=clock,
                    bus=self.bus,
                    reporter=reporter,
                    others=self.house.others if self.house is not None else None,
                    locked=True,
                ) as queue:
                    reporter.new_id = queue.new_id
                    clean = await self._serve(queue, router, clock, stop, task_status)
        except* SpoolLocked as group:
            raise StartError(f"{config.state}: {SpoolLocked.text}") from group
        except* (SpoolError, SpoolDamaged, OSError) as group:
            raise StartError(f"{config.state}: {leaves(group)[0]}") from group
        self._mail.close()
        self.bus.emit(Stopped(time=clock.now(), clean=clean))
        return clean

    async def _serve(
        self, queue: Queue, router: Router, clock: Clock, stop: Stop, task_status: trio.TaskStatus[None]
    ) -> bool:
        config = self.config
        try:
            logins = make_logins(config, self._mail.accounts, self.bus, clock)
            readers = Readers(config, self._mail, logins, self.bus, clock, self._draining)
            names = self._names()
            dispatcher = self._dispatcher(queue, names, clock)
            end = self.house.end if self.house else stop.request
            life = LifeVerbs(self.live, self.reload, end, self.restart, self._state, self._processes, self._trouble)
            seen = self.addresses, self._observer, self._history, self._admission.sheds
            control = make_control(life, queue, dispatcher, router, self.bus, clock, *seen)
            policy = Policy(router, NullMx(names.null_mx, clock.now))
            monitor = Monitor(config, self._sources(queue, dispatcher, clock, control.verbs), self._event_file)
            smtp = ingress_context(config, queue, policy, self.bus, clock, self._draining, self._patience, logins)
            faces = Faces(smtp, {**readers.handlers, "monitor": monitor.serve}, mail_in=self.house is None)
            submit = Submit(config, smtp, control.verbs["queue.list"])
            services = make_services(config, faces.handlers)
            self._listening = listening = Listening(services, [submit.service()], self.addresses)
            self.live.parts += [partial(renew_delivery, dispatcher), partial(allow, logins)]
            self.live.parts += [readers.prepare, monitor.prepare]
            self.live.parts.append(partial(renew_connections, self._admission, submit, faces, listening))
            self._bind(control, listening)
        except (ListenError, TlsError, AccountsError, TokenError) as wrong:
            raise StartError(str(wrong)) from wrong
        cut = True  # a second signal may end all before the rest of it is reached
        async with trio.open_nursery() as outer:
            outer.start_soon(_cancel_on_hard, stop, outer.cancel_scope)
            outer.start_soon(self._patience.run)
            outer.start_soon(keep_fresh, listening.certificates, self.bus, clock)
            async with trio.open_nursery() as work:
                outer.start_soon(control.run)
                outer.start_soon(monitor.run)
                await work.start(dispatcher.run)
                outer.start_soon(self._mail.keep_up, queue, clock)
                outer.start_soon(readers.run)
                if self.house is not None:
                    full, guard = self._mail.mailboxes.full, logins.guard
                    outer.start_soon(self.house.run, self.bus, clock, self._admission, smtp.quotas, guard, full)
                acceptor = Acceptor(work, self.bus, clock, self._admission, partial(closed, queue), self._open)
                started = partial(self._started, clock, task_status)
                await listening.run(acceptor, started, stop.wait, lambda: stop.leaving)
                self._drain(clock, stop, dispatcher, work)
            cut = work.cancel_scope.cancelled_caught
            self._part(control, listening, stop)
            outer.cancel_scope.cancel()
        return not cut

    def _drain(self, clock: Clock, stop: Stop, dispatcher: Dispatcher, work: trio.Nursery) -> None:
        """Nobody comes in any more: end what is under way."""
        self.phase = "draining"
        self.bus.emit(Stopping(time=clock.now(), reason=stop.reason))
        self._draining.begin()
        dispatcher.stop()
        if self.house is not None and not stop.leaving:
            work.start_soon(self.house.quiet)
        work.cancel_scope.deadline = trio.current_time() + stop.within(self.live.config.lifecycle.drain)

    def _bind(self, control: ControlServer, listening: Listening) -> None:
        """Raises ListenError, OSError; then nothing is bound."""
        if self.house is not None:
            self.house.offer(self._inherited)
        held = self._inherited.take(control.address)
        control.bind(held.socket if held is not None else None)
        try:
            listening.bind(self._inherited)
            if self.house is not None:
                self.house.meet(listening)
            else:
                open_to_all(self.config)
        except BaseException:
            control.close()
            raise

    def _part(self, control: ControlServer, listening: Listening, stop: Stop) -> None:
        """From our sockets: they close, or stay open for who comes next."""
        if self.house is None and not stop.leaving:
            listening.close()
            return
        self._control = control.leave()
        if self._control is not None:
            self._held = [*listening.held(), Kept(control.address, self._control.fileno())]

    def _state(self) -> str:
        """As `phase`; a manager waits for somebody who takes mail in."""
        waits = self.phase == "serving" and self.house is not None and not self.house.taken_in()
        return "starting" if waits else self.phase

    def _trouble(self) -> str:
        """What is wrong with other processes."""
        return self.house.trouble() if self.house is not None else ""

    def _started(self, clock: Clock, task_status: trio.TaskStatus[None]) -> None:
        self.phase = "serving"
        version = importlib.metadata.version("tripost")
        self.bus.emit(Started(time=clock.now(), listeners=self.addresses, version=version, pid=os.getpid()))
        task_status.started()

    def _sources(
        self, queue: Queue, dispatcher: Dispatcher, clock: Clock, verbs: Mapping[str, Verb | Upload]
    ) -> Sources:
        """What the monitor looks at."""
        return Sources(
            hostname=self.hostname,
            version=importlib.metadata.version("tripost"),
            boot=self.bus.first,
            began=clock.now(),
            now=clock.now,
            bus=self.bus,
            queue=queue,
            dispatcher=dispatcher,
            draining=self._draining,
            observer=self._observer,
            connections=self._connections,
            verbs=verbs,
            short=lambda: shortage(self.live.config),
            processes=self._trouble,
        )

    def _processes(self) -> list[Running]:
        live = self.live
        return self.house.processes if self.house else [Running("gateway", os.getpid(), live.generation, live.loaded)]

    def _connections(self) -> Mapping[str, int]:
        others = self.house.ingress if self.house is not None else None
        return self._open + others.open if others is not None else self._open

    def _names(self) -> Resolver:
        config = self.config
        return Resolver(
            config.dns.nameservers, hostname=config.hostname, ours=Own(config.delivery.port, self.addresses)
        )

    def _dispatcher(self, queue: Queue, names: Resolver, clock: Clock) -> Dispatcher:
        config = self.config
        return Dispatcher(
            queue,
            delivery_settings(config),
            resolver=names,
            local=self._mail.delivery,
            bus=self.bus,
            clock=clock,
            opener=self.house.opener(config, self.bus, clock) if self.house is not None else None,
        )


async def _cancel_on_hard(stop: Stop, scope: trio.CancelScope) -> None:
    await stop.wait_hard()
    scope.cancel()
