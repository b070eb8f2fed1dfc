"""the listening sockets of a gateway of several processes: the supervisor's

Those of `[[listen]]`, of programs that hand mail in, of `tripost` commands, and of
the manager's own processes. They stay open while any process dies, and over a restart.

Promise  `prepare` binds what a configuration adds, all or none, and changes nothing that is open: an address that stays
         keeps its socket, and with it the connections that wait there. A socket is closed here when nobody is to
         have it any more; the processes close theirs.
Fails    `ListenError`, OSError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from tripost.gateway import sockets
from tripost.gateway.handover import Kept
from tripost.gateway.inherited import Inherited
from tripost.gateway.processes.hand import CONTROL, courier_socket, ingress_socket
from tripost.gateway.processes.link import close_all
from tripost.gateway.processes.orders import Listening
from tripost.gateway.settings import Config
from tripost.gateway.sockets import UNIX
from tripost.gateway.submit_client import NAME, submit_socket
from tripost.gateway.wiring_listen import MAIL_IN


def is_ingress(one: Listening) -> bool:
    """Does it belong to the processes that take mail in?"""
    return one.service in MAIL_IN


class Change(msgspec.Struct, frozen=True):
    """What `prepare` found: all there is to be, what of it is new, and what is not to be any more."""

    listening: list[Listening]
    added: list[Listening]
    gone: list[Listening]


class Sockets:
    """`listening`: what ingress and manager get, in the order of `[[listen]]`, and then those that are always there;
    `ingress`, `couriers`: descriptors of the manager's own."""

    def __init__(self, config: Config, inherited: Inherited) -> None:
        """Those that are inherited, and the others, which are bound."""
        self._given: set[int] = set()  # descriptors that systemd opened
        self.listening: list[Listening] = []
        self.commit(self.prepare(config, inherited))
        self._private: list[Kept] = []
        self.ingress = self._own(ingress_socket(config.state), inherited)
        self.couriers = self._own(courier_socket(config.state), inherited)
        inherited.finish()

    def prepare(self, config: Config, inherited: Inherited | None = None) -> Change:
        """Either `commit` or `discard` is called with it."""
        left = list(self.listening)
        change = Change([], [], left)
        control = f"{UNIX}{os.path.join(config.state, 'control.sock')}"
        wanted = [(one.service, one.address) for one in config.listen]
        try:
            for service, address in [*wanted, (NAME, submit_socket(config)), (CONTROL, control)]:
                same = next((one for one in left if one.address == address), None)
                if same is not None:
                    left.remove(same)
                    change.listening.append(msgspec.structs.replace(same, service=service))
                else:
                    change.added.append(self._listen(service, address, inherited))
                    change.listening.append(change.added[-1])
        except BaseException:
            self.discard(change)
            raise
        return change

    def commit(self, change: Change) -> None:
        self.listening = change.listening
        self._close(change.gone)

    def discard(self, change: Change) -> None:
        self._close(change.added)

    def _bind(self, address: str, inherited: Inherited | None) -> tuple[int, str]:
        """Its descriptor, and the address that it really has."""
        held = inherited.take(address) if inherited is not None else None
        listener = held.socket if held is not None else sockets.listen(address)
        if held is not None and held.given:
            self._given.add(listener.fileno())
        bound = sockets.shown(listener, address)
        return listener.detach(), bound

    def _listen(self, service: str, address: str, inherited: Inherited | None) -> Listening:
        descriptor, bound = self._bind(address, inherited)
        return Listening(service, address, bound, descriptor)

    def _own(self, path: str, inherited: Inherited) -> int:
        descriptor, _ = self._bind(f"{UNIX}{path}", inherited)
        os.chmod(path, 0o600)
        self._private.append(Kept(f"{UNIX}{path}", descriptor))
        return descriptor

    def kept(self) -> list[Kept]:
        """All of them, for another image of this process."""
        return [*(self._kept(one) for one in self.listening), *self._private]

    def _kept(self, one: Listening) -> Kept:
        return Kept(one.address, one.descriptor, one.descriptor in self._given)

    def _close(self, those: Sequence[Listening]) -> None:
        close_all([one.descriptor for one in those])
        for one in those:
            _unlink(self._kept(one))
            self._given.discard(one.descriptor)

    def close(self) -> None:
        """At the end of the process; those of which others could find the file go now."""
        for one in self.kept():
            _unlink(one)


def _unlink(one: Kept) -> None:
    if one.address.startswith(UNIX) and not one.given:
        with suppress(OSError):
            os.unlink(one.address.removeprefix(UNIX))
