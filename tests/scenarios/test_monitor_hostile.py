"""the monitor's port against those who do not keep to the rules: a clear error or a clean cut, and mail goes on"""

from __future__ import annotations

import pathlib
import resource
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
import trustme

from support.gateways import Running, running, wait_for
from support.monitor import ACT, LOOK, Caller, write_tokens
from support.steering import send

HANDSHAKE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n"
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: pathlib.Path = tmp_path_factory.mktemp("hostile")
    with running(folder, write_tokens(folder)) as one:
        yield one
        assert one.events("trouble") == []  # whatever came, nothing in the gateway went wrong


@pytest.fixture(autouse=True)
def mail_goes_on(gateway: Running) -> Iterator[None]:
    yield
    send(gateway, "marc@machin.com")


def say(port: int, data: bytes, address: str = "127.0.0.1") -> bytes:
    """All that is answered until the connection ends, or for a minute."""
    got = b""
    with socket.create_connection((address, port), 60) as one:
        one.settimeout(60)
        try:
            one.sendall(data)
            while more := one.recv(65_536):
                got += more
        except (TimeoutError, ConnectionError):
            pass
    return got


def opened(port: int, path: bytes, more: bytes = b"") -> socket.socket:
    """A websocket, raw."""
    one = socket.create_connection(("127.0.0.1", port), 10)
    one.sendall(HANDSHAKE % (path, more))
    assert one.recv(12) == b"HTTP/1.1 101"
    return one


def resident(gateway: Running) -> int:
    """Octets."""
    assert gateway.child is not None
    pages = int(pathlib.Path(f"/proc/{gateway.child.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\x00" * 200, b"HTTP/1.1 400"),  # TLS to a plain port
        (b"EHLO me.example\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"HTTP/1.1 "),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400"),  # no Host
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", b"HTTP/1.1 431"),
        (b"GET /" + b"x" * 40_000, b"HTTP/1.1 431"),
        (
            b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999999\r\n\r\n" + b"x" * 70_000,
            b"HTTP/1.1 413",
        ),
        (b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 400"),
        (b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 400"),
        (b"GET /?" + b"a=1&" * 3000 + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"HTTP/1.1 200"),
        (b"GET /static/..%2f..%2fetc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"HTTP/1.1 404"),
        (b"GET /static/../http.py HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"HTTP/1.1 404"),
    ],
)
def test_what_is_no_request_is_told_so(gateway: Running, data: bytes, answer: bytes) -> None:
    assert say(gateway.monitor, data)[: len(answer)] == answer


def test_pipelined_requests_are_answered_in_order(gateway: Running) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answers = say(gateway.monitor, one * 20 + last)
    assert answers.count(b"HTTP/1.1 200") == 20
    assert b"HTTP/1.1 404" in answers.rpartition(b"HTTP/1.1 200")[2]


def test_a_websocket_after_other_requests_on_the_same_connection(gateway: Running) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.monitor), 60) as raw:
        raw.settimeout(60)
        raw.sendall(one + HANDSHAKE % (b"/live", b""))
        got = b""
        while b'"kind":"snapshot"' not in got:
            got += raw.recv(65_536)
    assert got.index(b"HTTP/1.1 200") < got.index(b"HTTP/1.1 101") < got.index(b'"snapshot"')


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        (b"/nothing", b"", b"404"),
        (b"/live", b"Origin: https://evil.example\r\n", b"403"),
        (b"/events", b"Origin: null\r\n", b"403"),
        (b"/live", b"X-Forwarded-For: 127.0.0.1\r\n", b"401"),
        (b"/live", b"Authorization: Bearer wrong\r\n", b"401"),
        (b"/events?after=x", b"", b"400"),
        (b"/events?after=-1", b"", b"400"),
        (b"/events?after=9999999999999999999999", b"", b"400"),
        (b"/events?nothing=1", b"", b"400"),
        (b"/events?event=nothing", b"", b"400"),
        (b"/events?id=" + b"a,b," * 50, b"", b"400"),
        (b"/events?client=1.2.3.4/99", b"", b"400"),
        (b"/trace?service=moon", b"", b"400"),
    ],
)
def test_websockets_that_are_refused(gateway: Running, path: bytes, more: bytes, status: bytes) -> None:
    answer = say(gateway.monitor, HANDSHAKE % (path, b"Connection: close\r\n" + more))
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b'{"error":' in answer


