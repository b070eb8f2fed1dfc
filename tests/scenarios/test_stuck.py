"""more ways in which mail is stuck: explain names each, and the command that it names gets it going

With those of test_steering.py (a dead host, a hold, a suspension, a 4xx) they are ten.
"""

from __future__ import annotations

import pathlib
import socket
import threading

from support.gateways import free_port, running, wait_for
from support.sinks import Sink
from support.steering import obey, send, why_is
from tripost.gateway.demo_dns import Authority

ROUTE = """\
[[route]]
domain = "far.example"
to = "smtp://127.0.0.1:{port}"
[delivery.default]
probe_first = "1h"
probe_longest = "1h"
{limits}
[retry]
first = "1h"
"""


def test_a_rate_limit(tmp_path: pathlib.Path) -> None:
    port = free_port()
    sink = Sink(port)
    try:
        limits = '[delivery.destination."127.0.0.1"]\nrate = "1/h"'
        with running(tmp_path, ROUTE.format(port=port, limits=limits)) as gateway:
            send(gateway)
            assert wait_for(lambda: len(sink.messages) == 1)
            (id,) = send(gateway)
            found = why_is(gateway, id, "ready", "rate")
            assert "[delivery] rate for" in str(found["reason"])
            obey(gateway, found["command"])
            assert wait_for(lambda: len(sink.messages) == 2)
            assert "rate none" in gateway.command("queue", "limits").stdout
            gateway.kill()
            gateway.start()  # what was said is on disk
            send(gateway, count=2)
            assert wait_for(lambda: len(sink.messages) == 4)
            assert gateway.command("queue", "limit", f"smtp://127.0.0.1:{port}", "--default").returncode == 0
            assert "as configured" in gateway.command("queue", "limits").stdout
            assert gateway.command("queue", "limit", "pigeon:nobody", "--rate", "1/s").returncode == 1
            assert gateway.command("queue", "limit", "mx:nobody.example", "--rate", "fast").returncode == 2
    finally:
        sink.close()


class Slow:
    """A host that takes one message and is silent after its dot until `go`."""

    def __init__(self, port: int) -> None:
        self.go = threading.Event()
        self.taken: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(one,), daemon=True).start()

    def _talk(self, one: socket.socket) -> None:
        first = not self.taken
        self.taken.append(b"")
        with one, one.makefile("rb") as lines:
            one.sendall(b"220 slow\r\n")
            for line in lines:
                if line.startswith(b"DATA"):
                    one.sendall(b"354 go\r\n")
                elif line == b".\r\n":
                    if first:
                        self.go.wait(60)
                    one.sendall(b"250 taken\r\n")
                elif line[:4] in (b"EHLO", b"MAIL", b"RCPT", b"QUIT", b"RSET"):
                    one.sendall(b"250 ok\r\n")

    def close(self) -> None:
        self.go.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def test_a_connection_limit(tmp_path: pathlib.Path) -> None:
    port = free_port()
    slow = Slow(port)
    try:
        limits = '[delivery.destination."127.0.0.1"]\nconnections = 1'
        with running(tmp_path, ROUTE.format(port=port, limits=limits)) as gateway:
            (first,) = send(gateway)
            why_is(gateway, first, "active")
            (id,) = send(gateway)
            found = why_is(gateway, id, "ready", "all connections that [delivery] allows")
            obey(gateway, found["command"])
            assert wait_for(lambda: [row["id"] for row in gateway.events("relayed")] == [id])
            slow.go.set()
    finally:
        slow.close()


def test_a_back_off_after_a_host_said_421(tmp_path: pathlib.Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server:
        threading.Thread(target=_closed, args=(server,), daemon=True).start()
        with running(tmp_path, ROUTE.format(port=port, limits="")) as gateway:
            (id,) = send(gateway)
            why_is(gateway, id, "down", "421")
            gateway.stop()
            server.shutdown(socket.SHUT_RDWR)
            server.close()
            sink = Sink(port)
            gateway.start()  # the back-off outlives it
            try:
                found = why_is(gateway, id, "down")
                assert float(str(found["next"])) > 0
                assert sink.messages == []
                obey(gateway, found["command"])
                assert wait_for(lambda: len(sink.messages) == 1)
            finally:
                sink.close()


def _closed(server: socket.socket) -> None:
    while True:
        try:
            one, _ = server.accept()
        except OSError:
            return
        with one:
            one.sendall(b"421 4.3.2 come back tomorrow\r\n")


def test_a_dns_failure(tmp_path: pathlib.Path) -> None:
    names, port = free_port(), free_port()
    extra = f'[delivery]\nport = {port}\n[dns]\nnameservers = ["127.0.0.1:{names}"]\n'
    sink, answers = Sink(port), [Authority({})]  # which refuses
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", names))
    server.settimeout(0.1)
    thread = threading.Thread(target=_answer, args=(server, answers))
    thread.start()
    zone = {"mx.example": [("mx.example", "MX", "10 host.mx.example."), ("host.mx.example", "A", "127.0.0.1")]}
    try:
        with running(tmp_path, extra) as gateway:
            (id,) = send(gateway, "u@mx.example")
            found = why_is(gateway, id, "down")
            assert "4.4.3" in str(found["reason"])
            answers.append(Authority(zone))
            obey(gateway, found["command"])
            assert wait_for(lambda: len(sink.messages) == 1)
    finally:
        sink.close()
        answers.clear()
        thread.join()
        server.close()


def _answer(one: socket.socket, answers: list[Authority]) -> None:
    """By the newest, until there is none."""
    while answers:
        try:
            octets, sender = one.recvfrom(4096)
            one.sendto(answers[-1].answer(octets) or b"", sender)
        except (TimeoutError, IndexError):
            pass


def test_a_tls_policy(tmp_path: pathlib.Path) -> None:
    port = free_port()
    sink = Sink(port)  # without STARTTLS
    try:
        with running(tmp_path, ROUTE.format(port=port, limits='tls = "encrypt"')) as gateway:
            (id,) = send(gateway)
            found = why_is(gateway, id, "down")
            assert "must be spoken to with TLS" in str(found["reason"])
            obey(gateway, found["command"])
            assert wait_for(lambda: len(sink.messages) == 1)
    finally:
        sink.close()


def test_a_mailbox_over_its_quota(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, ROUTE.format(port=free_port(), limits="")) as gateway:
        gateway.command("queue", "suspend", "local")
        (_, id) = send(gateway, "marc@machin.com", count=2)  # taken while there was room
        assert gateway.command("user", "quota", "marc@machin.com", "--messages", "1").returncode == 0
        gateway.command("queue", "resume", "local")
        found = why_is(gateway, id, "deferred")
        assert "over its quota" in str(found["reason"])
        obey(gateway, found["command"])
        assert wait_for(lambda: gateway.events("delivered")[-1]["id"] == id)
