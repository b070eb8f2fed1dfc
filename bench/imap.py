"""IMAP against its measure in the same run

    python bench/imap.py speed [--messages 50000] [--rounds 5]
        SELECT and FETCH 1:* (FLAGS UID RFC822.SIZE ENVELOPE), and SEARCH by headers, beside Dovecot (Debian:
        dovecot-imapd) on a copy of the same Maildir, turn by turn, warm
    python bench/imap.py idle [--sessions 1000]
        memory of sessions in IDLE, and how long until all of an account's have heard of new mail

One JSON line per figure, with the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import platform
import random
import resource
import select
import shutil
import smtplib
import socket
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))

from support.dovecot import dovecot
from support.gateways import Running, common_folder, running
from tripost.delivery.mailbox.places import make_mailbox

MARC = "marc@machin.com"
FETCH = ("SELECT INBOX", "FETCH 1:* (FLAGS UID RFC822.SIZE ENVELOPE)")
SEARCHES = {
    "subject, few": 'SEARCH SUBJECT "report 4999 of"',
    "subject, all": "SEARCH SUBJECT report",
    "from": "SEARCH FROM u7@example",
    "message id": "SEARCH HEADER Message-ID 4999.",
    "any header": 'SEARCH HEADER X-Mailer "mailer 3"',
}


def say(**figures: object) -> None:
    print(json.dumps(figures | {"cores": os.cpu_count(), "python": platform.python_version()}), flush=True)


def fill(box: pathlib.Path, count: int) -> None:
    chance = random.Random(1)
    make_mailbox(str(box))
    for n in range(count):
        head = (
            f"Return-Path: <u{n % 97}@example.org>\r\nDelivered-To: {MARC}\r\n"
            "Received: from mail.example.org ([192.0.2.1])\r\n"
            "\tby smtp.machin.com with ESMTPS id 362C4G12H8M00R6HJC\r\n\tfor <marc@machin.com>;\r\n"
            "\tThu, 26 Nov 2026 16:37:43 +0000\r\n"
            f"From: User {n % 97} <u{n % 97}@example.org>\r\nTo: Marc <{MARC}>, someone{n % 13}@machin.com\r\n"
            f"Subject: report {n} of {chance.randrange(1000)}\r\nDate: Wed, 17 Jul 2024 02:23:{n % 60:02} +0000\r\n"
            f"Message-ID: <{n}.{chance.randrange(10**9)}@example.org>\r\nX-Mailer: mailer {n % 7}\r\n"
            "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
        )
        text = head.encode() + b"line of text\r\n" * chance.randrange(5, 60)
        name = f"{1_700_000_000 + n}.M{chance.randrange(10**9)}P{n}.h,S={len(text)},W={len(text)}:2,"
        (box / "cur" / f"{name}{'S' if n % 3 else ''}").write_bytes(text)


class Client:
    """Says a command and reads until its tagged answer, at the least cost."""

    def __init__(self, port: int, user: str = MARC) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 300)
        self._number = 0
        self._socket.recv(65_536)
        self.say(f"LOGIN {user} secret")

    def say(self, command: str) -> float:
        self._number += 1
        tag = b"t%d " % self._number
        began = time.perf_counter()
        self._socket.sendall(tag + command.encode() + b"\r\n")
        tail = b""
        while True:
            data = self._socket.recv(1 << 20)
            assert data, "the server hung up"
            tail = (tail + data)[-600:]
            at = 0 if tail.startswith(tag) else tail.rfind(b"\r\n" + tag) + 2
            if tail.endswith(b"\r\n") and tail.startswith(tag, at):
                assert tail.startswith(tag + b"OK", at), tail[at:]
                return time.perf_counter() - began

    def idle(self) -> socket.socket:
        self._socket.sendall(b"i IDLE\r\n")
        assert self._socket.recv(100).startswith(b"+")
        return self._socket

    def close(self) -> None:
        self._socket.close()


def session(port: int, commands: list[str]) -> list[float]:
    client = Client(port)
    times = [client.say(one) for one in commands]
    client.close()
    return times


def speed(messages: int, rounds: int) -> None:
    with common_folder() as folder, running(folder) as gateway:
        mail, copy = folder / "state" / "mail", folder / "copy"
        fill(mail / MARC, messages)
        shutil.copytree(mail / MARC, copy / MARC)
        with dovecot(folder, copy, {MARC: "secret"}) as other:
            other.own()
            ours: dict[str, list[float]] = {}
            theirs: dict[str, list[float]] = {}
            for n in range(rounds + 1):  # the first warms both
                for port, found in ((other.imap, theirs), (gateway.imap, ours)):
                    fetch = sum(session(port, list(FETCH)))
                    searches = session(port, ["SELECT INBOX", *SEARCHES.values()])[1:]
                    if n:
                        found.setdefault("fetch", []).append(fetch)
                        for name, seconds in zip(SEARCHES, searches, strict=True):
                            found.setdefault(name, []).append(seconds)
    for name, values in ours.items():
        ratios = [one / two for one, two in zip(values, theirs[name], strict=True)]
        say(
            what=name,
            messages=messages,
            seconds=round(statistics.median(values), 3),
            dovecot=round(statistics.median(theirs[name]), 3),
            ratio=round(statistics.median(ratios), 2),
            ratios=[round(min(ratios), 2), round(max(ratios), 2)],
        )


def resident(gateway: Running) -> int:
    """KiB."""
    assert gateway.child is not None
    lines = pathlib.Path(f"/proc/{gateway.child.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def idle(sessions: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, sessions + 1000), hard))
    users = [f"u{n}@machin.com" for n in range(50)]
    with tempfile.TemporaryDirectory() as folder, running(pathlib.Path(folder)) as gateway:
        for user in users:
            gateway.command("user", "add", user, "--scheme", "SCRAM-SHA-256", "--password-stdin", input="secret\n")
        clients: list[Client] = []

        def more(count: int) -> None:
            for _ in range(count):
                clients.append(Client(gateway.imap, users[len(clients) % len(users)]))
                clients[-1].say("SELECT INBOX")
                clients[-1].idle()

        more(100)
        time.sleep(1)
        before = resident(gateway)
        more(sessions)
        time.sleep(2)
        say(what="idle", sessions=sessions, kib_each=round((resident(gateway) - before) / sessions, 1))
        hearing = {one.fileno(): one for one in (client._socket for client in clients[3 :: len(users)])}
        with smtplib.SMTP("127.0.0.1", gateway.smtp) as client:
            client.sendmail("fred@truc.fr", [users[3]], "Subject: x\r\n\r\ny\r\n")
        began, poll = time.perf_counter(), select.poll()
        count = len(hearing)
        for fd in hearing:
            poll.register(fd, select.POLLIN)
        while hearing:
            for fd, _ in poll.poll(5000):
                hearing.pop(fd)
                poll.unregister(fd)
        say(what="news", sessions=count, seconds=round(time.perf_counter() - began, 4))
        for client in clients:
            client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    one = what.add_parser("speed")
    one.add_argument("--messages", type=int, default=50_000)
    one.add_argument("--rounds", type=int, default=5)
    two = what.add_parser("idle")
    two.add_argument("--sessions", type=int, default=1000)
    options = parser.parse_args()
    if options.what == "speed":
        speed(options.messages, options.rounds)
    else:
        idle(options.sessions)


if __name__ == "__main__":
    main()