MASK = b"\x00\x00\x00\x00"
FRAMES = {
    "not masked": b"\x81\x02hi",
    "reserved": b"\xff\x80" + MASK,
    "2^63 octets": b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + MASK + b"x" * 8192,
    "oversized": b"\x81\xfe\x40\x00" + MASK + b"x" * 0x4000,
    "no UTF-8": b"\x81\x82" + MASK + b"\xff\xfe",
    "fragments without an end": b"\x01\x81" + MASK + b"x" + (b"\x00\x81" + MASK + b"x") * 5000,
    "a large ping": b"\x89\xfe\x00\xff" + MASK + b"x" * 255,
    "half a close": b"\x88\x81" + MASK + b"\x03",
    "noise": bytes(range(256)) * 40,
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("path", [b"/live", b"/events"])
def test_frames_that_are_none(gateway: Running, path: bytes, name: str) -> None:
    """The websocket is closed."""
    with opened(gateway.monitor, path) as one:
        one.settimeout(60)
        try:
            one.sendall(FRAMES[name])
            while one.recv(65_536):
                pass
        except ConnectionError:
            pass  # cut


def test_a_feed_is_not_talked_to_for_ever(gateway: Running) -> None:
    with opened(gateway.monitor, b"/live") as one:
        one.settimeout(60)
        with pytest.raises(ConnectionError):
            one.sendall((b"\x81\x82" + MASK + b"hi") * 1_000_000)


def test_pings_beyond_what_is_read_are_cut(gateway: Running) -> None:
    """A client that sends and never reads: pongs are not collected for it."""
    before = resident(gateway)
    ping = b"\x89\xfd" + MASK + b"x" * 125
    with opened(gateway.monitor, b"/live") as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(60)
        with pytest.raises(ConnectionError):
            one.sendall(ping * 1_000_000)
    assert resident(gateway) - before < 16 << 20


def test_a_thousand_clients(gateway: Running) -> None:
    before = resident(gateway)
    refused = 0
    clients: list[socket.socket] = []
    try:
        for _ in range(1000):
            one = socket.create_connection(("127.0.0.1", gateway.monitor), 20)
            one.sendall(HANDSHAKE % (b"/live", b""))
            clients.append(one)
        for one in clients:
            one.settimeout(60)
            head = one.recv(12)
            assert head in (b"HTTP/1.1 101", b"HTTP/1.1 503"), head
            refused += head.endswith(b"503")
        assert refused == 500
        send(gateway, "marc@machin.com", count=20)
        assert Caller(gateway).get("/healthz").status in (200, 503)  # 503: too many connections
        used = resident(gateway) - before
        print(f"{used >> 20} MiB for 500 websockets and 500 that were refused")
        assert used < 100 << 20
    finally:
        for one in clients:
            one.close()
    assert wait_for(lambda: Caller(gateway).get("/healthz").status == 200)


def test_clients_that_never_read_are_cut(gateway: Running) -> None:
    """Not at once: first the system's buffers are full. Nor is somebody waited for who does not end his request."""
    silent = socket.create_connection(("127.0.0.1", gateway.monitor), 60)
    silent.sendall(b"GET / HT")
    clients = [silent]
    for _ in range(5):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        one.connect(("127.0.0.1", gateway.monitor))
        one.sendall(HANDSHAKE % (b"/events", b""))
        clients.append(one)
    try:
        many = ["x" * 60 + f"{n}@machin.com" for n in range(3)]  # refused, each with an event of its own
        end = time.monotonic() + 120

        def cut() -> int:
            """By what /live tells."""
            with opened(gateway.monitor, b"/live") as live:
                live.settimeout(60)
                got = b""
                while b'"cut":' not in got:
                    got += live.recv(65_536)
                return int(got.partition(b'"cut":')[2].partition(b"}")[0])

        before = cut()
        while cut() < before + 5:
            assert time.monotonic() < end, "they are there still"
            flood(gateway, many)
        silent.settimeout(60)
        assert silent.recv(100).startswith(b"HTTP/1.1 408")
    finally:
        for one in clients:
            one.close()


def test_conditions_that_are_dear_to_look_at(gateway: Running) -> None:
    """Each of forty clients has other patterns: what that costs has a bound, mail goes on."""
    clients = [
        opened(gateway.monitor, b"/events?address=" + b",".join(b"*%d*%d*@*x*" % (n, m) for m in range(20)))
        for n in range(40)
    ]
    try:
        began = time.monotonic()
        send(gateway, "marc@machin.com", count=300)  # raises when one is refused
        assert time.monotonic() - began < 60
        assert Caller(gateway).get("/readyz").status == 200
    finally:
        for one in clients:
            one.close()


def flood(gateway: Running, recipients: list[str]) -> None:
    """Events, by recipients that are not there."""
    with socket.create_connection(("127.0.0.1", gateway.smtp), 60) as one:
        one.settimeout(60)
        lines = [f"MAIL FROM:<fred@truc.fr>\r\nRCPT TO:<{to}>\r\nRSET\r\n" for to in recipients for _ in range(6)]
        one.sendall(("EHLO me\r\n" + "".join(lines) + "QUIT\r\n").encode())
        try:
            while one.recv(65_536):
                pass
        except OSError:
            pass


# --- from elsewhere ---


def another_address() -> str:
    """One of this machine's own that is not loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))  # nothing is sent
            found = str(one.getsockname()[0])
        except OSError:
            found = "127.0.0.1"
    if found.startswith("127."):
        pytest.skip("this machine has no address but loopback's")
    return found


def test_a_port_scan_yields_nothing(tmp_path: pathlib.Path) -> None:
    address = another_address()
    extra = write_tokens(tmp_path) + f'origins = ["http://{address}:8025"]\n'
    with running(tmp_path, extra) as gateway:
        gateway.stop()
        text = gateway.file.read_text()
        gateway.file.write_text(text.replace(f'"127.0.0.1:{gateway.monitor}"', f'"{address}:{gateway.monitor}"'))
        gateway.start()
        nobody = Caller(gateway, address=address)
        paths = [
            "/",
            "/live",
            "/events",
            "/trace",
            "/metrics",
            "/api/v1/openapi.json",
            "/api/v1/queue/list",
            "/asyncapi.json",
        ]
        paths += [
            "/static/app.js",
            "/login",
            "/logout",
            "/nothing",
            "/.git/config",
            "/api/v1/session",
            "*",
            "/healthz/",
            "//",
        ]
        asked = [("GET", path, {}) for path in paths] + [("POST", path, {}) for path in paths]
        asked += [(method, "/", {}) for method in ("HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW")]
        asked += [("GET", "/", {"Host": "localhost"}), ("GET", "/", {"Accept": "text/html"})]
        found = {
            (method, path, *more): nobody.ask(method, path, b"{}" if method == "POST" else None, **more)
            for method, path, more in asked
        }
        told = {key: one.status for key, one in found.items() if one.status != 401 and key != ("POST", "/login")}
        assert told == {}
        assert len(found) > 40
        assert found["POST", "/login"].status in (400, 401, 429)
        texts = {one.body for one in found.values()}
        assert not any(b"machin" in one or b"tripost" in one for one in texts)
        for path in (b"/live", b"/events", b"/trace", b"/nothing"):
            answer = say(gateway.monitor, HANDSHAKE % (path, b"Connection: close\r\n"), address)
            assert answer.startswith(b"HTTP/1.1 401")
        slowed = False
        for _ in range(40):  # whoever asks on and on is slowed
            began = time.monotonic()
            assert nobody.get("/nothing").status == 401
            slowed = slowed or time.monotonic() - began > 0.5
            if slowed:
                break
        assert slowed
        assert nobody.get("/healthz").body == b"ok\n"
        assert nobody.get("/readyz").body == b"ready\n"
        assert Caller(gateway, LOOK, address=address, Host=f"{address}:8025").get("/api/v1/queue/list").status == 200
        assert Caller(gateway, LOOK, address=address, Host="tripost:8025").get("/api/v1/queue/list").status == 200


def test_a_handshake_that_stays_half_open(tmp_path: pathlib.Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    with running(tmp_path, '[tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n' + write_tokens(tmp_path)) as gateway:
        gateway.stop()
        address = f'address = "127.0.0.1:{gateway.monitor}"\n'
        gateway.file.write_text(gateway.file.read_text().replace(address, f'{address}tls = "implicit"\n'))
        gateway.start()
        halves = [socket.create_connection(("127.0.0.1", gateway.monitor), 60) for _ in range(40)]
        for one in halves:
            one.sendall(b"\x16\x03\x01\x02\x00\x01")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with (
            socket.create_connection(("127.0.0.1", gateway.monitor), 60) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as secure,
        ):
            body = b'{"token":"' + ACT.encode() + b'"}'
            head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
            secure.sendall(head + body)
            answer = secure.recv(4096)
            assert answer.startswith(b"HTTP/1.1 204")
            assert b"Set-Cookie: __Host-tripost=act." in answer
            assert b"; HttpOnly; SameSite=Strict; Secure" in answer
            secure.sendall(HANDSHAKE % (b"/live", b"Origin: https://localhost\r\n"))
            got = b""
            while b'"kind":"delta"' not in got:
                got += secure.recv(65_536)
        for one in halves:
            one.close()
        assert gateway.stop() == 0
