"""the main program of an ingress process

Takes mail in: SMTP, submission and LMTP on listening sockets that the supervisor
holds, into a log of its own (tripost.queue.inlet). What must be one for all
processes it asks of the manager (`asking`); while there is no manager it goes on,
up to `[spool] unannounced`.

Order    log open → accepting; SIGTERM: accepting stops, sessions end within
         `[lifecycle] drain` → log closed. A second SIGTERM cuts.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial

import trio

from tripost.delivery.null_mx import NullMx
from tripost.delivery.resolver import Resolver
from tripost.delivery.routing import Refusal
from tripost.gateway.accounts import Accounts
from tripost.gateway.backend import AccountsError, backend_of
from tripost.gateway.guard import Guard
from tripost.gateway.ingress.patience import Patience
from tripost.gateway.ingress.policy import Policy
from tripost.gateway.inherited import Inherited
from tripost.gateway.lifecycle import Draining, Stop, leaves, watch_signals
from tripost.gateway.listeners import Acceptor, ListenError
from tripost.gateway.listening import Listening
from tripost.gateway.mailboxes import Mailboxes
from tripost.gateway.processes.asking import Manager
from tripost.gateway.processes.hand import Bell, Hand, board_of, config_of, ingress_socket, listener_of, take
from tripost.gateway.processes.obeying import Obeying, link_of
from tripost.gateway.processes.shared import SharedAdmission, SharedQuotas
from tripost.gateway.processes.sockets_held import is_ingress
from tripost.gateway.processes.words import Login
from tripost.gateway.reloading import Live
from tripost.gateway.settings import Config
from tripost.gateway.tls import TlsError
from tripost.gateway.wiring_egress import allow, logins_of
from tripost.gateway.wiring_ingress import ingress_context, renewed
from tripost.gateway.wiring_listen import admission_of, closed, keep_fresh, make_services, networks, take_descriptors
from tripost.gateway.wiring_live import Faces
from tripost.gateway.wiring_queue import queue_settings
from tripost.queue.board import Board
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.inlet import Inlet, open_inlet
from tripost.queue.records import Stamp

BEAT = 1.0
CANNOT_START = 2


def main(text: str) -> int:
    """0 when nothing had to be cut, 2 when it cannot start: why, in a line."""
    hand = take(text)
    config = config_of(hand)
    take_descriptors()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 100)
    code = CANNOT_START
    try:
        code = 0 if trio.run(partial(_run, hand, config)) else 1
    except* (TlsError, ListenError, AccountsError) as group:
        for leaf in leaves(group):
            print(f"tripost: ingress {hand.number}: {leaf}", file=sys.stderr, flush=True)
    return code


async def _run(hand: Hand, config: Config) -> bool:
    stop = Stop()
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_signals, stop, _nobody, _not_ours)
        clean = await _Ingress(hand, config).run(stop)
        nursery.cancel_scope.cancel()
    return clean


class _Ingress:
    def __init__(self, hand: Hand, config: Config) -> None:
        self._hand = hand
        self._config = config  # of the start
        self._live = Live(config, None)
        self._live.generation, self._live.loaded = hand.generation, hand.loaded
        self._board: Board = board_of(hand.board, hand.writers)
        self._clock = Clock()
        self._bus = Bus()
        self._open: Counter[str] = Counter()
        self._draining = Draining()
        self._patience = Patience()
        path = ingress_socket(config.state)
        self._manager = Manager(path, hand.number, hand.run, self._bus, self._open)

    async def run(self, stop: Stop) -> bool:
        """True when nothing had to be cut."""
        config, hand = self._config, self._hand
        async with trio.open_nursery() as beside:
            beside.start_soon(self._manager.run)
            beside.start_soon(self._beat)
            async with open_inlet(
                os.path.join(config.state, "spool"),
                queue_settings(config),
                stamp=Stamp(hand.number, hand.run),
                board=self._board,
                ring=Bell(hand.bell).ring,
                clock=self._clock,
                bus=self._bus,
            ) as inlet:
                clean = await self._serve(inlet, stop)
            beside.cancel_scope.cancel()
        return clean

    async def _beat(self) -> None:
        while True:
            self._board.beat(self._hand.number)
            await trio.sleep(BEAT)

    async def _serve(self, inlet: Inlet, stop: Stop) -> bool:
        admission = self._admission()
        listening = self._listening(self._faces(inlet), admission)
        cut = True  # a second signal may end all before the rest of it is reached
        async with trio.open_nursery() as outer:
            outer.start_soon(_cancel_on_hard, stop, outer.cancel_scope)
            outer.start_soon(self._patience.run)
            outer.start_soon(keep_fresh, listening.certificates, self._bus, self._clock)
            outer.start_soon(Obeying(link_of(self._hand.link), self._live, listening).run)
            async with trio.open_nursery() as work:
                acceptor = Acceptor(work, self._bus, self._clock, admission, partial(closed, inlet), self._open)
                accepting = partial(self._board.accept, self._hand.number)
                # ours are closed then; what the supervisor holds is another process's, or closed too
                await listening.run(acceptor, accepting, stop.wait, kept=lambda: False)
                self._draining.begin()
                work.cancel_scope.deadline = trio.current_time() + self._live.config.lifecycle.drain
            cut = work.cancel_scope.cancelled_caught
            outer.cancel_scope.cancel()
        return not cut

    def _faces(self, inlet: Inlet) -> Faces:
        """Also what a reload changes of them, but for the listeners."""
        config, manager = self._config, self._manager
        accounts = Accounts(config.accounts_file, backend_of(config.auth.backend))
        mailboxes = Mailboxes(config, accounts.exists, accounts.quota_rule)
        guard = Guard(config.limits.auth_failures, config.limits.auth_ban)
        guard.told = lambda client, account, failed: manager.post(Login(client, account, failed))

        def hear(word: Login) -> None:
            if word.failed:
                guard.note_failed(word.client, word.account, trio.current_time())
            else:
                guard.note_succeeded(word.account)

        manager.login = hear
        manager.known = lambda word: guard.learn(word.failures, trio.current_time())
        names = Resolver(config.dns.nameservers, hostname=config.hostname)
        policy = Policy(mailboxes.router, NullMx(names.null_mx, self._clock.now))
        policy.full = partial(_full, mailboxes, manager)
        limits = config.limits
        quotas = SharedQuotas(limits.client_messages, limits.account_messages, limits.account_recipients, manager)
        logins = logins_of(config, accounts, guard, self._bus, self._clock)
        self._live.parts += [partial(_renew_mailboxes, accounts, mailboxes), partial(allow, logins)]
        context = ingress_context(
            config,
            inlet,
            policy,
            self._bus,
            self._clock,
            self._draining,
            self._patience,
            logins,
            quotas=quotas,
            share=len(self._hand.rows),
        )
        return Faces(context, {})

    def _admission(self) -> SharedAdmission:
        config, me, board = self._config, self._hand.number, self._board
        return SharedAdmission(
            admission_of(config),
            config.limits.connections,
            networks(config.relay.networks),
            self._manager,
            everywhere=partial(board.elsewhere, me),
            publish=partial(board.count, me),
        )

    def _listening(self, faces: Faces, admission: SharedAdmission) -> Listening:
        """With the sockets that the supervisor holds."""
        inherited = Inherited({})
        for one in self._hand.listening:
            if is_ingress(one):
                inherited.add(one.address, listener_of(one.descriptor), given=True)
            else:
                os.close(one.descriptor)
        listening = Listening(make_services(self._config, faces.handlers), [], {})
        listening.bind(inherited)
        self._live.parts.append(partial(_renew_connections, admission, faces, listening, len(self._hand.rows)))
        return listening


def _nobody(name: str) -> None:
    """The manager's events tell that the gateway is stopping."""


