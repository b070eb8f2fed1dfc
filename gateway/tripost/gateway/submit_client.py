"""a program's way to hand mail in: state/submit.sock, else SMTP on loopback. Blocking.

The socket is asked for `smtp` in one frame; the gateway answers with a row that tells who it takes the caller for, and
from then on speaks SMTP. Where there is no such socket, or it is not for us, the first `smtp` listener on loopback is
taken, and the caller is whoever it says it is.

Fails    `NotRunning` when neither answers; `ControlError` with what the gateway said.
"""

from __future__ import annotations

import ipaddress
import os
import pwd
import socket
from collections.abc import Iterator
from typing import Any

import msgspec

from tripost.delivery.wire.replies import Reply, ReplyReader
from tripost.gateway.control.client import ControlError, NotRunning
from tripost.gateway.control.frames import (
    ANSWER_LIMIT,
    VERSION,
    End,
    Error,
    Request,
    Row,
    decode_answer,
    frame,
)
from tripost.gateway.settings import Config
from tripost.gateway.sockets import UNIX, split_address

NAME = "submit"
SOCKET = "submit.sock"
MODE = 0o666
PATIENCE = 330.0  # seconds for a reply: longer than the gateway has for a client (RFC 5321 §4.5.3.2.6 has ten minutes)
READ = 1 << 16


class Caller(msgspec.Struct, frozen=True):
    """Who the gateway takes us for, and the domain of addresses without one."""

    account: str
    origin: str


def submit_socket(config: Config) -> str:
    """Its address."""
    return f"{UNIX}{os.path.join(config.state, SOCKET)}"


def open_to_all(config: Config) -> None:
    """Once it is bound. Raises OSError."""
    os.chmod(os.path.join(config.state, SOCKET), MODE)


class Line:
    """One SMTP connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._replies = ReplyReader()

    def send(self, data: bytes) -> None:
        """Raises NotRunning."""
        try:
            self.sock.sendall(data)
        except OSError as wrong:
            raise NotRunning(f"the gateway went away: {wrong}") from wrong

    def reply(self) -> Reply:
        """Raises NotRunning, ReplyError."""
        while (found := self._replies.next()) is None:
            try:
                data = self.sock.recv(READ)
            except OSError as wrong:
                raise NotRunning(f"the gateway does not answer: {wrong}") from wrong
            if not data:
                raise NotRunning("the gateway went away")
            self._replies.feed(data)
        return found

    def command(self, text: str) -> Reply:
        self.send(f"{text}\r\n".encode("utf-8", "surrogateescape"))
        return self.reply()


def origin_of(config: Config) -> str:
    """The domain of local users: the host's name where that is a local domain, else the first local domain."""
    domains = [one.lower() for one in config.local.domains]
    hostname = config.hostname.lower()
    return hostname if hostname in domains or not domains else domains[0]


def connect(config: Config) -> tuple[socket.socket, Caller]:
    """A connection on which the gateway speaks SMTP next. Raises ControlError."""
    sock = _unix(config.state)
    if sock is None:
        user = pwd.getpwuid(os.geteuid()).pw_name
        origin = origin_of(config)
        return _loopback(config), Caller(f"{user}@{origin}", origin)
    try:
        _ask(sock, "smtp")
        answer = next(_answers(sock))
        if not isinstance(answer, Row):
            raise ControlError("the gateway's answer is not understood", 3)
        return sock, msgspec.convert(answer.row, Caller)
    except BaseException:
        sock.close()
        raise


def queue_rows(config: Config) -> Iterator[dict[str, Any]]:
    """The caller's mail in the queue, or all for who may steer it; then a row {"sum": …}. Raises ControlError."""
    sock = _unix(config.state)
    if sock is None:
        raise NotRunning(f"no gateway answers in {config.state}; is it running?")
    with sock:
        _ask(sock, "queue")
        for answer in _answers(sock):
            yield {"sum": answer.sum} if isinstance(answer, End) else answer.row


def _unix(state: str) -> socket.socket | None:
    sock, folder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), -1
    sock.settimeout(PATIENCE)
    try:
        folder = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # others may enter it, not read it
        sock.connect(f"/proc/self/fd/{folder}/{SOCKET}")  # however long the path is
    except OSError:
        sock.close()
        return None
    finally:
        if folder >= 0:
            os.close(folder)
    return sock


def _loopback(config: Config) -> socket.socket:
    tried: list[str] = []
    for one in config.listen:
        if one.service != "smtp" or one.tls == "implicit" or one.require_tls or one.address.startswith("unix:"):
            continue
        host, port = split_address(one.address)
        address = ipaddress.ip_address(host)
        if not (address.is_loopback or address.is_unspecified):
            continue
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
        try:
            return socket.create_connection((host, port), PATIENCE)
        except OSError as wrong:
            tried.append(f"{one.address}: {wrong.strerror or wrong}")
    also = "; ".join(tried) or "no smtp listener on loopback"
    raise NotRunning(f"no gateway answers in {config.state} ({also})")


def _ask(sock: socket.socket, verb: str) -> None:
    try:
        sock.sendall(frame(Request(version=VERSION, verb=verb)))
    except OSError:
        pass  # it hung up: what it said first is there to be read


def _answers(sock: socket.socket) -> Iterator[Row | End]:
    """Frame by frame, and not one octet more: SMTP may follow."""
    while True:
        try:
            size = int.from_bytes(_exactly(sock, 4), "big")
            if size > ANSWER_LIMIT:
                raise ControlError("the gateway's answer is not understood", 3)
            answer = decode_answer(_exactly(sock, size))
        except OSError as wrong:
            raise NotRunning(f"the gateway does not answer: {wrong}") from wrong
        except msgspec.DecodeError as wrong:
            raise ControlError(f"the gateway's answer is not understood: {wrong}", 3) from wrong
        if isinstance(answer, Error):
            raise ControlError(answer.text, answer.exit)
        yield answer
        if isinstance(answer, End):
            return


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise NotRunning("the gateway went away")
        data += piece
    return data
