"""a mailbox fetched by the programs that people use, over plain text, STLS and TLS, kept and deleted"""

from __future__ import annotations

import poplib
import shutil
from collections.abc import Iterator

import pytest
import trustme

from conftest import needs
from support.gateways import Running, free_port, running
from support.pop3_clients import CLIENTS, PASSWORD, USER, Shop, normal
from tripost.delivery.mailbox.places import make_mailbox
from tripost.delivery.mailbox.uids import file_name

MORE = """\
[[listen]]
service = "pop3"
address = "127.0.0.1:{implicit}"
tls = "implicit"
[tls]
certificate = "cert.pem"
key = "key.pem"
"""
BODIES = [
    b"plain\r\n",
    b".\r\n..\r\n.dot\r\n...\r\n",
    b"From here on\r\n>From there\r\n",
    b"latin \xe9\xe8, utf-8 \xc3\xa9, tab \t and space \r\n",
    b"long " + b"x" * 900 + b"\r\n",
    b"no empty line at the end\r\n\r\nbut here one\r\n\r\n",
    b"line\r\n" * 3000,
]
COMBINATIONS = [
    (name, way, delete)
    for name, (_, _, ways, _) in CLIENTS.items()
    for way in ways
    for delete in ((False, True) if way == "plain" else (True,))
]
ALL = [(name, way, delete) for name, (_, _, ways, _) in CLIENTS.items() for way in ways for delete in (False, True)]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Shop]]:
    folder, authority = tmp_path_factory.mktemp("clients"), trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1", common_name="localhost")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    implicit = free_port()
    with running(folder, MORE.format(implicit=implicit), user="") as gateway:
        scram = ("--scheme", "SCRAM-SHA-256", "--password-stdin")
        assert gateway.command("user", "add", USER, *scram, input=f"{PASSWORD}\n").returncode == 0
        yield gateway, Shop(gateway.pop3, implicit, folder / "ca.pem", folder)


def fill(gateway: Running, count: int) -> list[bytes]:
    box = gateway.folder / "state" / "mail" / USER
    shutil.rmtree(box, ignore_errors=True)
    make_mailbox(str(box))
    messages: list[bytes] = []
    for n in range(count):
        head = f"Return-Path: <fred@truc.fr>\r\nFrom: fred@truc.fr\r\nTo: {USER}\r\nSubject: number {n}\r\n"
        messages.append(f"{head}Message-ID: <{n}@truc.fr>\r\n\r\n".encode() + BODIES[n % len(BODIES)])
        name = file_name(f"C{n:06}_0", 1_700_000_000 + n, "h", len(messages[-1]))
        (box / "new" / name).write_bytes(messages[-1])
    return messages


def left(gateway: Running) -> int:
    client = poplib.POP3("127.0.0.1", gateway.pop3, timeout=60)
    client.user(USER)
    client.pass_(PASSWORD)
    count: int = client.stat()[0]
    client.quit()
    return count


def fetch(house: tuple[Running, Shop], count: int, name: str, way: str, delete: bool) -> None:
    gateway, shop = house
    client, package, _, exact = CLIENTS[name]
    if package:
        needs({"getmail6": "getmail"}.get(package, package), package)
    messages = fill(gateway, count)
    found = client(shop, delete, way)
    if exact:
        assert sorted(found) == sorted(messages)
    assert sorted(map(normal, found)) == sorted(map(normal, messages))
    assert left(gateway) == (0 if delete else count)


@pytest.mark.parametrize(("name", "way", "delete"), COMBINATIONS)
def test_fetched(house: tuple[Running, Shop], name: str, way: str, delete: bool) -> None:
    fetch(house, 8, name, way, delete)


@pytest.mark.long
@pytest.mark.parametrize(("name", "way", "delete"), ALL)
def test_a_thousand_fetched(house: tuple[Running, Shop], name: str, way: str, delete: bool) -> None:
    fetch(house, 1000, name, way, delete)
