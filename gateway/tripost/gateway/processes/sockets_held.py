"""the listening sockets of a gateway of several processes: the supervisor's

Those of `[[listen]]`, of programs that hand mail in, of `tripost` commands, and of
the manager's own processes. They stay open while any process dies, and over a restart.

Fails    `ListenError`, OSError.
"""

from __future__ import annotations

import os
import socket

from tripost.gateway import sockets
from tripost.gateway.handover import Kept
from tripost.gateway.inherited import Inherited
from tripost.gateway.processes.hand import CONTROL, Listening, courier_socket, ingress_socket
from tripost.gateway.settings import Config
from tripost.gateway.sockets import UNIX
from tripost.gateway.submit_client import NAME, submit_socket


class Sockets:
    """`listening`: what ingress and manager get; `ingress`, `couriers`: descriptors of the manager's own."""

    def __init__(self, config: Config, inherited: Inherited) -> None:
        """Those that are inherited, and the others, which are bound."""
        self._inherited = inherited
        self._given: set[int] = set()  # descriptors that systemd opened
        self.listening: list[Listening] = []
        for one in config.listen:
            self._listen(one.service, one.address)
        self._listen(NAME, submit_socket(config))
        self._listen(CONTROL, f"{UNIX}{os.path.join(config.state, 'control.sock')}")
        self._private: list[Kept] = []
        self.ingress = self._own(ingress_socket(config.state))
        self.couriers = self._own(courier_socket(config.state))
        inherited.finish()

    def _bind(self, address: str) -> socket.socket:
        held = self._inherited.take(address)
        if held is None:
            return sockets.listen(address)
        if held.given:
            self._given.add(held.socket.fileno())
        return held.socket

    def _listen(self, service: str, address: str) -> None:
        listener = self._bind(address)
        self.listening.append(Listening(service, address, sockets.shown(listener, address), listener.detach()))

    def _own(self, path: str) -> int:
        descriptor = self._bind(f"{UNIX}{path}").detach()
        os.chmod(path, 0o600)
        self._private.append(Kept(f"{UNIX}{path}", descriptor))
        return descriptor

    def kept(self) -> list[Kept]:
        """All of them, for another image of this process."""
        listening = [Kept(one.address, one.descriptor, one.descriptor in self._given) for one in self.listening]
        return [*listening, *self._private]

    def close(self) -> None:
        """At the end of the process; those of which others could find the file go now."""
        for one in self.kept():
            if one.address.startswith(UNIX) and not one.given:
                try:
                    os.unlink(one.address.removeprefix(UNIX))
                except OSError:
                    pass
