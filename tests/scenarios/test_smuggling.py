"""what looks like an end of data and is none never ends a message (real sockets)"""

from __future__ import annotations

import pathlib
import socket

import pytest

from support.gateways import running

VECTORS = [
    b"\n.\n",
    b"\r\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\r\n\x00.\r\n",
    b"\r\n.\x00\r\n",
    b"\r\n.\r\x00\n",
    b"\x00\r\n.\n",
]
SMUGGLED = b"MAIL FROM:<evil@truc.fr>\r\nRCPT TO:<marc@machin.com>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n.\r\n"


def _read_all(client: socket.socket) -> bytes:
    got = b""
    try:
        while data := client.recv(65536):
            got += data
    except ConnectionResetError:
        pass  # closed with our last bytes unread: as it should be
    return got


def _expect(client: socket.socket, code: bytes) -> None:
    got = b""
    while not got.endswith(b"\r\n") or got.splitlines()[-1][3:4] == b"-":
        got += client.recv(4096)
    assert got.startswith(code), got


def _bare(vector: bytes) -> bool:
    rest = vector.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest


def test_no_vector_ends_a_message(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway:
        for vector in VECTORS:
            with socket.create_connection(("127.0.0.1", gateway.smtp), 10) as client:
                _expect(client, b"220")
                for line in (b"EHLO truc.fr", b"MAIL FROM:<fred@truc.fr>", b"RCPT TO:<marc@machin.com>"):
                    client.sendall(line + b"\r\n")
                    _expect(client, b"250")
                client.sendall(b"DATA\r\n")
                _expect(client, b"354")
                client.sendall(b"Subject: one\r\n\r\nbody" + vector + SMUGGLED + b"QUIT\r\n")
                replies = _read_all(client).split(b"\r\n")
            if _bare(vector):  # dropped to the real end, refused, closed; nothing pipelined behind it is obeyed
                assert replies == [replies[0], b""], (vector, replies)
                assert replies[0].startswith(b"554 5.6.0"), (vector, replies)
            else:  # NUL beside the dot is text: one message, its end is SMUGGLED's own
                assert [one[:3] for one in replies if one] == [b"250", b"221"], (vector, replies)
        assert all(row["sender"] == "fred@truc.fr" for row in gateway.events("accepted"))
        assert len(gateway.events("accepted")) == sum(not _bare(one) for one in VECTORS)


@pytest.mark.parametrize("line", [b"NOOP\n", b"NO\rOP\r\n"])
def test_bare_newline_in_a_command(tmp_path: pathlib.Path, line: bytes) -> None:
    with running(tmp_path) as gateway, socket.create_connection(("127.0.0.1", gateway.smtp), 10) as client:
        _expect(client, b"220")
        client.sendall(line + b"NOOP\r\n")
        got = _read_all(client)
        assert got.startswith(b"500 5.5.2")
        assert got.count(b"\r\n") == 1
