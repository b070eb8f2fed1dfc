"""an SMTP server that counts, in a thread: a destination outside of tripost"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from typing import Any


class _Handler(socketserver.StreamRequestHandler):
    server: Sink

    def handle(self) -> None:
        recipients = 0
        self.wfile.write(b"220 sink ESMTP\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            self.server.commands.append(line.decode().rstrip())
            if verb == b"EHLO":
                self.wfile.writelines(f"250-{one}\r\n".encode() for one in self.server.keywords)
                self.wfile.write(b"250 PIPELINING\r\n")
            elif verb == b"RCPT":
                recipients += not self.server.refuse
                self.wfile.write(f"{self.server.refuse or '250 ok'}\r\n".encode())
            elif verb == b"DATA" and not recipients:
                self.wfile.write(b"503 no recipient\r\n")
            elif verb == b"DATA":
                recipients = 0
                self.wfile.write(b"354 go\r\n")
                content = b""
                while (one := self.rfile.readline()) != b".\r\n":
                    if not one:
                        return
                    content += one[1:] if one.startswith(b".") else one
                self.server.take(content)
                self.wfile.write(b"250 taken\r\n")
            elif verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 ok\r\n")


class Sink(socketserver.ThreadingTCPServer):
    """`messages` holds the content of every message taken, `commands` every command; `keywords` are told to EHLO."""

    allow_reuse_address = True
    daemon_threads = False  # `close` waits for them, so that no socket outlives it
    request_queue_size = 128

    def __init__(self, port: int, *keywords: str, refuse: str = "") -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.refuse = refuse  # what RCPT gets
        self.messages: list[bytes] = []
        self.commands: list[str] = []
        self.keywords = ("sink", *keywords)
        self._lock = threading.Lock()
        self._open: set[Any] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def take(self, content: bytes) -> None:
        with self._lock:
            self.messages.append(content)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed breaks off; anything else is told."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close(self) -> None:
        self.shutdown()
        for one in list(self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # already gone
        self.server_close()
        self._thread.join()
