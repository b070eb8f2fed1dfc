"""kill -9 while QUIT deletes: all of it or nothing, and nothing else"""

from __future__ import annotations

import pathlib
import poplib
import random
import socket
import time

import pytest

from support.gateways import Running
from tripost.delivery.mailbox.places import make_mailbox
from tripost.delivery.mailbox.uids import file_name

MARC = "marc@machin.com"
STAY = 50  # messages that nobody deletes


def _fill(box: pathlib.Path, count: int, start: int) -> None:
    make_mailbox(str(box))
    for n in range(start, start + count):
        text = b"Subject: %d\r\n\r\nx\r\n" % n
        (box / "new" / file_name(f"K{n:08}_0", 1_700_000_000 + n, "h", len(text))).write_bytes(text)


def _uidl(gateway: Running) -> list[str]:
    client = poplib.POP3("127.0.0.1", gateway.pop3, timeout=60)
    client.user(MARC)
    client.pass_("secret")
    rows = [row.split()[1].decode() for row in client.uidl()[1]]
    client.quit()
    return rows


def _delete_and_kill(gateway: Running, count: int, after: float) -> bytes:
    """What the client hears of its QUIT when the gateway is killed `after` s."""
    with socket.create_connection(("127.0.0.1", gateway.pop3), 60) as one:
        lines = one.makefile("rb")
        commands = [f"USER {MARC}", "PASS secret", *(f"DELE {n}" for n in range(STAY + 1, STAY + count + 1)), "NOOP"]
        one.sendall("".join(f"{line}\r\n" for line in commands).encode())
        for _ in range(len(commands) + 1):
            line = lines.readline()
            assert line.startswith(b"+OK"), line
        one.sendall(b"QUIT\r\n")
        time.sleep(after)
        gateway.kill()
        try:
            heard = lines.readline()
        except OSError:
            heard = b""
        lines.close()
        return heard


def _rounds(folder: pathlib.Path, rounds: int, count: int) -> list[str]:
    """How each round ended."""
    gateway, chance = Running(folder), random.Random(rounds)
    box = folder / "state" / "mail" / MARC
    ended: list[str] = []
    longest = 0.05
    _fill(box, STAY, 0)
    for n in range(rounds):
        gateway.start()
        there = _uidl(gateway)
        if len(there) == STAY:
            _fill(box, count, (n + 1) * count + STAY)
            there = _uidl(gateway)
        assert len(there) == STAY + count
        began = time.monotonic()
        heard = _delete_and_kill(gateway, count, chance.uniform(0.0, longest))
        if heard:  # it was too late: kill earlier
            longest = max(0.005, min(longest, time.monotonic() - began) * 0.9)
        gateway.start()
        left = _uidl(gateway)
        gateway.kill()
        assert len(set(left)) == len(left)
        assert left in (there, there[:STAY]), f"{len(left)} of {len(there)} are left"
        assert not heard or left == there[:STAY], "the client was told that they are gone"
        ended.append("answered" if heard else "all gone" if len(left) == STAY else "all there")
    return ended


def test_all_or_nothing(tmp_path: pathlib.Path) -> None:
    assert len(_rounds(tmp_path, 3, 300)) == 3


@pytest.mark.long
def test_all_or_nothing_of_a_thousand_fifty_times(tmp_path: pathlib.Path) -> None:
    ended = _rounds(tmp_path, 50, 1000)
    print({how: ended.count(how) for how in sorted(set(ended))})
    assert set(ended) >= {"all gone", "all there"}, "no kill came in between"
