"""a mailbox read, flagged, moved, deleted and added to by the programs that people use"""

from __future__ import annotations

import pathlib
import re
import shutil
from collections.abc import Iterator

import pytest

from conftest import needs
from support.gateways import Running, running
from support.imap_clients import FETCHERS, ROUNDS, Desk
from support.pop3_clients import USER, normal
from tripost.delivery.mailbox.places import make_mailbox
from tripost.delivery.mailbox.uids import file_name

# header lines of their own
_TRACE = re.compile(
    rb"\AReceived: from [^\n]*\n\tby [^\n]* with IMAP [^\n]*\n(?:\t[^\n]*\n)*"
    rb"|\AReturn-Path: <unknown>\n|^X-getmail-[^\n]*\n",
    re.M,
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("imap")) as one:
        yield one


def fill(gateway: Running, count: int) -> list[bytes]:
    box = gateway.folder / "state" / "mail" / USER
    shutil.rmtree(box, ignore_errors=True)
    make_mailbox(str(box))
    messages: list[bytes] = []
    for n in range(count):
        head = f"From: Fred <fred@truc.fr>\r\nTo: {USER}\r\nSubject: number {n}\r\nMessage-ID: <{n}@truc.fr>\r\n"
        body = (b"line\r\n" * (n % 200), b".dot\r\n..\r\n", b"8-bit \xc3\xa9\r\n", b"From here\r\n")[n % 4]
        messages.append(head.encode() + b"Date: Wed, 17 Jul 2024 02:23:25 +0000\r\n\r\n" + body)
        name = file_name(f"C{n:06}_0", 1_700_000_000 + n, "h", len(messages[-1]))
        (box / "new" / name).write_bytes(messages[-1])
    return messages


def whole_round(gateway: Running, folder: pathlib.Path, name: str, count: int) -> None:
    play, program, package = ROUNDS[name]
    if program:
        needs(program, package)
    fill(gateway, count)
    desk = Desk(gateway.imap, folder)
    play(desk)
    found = desk.state("INBOX", "Kept")
    assert set(found["INBOX"]) == {"number 0", *(f"number {n}" for n in range(3, count)), "written here"}
    assert set(found["Kept"]) == {"number 1"}
    assert "\\Flagged" in found["INBOX"]["number 0"]
    assert not any("\\Flagged" in found["INBOX"][f"number {n}"] for n in range(3, count))
    assert not [event for event in gateway.events("trouble") if "imap" in event["where"]]


def fetched(gateway: Running, folder: pathlib.Path, name: str, delete: bool, count: int) -> None:
    play, program, package = FETCHERS[name]
    needs(program, package)
    messages = fill(gateway, count)
    desk = Desk(gateway.imap, folder)
    found = sorted(_TRACE.sub(b"", normal(one)) for one in play(desk, delete))
    assert found == sorted(map(normal, messages))
    assert len(desk.state("INBOX")["INBOX"]) == (0 if delete else count)


@pytest.mark.parametrize("name", ROUNDS)
def test_a_round(gateway: Running, tmp_path: pathlib.Path, name: str) -> None:
    whole_round(gateway, tmp_path, name, 12)


@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize("name", FETCHERS)
def test_fetched(gateway: Running, tmp_path: pathlib.Path, name: str, delete: bool) -> None:
    fetched(gateway, tmp_path, name, delete, 8)


@pytest.mark.long
@pytest.mark.parametrize("name", ROUNDS)
def test_a_round_over_a_thousand(gateway: Running, tmp_path: pathlib.Path, name: str) -> None:
    whole_round(gateway, tmp_path, name, 1000)


@pytest.mark.long
@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize("name", FETCHERS)
def test_a_thousand_fetched(gateway: Running, tmp_path: pathlib.Path, name: str, delete: bool) -> None:
    fetched(gateway, tmp_path, name, delete, 1000)
