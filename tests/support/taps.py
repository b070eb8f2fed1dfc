"""what goes over the wire between two programs: a port that hands everything on, and remembers it"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Tap:
    """`said`: what clients sent, in the pieces that it came in; `heard`: what the server at `to` answered."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.said: list[bytes] = []
        self.heard: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def commands(self) -> list[str]:
        return b"".join(self.said).decode("utf-8", "replace").split("\r\n")

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to), 20)
                for one, other, log in ((client, server, self.said), (server, client, self.heard)):
                    threading.Thread(target=_copy, args=(one, other, log), daemon=True).start()

    def close(self) -> None:
        self._listener.close()


def _copy(one: socket.socket, other: socket.socket, log: list[bytes]) -> None:
    with suppress(OSError):
        while data := one.recv(65_536):
            log.append(data)
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


@contextmanager
def tap(to: int) -> Iterator[Tap]:
    one = Tap(to)
    try:
        yield one
    finally:
        one.close()
