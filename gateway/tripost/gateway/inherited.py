"""listening sockets that somebody opened for us: sd_listen_fds(3)

systemd's `tripost.socket` binds ports below 1024, so that the service never needs root. Which socket is which is told
by its address: that of a `[[listen]]`.

API      `Inherited(environment)` takes LISTEN_FDS out of the environment; `take(address)` gives the socket with that
         address once, `rest` are the addresses of those that nobody took.
Fails    `ListenError` for a descriptor that is no listening stream socket.
"""

from __future__ import annotations

import ipaddress
import os
import socket as stdlib_socket
from collections.abc import MutableMapping

from tripost.gateway.sockets import UNIX, ListenError, split_address

FIRST = 3  # SD_LISTEN_FDS_START


class Inherited:
    """Those that are left, by address."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ, first: int = FIRST) -> None:
        mine = environment.pop("LISTEN_PID", "") == str(os.getpid())
        count = environment.pop("LISTEN_FDS", "")
        environment.pop("LISTEN_FDNAMES", None)
        self._sockets: dict[str, stdlib_socket.socket] = {}
        for fd in range(first, first + int(count)) if mine and count.isdecimal() else ():
            sock = _listening(fd)
            self._sockets[_address(sock)] = sock

    def take(self, address: str) -> stdlib_socket.socket | None:
        return self._sockets.pop(_normal(address), None)

    def has(self, address: str) -> bool:
        return _normal(address) in self._sockets

    def add(self, address: str, sock: stdlib_socket.socket) -> None:
        """One that we opened ourselves, while we could; an address may have port 0."""
        self._sockets[_normal(address)] = sock

    @property
    def rest(self) -> list[str]:
        return sorted(self._sockets)

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


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
    return _normal(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _normal(address: str) -> str:
    """One text for one address, however it is written."""
    if address.startswith(UNIX):
        return f"{UNIX}{os.path.normpath(address.removeprefix(UNIX))}"
    host, port = split_address(address)
    return f"{ipaddress.ip_address(host).compressed} {port}"
