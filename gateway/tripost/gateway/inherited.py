"""listening sockets that are open already: sd_listen_fds(3), and those of the image before a restart

systemd's `tripost.socket` binds ports below 1024, so that the service never needs root. Which socket is which is told
by its address: that of a `[[listen]]`.

API      `Inherited(environment)` takes LISTEN_FDS out of the environment; `add` has a socket that we opened ourselves;
         `take(address)` gives a socket with that address once; `finish` when all are taken that are wanted.
Fails    `ListenError` for a descriptor that is no listening stream socket, and for one of LISTEN_FDS that nobody took.
"""

from __future__ import annotations

import ipaddress
import os
import socket as stdlib_socket
from collections.abc import MutableMapping
from typing import NamedTuple

from tripost.gateway import sockets
from tripost.gateway.sockets import UNIX, ListenError, split_address

FIRST = 3  # SD_LISTEN_FDS_START


class Held(NamedTuple):
    """`given`: by LISTEN_FDS. Then a Unix socket's file is not ours to remove."""

    socket: stdlib_socket.socket
    address: str
    given: bool


class Inherited:
    """Those that are left, by address; several may have port 0."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ, first: int = FIRST) -> None:
        mine = environment.pop("LISTEN_PID", "") == str(os.getpid())
        count = environment.pop("LISTEN_FDS", "")
        environment.pop("LISTEN_FDNAMES", None)
        self._held: dict[str, list[Held]] = {}
        for fd in range(first, first + int(count)) if mine and count.isdecimal() else ():
            sock = _listening(fd)
            self.add(_address(sock), sock, given=True)

    def take(self, address: str) -> Held | None:
        found = self._held.get(normal(address))
        return found.pop(0) if found else None

    def has(self, address: str) -> bool:
        return bool(self._held.get(normal(address)))

    def add(self, address: str, sock: stdlib_socket.socket, *, given: bool = False) -> None:
        """An address as configured: port 0 is one too."""
        self._held.setdefault(normal(address), []).append(Held(sock, address, given))

    def finish(self) -> None:
        """Nobody wants those that are left. Raises ListenError for one of LISTEN_FDS: somebody waits there, and nobody
        would ever answer."""
        left = [one for some in self._held.values() for one in some]
        if unmatched := sorted(one.address for one in left if one.given):
            raise ListenError(unwanted(unmatched))
        self._held.clear()
        for one in left:
            sockets.discard(one.socket, one.address)


    def close(self) -> None:
        """Nobody wants those that are left, after all: others have them too."""
        for some in self._held.values():
            for one in some:
                one.socket.close()
        self._held.clear()


def unwanted(addresses: list[str]) -> str:
    """What an operator is told of sockets that nobody takes."""
    return f"handed over by LISTEN_FDS, but no [[listen]] has this address: {', '.join(addresses)}"


def _listening(fd: int) -> stdlib_socket.socket:
    try:
        os.set_inheritable(fd, False)
        sock = stdlib_socket.socket(fileno=fd)
    except OSError as wrong:
        raise ListenError(f"descriptor {fd}, handed over by LISTEN_FDS: {wrong.strerror}") from wrong
    stream = sock.type == stdlib_socket.SOCK_STREAM
    if not (stream and sock.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ACCEPTCONN)):
        raise ListenError(f"descriptor {fd}, handed over by LISTEN_FDS, is no listening stream socket")
    sock.setblocking(False)
    if sock.family != stdlib_socket.AF_UNIX:
        sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
    return sock


def _address(sock: stdlib_socket.socket) -> str:
    name = sock.getsockname()
    if sock.family == stdlib_socket.AF_UNIX:
        return f"{UNIX}{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def normal(address: str) -> str:
    """One text for one address, however it is written."""
    if address.startswith(UNIX):
        return f"{UNIX}{os.path.normpath(address.removeprefix(UNIX))}"
    host, port = split_address(address)
    return f"{ipaddress.ip_address(host).compressed} {port}"
