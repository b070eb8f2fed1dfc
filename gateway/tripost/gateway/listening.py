"""the listeners of a running gateway, of which a reload adds some and takes others away

Promise  `prepare` binds what is new, all or none, and changes nothing that runs; what it gives back puts it in place. A
         listener whose address stays keeps its socket: no connection is refused, and its queue of connections goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from tripost.gateway.handover import Kept
from tripost.gateway.inherited import Inherited
from tripost.gateway.listeners import Acceptor, Service, bind, close
from tripost.gateway.tls import Certificates


class Listening:
    """`services` are those of `[[listen]]`, `own` those that are always there; `addresses`: service → addresses, for
    others to look at."""

    def __init__(self, services: list[Service], own: list[Service], addresses: dict[str, list[str]]) -> None:
        self.services = services
        self.own = own
        self._addresses = addresses
        self._elsewhere: dict[str, list[str]] = {}
        self._added: list[Service] = []  # bound for what is not in place yet
        self.offered = Inherited({})  # sockets that somebody bound for what `prepare` adds
        self._scopes: dict[Service, trio.CancelScope] = {}
        self._accepting: trio.Nursery | None = None
        self._acceptor: Acceptor | None = None

    def bind(self, inherited: Inherited) -> None:
        """Sockets that are open already serve the `[[listen]]` with their address. Raises ListenError; also for one of
        systemd's that no `[[listen]]` has."""
        for service in [*self.services, *self.own]:
            held = inherited.take(service.address) if service.listener is None else None
            if held is not None:
                service.listener, service.inherited, service.open_before = held.socket, held.given, True
        inherited.finish()
        bind([*self.services, *self.own])
        self._tell()

    def told(self, addresses: dict[str, list[str]]) -> None:
        """Others listen too, for the same gateway: all of its addresses."""
        self._elsewhere = addresses
        self._tell()

    def held(self) -> list[Kept]:
        """Those that are bound, for another image of this process."""
        found: list[Kept] = []
        for one in [*self.services, *self.own]:
            if one.listener is not None:
                found.append(Kept(one.address, one.listener.fileno(), one.inherited))
        return found

    def certificates(self) -> Certificates | None:
        """Those of `[tls]`, which all services have in common."""
        return self.services[0].terms.certificates if self.services else None

    def close(self) -> None:
        close([*self.services, *self.own])

    async def run(
        self,
        acceptor: Acceptor,
        started: Callable[[], None],
        stop: Callable[[], Awaitable[None]],
        kept: Callable[[], bool],
    ) -> None:
        """Accept until `stop` returns; then nobody is listened to, or, where the sockets are `kept` for somebody else,
        clients wait for him."""
        self._acceptor = acceptor
        async with trio.open_nursery() as self._accepting:
            for service in [*self.services, *self.own]:
                self._start(service)
            started()
            await stop()
            self._accepting.cancel_scope.cancel()
        self._accepting = None
        if not kept():
            self.close()

    def prepare(self, wanted: list[Service]) -> Callable[[], None]:
        """Raises ListenError. Either what it gives back is called, or `forget`."""
        left = list(self.services)
        kept: list[tuple[Service, Service]] = []
        added: list[Service] = []
        for one in wanted:
            same = next((old for old in left if old.address == one.address), None)
            if same is None:
                added.append(one)
            else:
                left.remove(same)
                kept.append((same, one))
        for one in added:
            held = self.offered.take(one.address)
            if held is not None:
                one.listener, one.inherited, one.open_before = held.socket, held.given, True
        bind(added)
        self._added = added

        def commit() -> None:
            self._added = []
            for old, new in kept:
                old.become(new)
            places = {id(new): old for old, new in kept}
            self.services = [places.get(id(one), one) for one in wanted]
            for gone in left:
                self._end(gone)
            for one in added:
                self._start(one)
            self._tell()

        return commit

    def forget(self) -> None:
        """What was prepared is not wanted."""
        close(self._added)
        self._added = []

    def _tell(self) -> None:
        self._addresses.clear()
        self._addresses.update(self._elsewhere)
        for service in [*self.services, *self.own]:
            if service.name not in self._elsewhere:
                self._addresses.setdefault(service.name, []).append(service.bound)

    def _start(self, service: Service) -> None:
        if self._accepting is not None:
            self._accepting.start_soon(self._accept, service)

    def _end(self, service: Service) -> None:
        scope = self._scopes.pop(service, None)
        if scope is not None:
            scope.cancel()
        close([service])

    async def _accept(self, service: Service) -> None:
        assert self._acceptor is not None
        with trio.CancelScope() as self._scopes[service]:
            await self._acceptor.accept(service)
