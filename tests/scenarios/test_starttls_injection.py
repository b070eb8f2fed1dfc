"""what is said in plain text behind STARTTLS, in the same segment, is never obeyed inside of TLS (real sockets)"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest

from support.gateways import wait_for
from support.submitting import MARC, House, house

MESSAGE = f"MAIL FROM:<evil@truc.fr>\r\nRCPT TO:<{MARC}>\r\nDATA\r\nSubject: evil\r\n\r\nevil\r\n.\r\n".encode()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as one:
        yield one


def _replies(client: socket.socket) -> bytes:
    """What is said until its last line has come."""
    got = b""
    while not got.endswith(b"\r\n") or got.splitlines()[-1][3:4] == b"-":
        data = client.recv(65_536)
        assert data, got
        got += data
    return got


def _begun(port: int, behind: bytes) -> socket.socket:
    """STARTTLS and what is `behind` it go out in one segment; the only answer is to STARTTLS."""
    client = socket.create_connection(("127.0.0.1", port), 20)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert _replies(client).startswith(b"220 ")
    client.sendall(b"EHLO client.example\r\n")
    assert b"STARTTLS" in _replies(client)
    client.sendall(b"STARTTLS\r\n" + behind)
    assert _replies(client) == b"220 2.0.0 go ahead\r\n"
    return client


def _secured(place: House, plain: socket.socket) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=place.authority)
    return context.wrap_socket(plain, server_hostname="smtp.machin.com")


@pytest.mark.parametrize(
    "behind",
    [b"NOOP\r\n", b"EHLO evil.example\r\n" + MESSAGE, MESSAGE + b"QUIT\r\n", b"BDAT 100\r\n", b"RCPT TO:<", b"\n"],
)
def test_nothing_of_it_is_obeyed(place: House, behind: bytes) -> None:
    noticed = len(place.gateway.events("noticed"))
    with _secured(place, _begun(place.smtp, behind)) as client:
        client.sendall(b"MAIL FROM:<fred@truc.fr>\r\n")
        assert _replies(client).startswith(b"503 5.5.1 ")  # the greeting was forgotten, none was smuggled in
        client.sendall(b"EHLO client.example\r\nRCPT TO:<marc@machin.com>\r\n")
        said = _replies(client)
        assert b"STARTTLS" not in said
        if b"503 5.5.1 " not in said:
            assert _replies(client).startswith(b"503 5.5.1 ")  # no transaction was begun either
        client.sendall(b"QUIT\r\n")
        assert _replies(client).startswith(b"221 ")
    (told,) = wait_for(lambda: place.gateway.events("noticed")[noticed:])
    assert told["reason"] == f"{len(behind)} octets behind STARTTLS, in plain text, were dropped"
    assert not place.gateway.events("accepted")


def test_a_login_behind_it_is_none(place: House) -> None:
    login = b"AUTH PLAIN AG1hcmNAbWFjaGluLmNvbQBzZWNyZXQ=\r\n"
    with _secured(place, _begun(place.submission, login)) as client:
        client.sendall(b"EHLO client.example\r\n")
        assert b"AUTH PLAIN" in _replies(client)  # nobody has logged in
        client.sendall(b"MAIL FROM:<marc@machin.com>\r\n")
        assert _replies(client).startswith(b"530 5.7.0 ")
    assert not place.gateway.events("loggedin")


def test_plain_text_instead_of_the_handshake_ends_the_connection(place: House) -> None:
    with _begun(place.smtp, b"") as client:
        client.sendall(b"EHLO evil.example\r\n" + MESSAGE)
        got = b""
        try:
            while data := client.recv(65_536):
                got += data
        except ConnectionResetError:
            pass
        assert b"250" not in got
    assert not place.gateway.events("accepted")
