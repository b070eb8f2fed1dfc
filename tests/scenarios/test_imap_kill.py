"""kill -9 under ten IMAP clients: no flag that was acknowledged is lost, no UID is used twice"""

from __future__ import annotations

import contextlib
import imaplib
import pathlib
import random
import re
import threading
import time

import pytest

from support.gateways import Running

MARC = "marc@machin.com"
CLIENTS = 10
PATIENCE = 600  # seconds; a machine may stand still for minutes


class Known:
    """What the clients have been told, over all lives of the gateway."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.who: dict[int, str] = {}  # UID → the message that has it
        self.flags: dict[int, set[str]] = {}
        self.gone: set[int] = set()
        self.acknowledged = 0
        self.validity = ""


class Busy(threading.Thread):
    """A client that appends, flags and removes its own messages until its connection breaks."""

    def __init__(self, port: int, number: int, life: int, known: Known) -> None:
        super().__init__()
        self.number, self.life, self.known, self.port = number, life, known, port
        self.wrong: list[str] = []

    def run(self) -> None:
        chance = random.Random(self.number * 1000 + self.life)
        one: imaplib.IMAP4 | None = None
        try:
            one = imaplib.IMAP4("127.0.0.1", self.port, timeout=PATIENCE)
            one.login(MARC, "secret")
            one.select()
            mine: list[int] = []
            for n in range(10_000):
                self._step(one, chance, mine, f"{self.life}.{self.number}.{n}")
        except (OSError, imaplib.IMAP4.abort):
            pass  # the gateway died
        except Exception as wrong:
            self.wrong.append(repr(wrong))
        finally:
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown()

    def _step(self, one: imaplib.IMAP4, chance: random.Random, mine: list[int], name: str) -> None:
        known, what = self.known, chance.random()
        if not mine or what < 0.3:
            _, (said,) = one.append("INBOX", "", "", f"Subject: {name}\r\n\r\nx\r\n".encode())
            found = re.search(rb"APPENDUID \d+ (\d+)", said)
            assert found is not None
            uid = int(found[1])
            with known.lock:
                assert uid not in known.who, f"UID {uid} was {known.who[uid]} and is {name}"
                known.who[uid], known.flags[uid] = name, set()
                known.acknowledged += 1
            mine.append(uid)
        elif what < 0.9:
            uid, flag = chance.choice(mine), chance.choice(["\\Seen", "\\Flagged", "\\Answered", "kw1", "$Junk"])
            assert one.uid("STORE", str(uid), "+FLAGS.SILENT", flag)[0] == "OK"
            with known.lock:
                known.flags[uid].add(flag)
                known.acknowledged += 1
        else:
            uid = mine.pop()
            one.uid("STORE", str(uid), "+FLAGS.SILENT", "\\Deleted")
            with known.lock:
                known.flags.pop(uid)  # between the two it may be there or not
            assert one.uid("EXPUNGE", str(uid))[0] == "OK"
            with known.lock:
                known.gone.add(uid)
                known.acknowledged += 1


def look(gateway: Running, known: Known) -> None:
    """Is everything as the clients were told?"""
    one = imaplib.IMAP4("127.0.0.1", gateway.imap, timeout=PATIENCE)
    one.login(MARC, "secret")
    one.select()
    validity = one.response("UIDVALIDITY")[1][0].decode()
    assert known.validity in ("", validity)
    known.validity = validity
    upper = int(one.response("UIDNEXT")[1][0])
    there: dict[int, tuple[str, set[str]]] = {}
    if one.search(None, "ALL")[1][0]:
        for row in one.fetch("1:*", "(UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]:
            if isinstance(row, tuple):
                found = re.search(rb"UID (\d+).*?FLAGS \(([^)]*)\)|FLAGS \(([^)]*)\).*?UID (\d+)", row[0])
                assert found is not None
                uid, flags = int(found[1] or found[4]), (found[2] or found[3] or b"").decode().split()
                there[uid] = row[1].decode().partition(":")[2].strip(), set(flags)
    one.logout()
    for uid, flags in known.flags.items():
        assert uid in there, f"UID {uid}, {known.who[uid]}, was acknowledged and is not there"
        assert there[uid][0] == known.who[uid]
        assert flags <= there[uid][1], f"UID {uid} lost {flags - there[uid][1]}"
    for uid, (name, _) in there.items():
        assert known.who.setdefault(uid, name) == name, f"UID {uid} was {known.who[uid]} and is {name}"
        assert uid not in known.gone, f"UID {uid} was removed and is there"
    assert upper > max(known.who, default=0)


def lives(folder: pathlib.Path, count: int, longest: float) -> Known:
    gateway, known, chance = Running(folder), Known(), random.Random(count)
    for life in range(count):
        gateway.start()
        look(gateway, known)
        clients = [Busy(gateway.imap, number, life, known) for number in range(CLIENTS)]
        for one in clients:
            one.start()
        time.sleep(chance.uniform(0.3, longest))
        gateway.kill()
        for one in clients:
            one.join(60)
        assert [wrong for one in clients for wrong in one.wrong] == []
    gateway.start()
    look(gateway, known)
    gateway.kill()
    return known


def test_flags_and_uids_survive_kill_nine(tmp_path: pathlib.Path) -> None:
    known = lives(tmp_path, 3, 1.2)
    assert known.acknowledged > 30


@pytest.mark.long
def test_flags_and_uids_survive_fifty_times(tmp_path: pathlib.Path) -> None:
    known = lives(tmp_path, 50, 3.0)
    print(f"{known.acknowledged} acknowledged, {len(known.who)} messages, {len(known.gone)} removed")
    assert known.acknowledged > 5000
