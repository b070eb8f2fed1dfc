"""listening sockets: TCP and Unix

API      `check_address(text)` for configurations; `listen(address)`; `accept(listener)`;
         `waited(accepted)`; `close(listener, address)`, which removes a Unix socket's file; `shown(…)`.
Promise  A Unix socket's file that nobody listens on any more is replaced; one that is
         in use is left alone. Its mode is 0660: the owner and the group may connect.
         A path longer than the system's 107 octets is bound through its folder.
Fails    `ListenError`, one line.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket as stdlib_socket
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import trio

BACKLOG = 4096  # or what the system allows (net.core.somaxconn)
AT_ONCE = 16  # connections taken before others get their turn; the rest waits in the backlog, first come, first served
# accept() hands on what is wrong with a connection that is gone already (accept(2))
_GONE = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EPERM,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENONET,
        errno.ETIMEDOUT,
    }
)
_SENT = slice(44, 48)  # tcpi_last_data_sent in struct tcp_info, in milliseconds
UNIX = "unix:"
MODE = 0o660
PATH_LIMIT = 107


class ListenError(Exception):
    """An address could not be bound; the text names it and the reason."""


def split_address(address: str) -> tuple[str, int]:
    """ "127.0.0.1:25" or "[::1]:25" → (host, port)."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def check_address(text: str) -> None:
    """Raises ValueError."""
    if text.startswith(UNIX):
        if not text.startswith(f"{UNIX}/"):
            raise ValueError("a Unix socket's path must be absolute: unix:/run/tripost/lmtp.sock")
        return
    try:
        host, port = split_address(text)
        ipaddress.ip_address(host)
    except ValueError as wrong:
        raise ValueError("must be IP:PORT, [IPv6]:PORT or unix:/path") from wrong
    if not 0 <= port < 65_536:
        raise ValueError("the port must be between 0 and 65535")


def listen(address: str) -> stdlib_socket.socket:
    """Non-blocking. Raises ListenError."""
    try:
        if address.startswith(UNIX):
            return _unix(address.removeprefix(UNIX))
        return _tcp(*split_address(address))
    except OSError as wrong:
        why = os.strerror(wrong.errno) if wrong.errno else str(wrong)
        raise ListenError(f"cannot listen on {address}: {why}") from wrong


def _tcp(host: str, port: int) -> stdlib_socket.socket:
    family = stdlib_socket.AF_INET6 if ":" in host else stdlib_socket.AF_INET
    sock = stdlib_socket.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # what is accepted inherits it: a reply goes out at once, and nobody has to ask for that each time
        sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
        if family == stdlib_socket.AF_INET6:
            sock.setsockopt(stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix(path: str) -> stdlib_socket.socket:
    sock = stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with _short(path) as short:
            _remove_stale(short)
            sock.bind(short)
            os.chmod(short, MODE)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _short(path: str) -> Generator[str]:
    """A name of the same place that fits into a socket address."""
    if len(os.fsencode(path)) <= PATH_LIMIT:
        yield path
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def _remove_stale(path: str) -> None:
    """Take away a socket on which nobody listens. Raises OSError for one that is in use and for any other file."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    with stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody listens
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


async def accept(listener: stdlib_socket.socket, most: int = AT_ONCE) -> list[tuple[stdlib_socket.socket, Any]]:
    """Up to `most` connections that are there, at least one, each with its other end's address. Raises OSError."""
    found: list[tuple[stdlib_socket.socket, Any]] = []
    while not found:
        await trio.lowlevel.wait_readable(listener)
        try:
            while len(found) < most:
                found.append(listener.accept())
        except BlockingIOError:
            pass
        except OSError as wrong:
            if wrong.errno not in _GONE and not found:
                raise
    return found


def waited(accepted: stdlib_socket.socket) -> float | None:
    """Seconds for which a TCP connection was in the backlog, as long as nothing was sent on it, by the system's tick
    (some milliseconds); None where the system does not tell. Costs 0.8 us."""
    try:
        info = accepted.getsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_INFO, _SENT.stop)
    except (OSError, AttributeError):  # a Unix socket; another system
        return None
    # Linux says when data was last sent, and counts from when the connection was there as long as there was none
    return int.from_bytes(info[_SENT], sys.byteorder) / 1000 if len(info) == _SENT.stop else None


def close(listener: stdlib_socket.socket, address: str) -> None:
    """Stop listening; harmless when the file of a Unix socket is gone already."""
    if listener.fileno() >= 0:
        trio.lowlevel.notify_closing(listener)
    discard(listener, address)


def discard(listener: stdlib_socket.socket, address: str) -> None:
    """As `close`, for one on which nobody waits."""
    listener.close()
    if address.startswith(UNIX):
        try:
            os.unlink(address.removeprefix(UNIX))
        except OSError:
            pass  # the next start takes it for stale


def shown(listener: stdlib_socket.socket, address: str) -> str:
    """The address really bound: a configured port 0 is filled in."""
    if address.startswith(UNIX):
        return address
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
