"""one request to a running gateway, from a command

Fails    `NotRunning` when no gateway answers; `ControlError` with what it said.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from tripost.gateway.control.frames import (
    ANSWER_LIMIT,
    VERSION,
    End,
    Error,
    FrameError,
    Reader,
    Request,
    Row,
    decode_answer,
    frame,
    piece,
)

PIECE = 32 << 10  # octets of content in a frame
PATIENCE = 60.0  # seconds without a row


class ControlError(Exception):
    """What the gateway said; `exit` is the command's exit code."""

    def __init__(self, text: str, exit: int) -> None:
        super().__init__(text)
        self.exit = exit


class NotRunning(ControlError):
    """No gateway answers."""

    def __init__(self, text: str) -> None:
        super().__init__(text, 3)


def ask(state: str, verb: str, **arguments: Any) -> Iterator[dict[str, Any]]:
    """The rows of the answer, then its sum as a row {"sum": …}. Raises ControlError."""
    with _connected(state) as sock:
        try:
            sock.sendall(frame(Request(version=VERSION, verb=verb, arguments=arguments)))
            yield from _rows(sock)
        except TimeoutError:
            raise NotRunning(f"the gateway in {state} did not answer within {PATIENCE:g} s") from None
        except OSError as wrong:
            raise NotRunning(f"the gateway in {state} went away: {wrong.strerror}") from wrong


def hand_in(state: str, verb: str, content: BinaryIO, **arguments: Any) -> dict[str, Any]:
    """The sum of what a verb answers that takes octets. Raises ControlError, OSError of the content."""
    with _connected(state) as sock:
        try:
            sock.sendall(frame(Request(version=VERSION, verb=verb, arguments=arguments)))
            while data := content.read(PIECE):
                sock.sendall(piece(data))
            sock.sendall(piece(b""))
        except (BrokenPipeError, ConnectionResetError):
            pass  # it refused, and says why
        try:
            found: dict[str, Any] = list(_rows(sock))[-1]["sum"]
        except (TimeoutError, ConnectionError) as wrong:
            raise NotRunning(f"the gateway in {state} went away: {wrong}") from wrong
    return found


def _rows(sock: socket.socket) -> Iterator[dict[str, Any]]:
    reader = Reader(ANSWER_LIMIT)
    while data := sock.recv(1 << 16):
        try:
            answers = [decode_answer(payload) for payload in reader.feed(data)]
        except (FrameError, msgspec.DecodeError) as wrong:
            raise ControlError(f"the gateway's answer is not understood: {wrong}", 3) from wrong
        for answer in answers:
            if isinstance(answer, Error):
                raise ControlError(answer.text, answer.exit)
            if isinstance(answer, End):
                yield {"sum": answer.sum}
                return
            assert isinstance(answer, Row)
            yield answer.row
    raise NotRunning("the gateway ended before its answer did")


def _connected(state: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    folder = -1
    try:
        folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        sock.connect(f"/proc/self/fd/{folder}/control.sock")  # however long the path is
    except PermissionError:
        sock.close()
        raise ControlError(f"you may not steer the gateway in {state}: see [admin] group", 1) from None
    except OSError:
        sock.close()
        raise NotRunning(f"no gateway answers in {state}; is it running?") from None
    finally:
        if folder >= 0:
            os.close(folder)
    return sock