def _not_ours() -> None:
    """SIGHUP is for the file of events, which the manager writes."""


def _renew_mailboxes(accounts: Accounts, mailboxes: Mailboxes, config: Config) -> Callable[[], None]:
    """See `tripost.gateway.reloading`. Raises AccountsError."""
    accounts.list()
    other = Mailboxes(config, accounts.exists, accounts.quota_rule)
    return lambda: mailboxes.become(other)


def _renew_connections(
    admission: SharedAdmission, faces: Faces, listening: Listening, share: int, config: Config
) -> Callable[[], None]:
    """Raises ListenError, TlsError. Comes last."""
    admitting = admission_of(config)
    listen = listening.prepare(make_services(config, faces.handlers))

    def commit() -> None:
        admission.become(admitting)
        faces.smtp = renewed(faces.smtp, config, share)
        listen()

    return commit


async def _full(mailboxes: Mailboxes, manager: Manager, address: str) -> Refusal | None:
    """For RCPT: the manager, which delivers, knows how full mailboxes are."""
    account = mailboxes.router.mailbox(address)[0] or address
    return await manager.full(account) if mailboxes.policy(account).limited else None


async def _cancel_on_hard(stop: Stop, scope: trio.CancelScope) -> None:
    await stop.wait_hard()
    scope.cancel()
