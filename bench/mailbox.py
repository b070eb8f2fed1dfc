"""POP3 against its measure in the same run

    python bench/mailbox.py pop3 [--messages 100000] [--fetch 10000] [--rounds 3]
        login + UIDL of a large mailbox and RETR of 10 KiB messages, beside Dovecot (Debian: dovecot-pop3d) on the
        same Maildir with the same pipelining client
    python bench/mailbox.py idle [--sessions 1000]
        memory of idle sessions

One JSON line per figure, with the medians.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import pathlib
import platform
import random
import resource
import shutil
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from tripost.delivery.mailbox.places import make_mailbox
from tripost.delivery.mailbox.uids import file_name

USER = "marc@machin.com"
LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"  # of our ids


def say(**figures: object) -> None:
    print(json.dumps(figures | {"cores": os.cpu_count(), "python": platform.python_version()}), flush=True)


# --- POP3 ---


class Client:
    """A POP3 client that pipelines and does nothing else with what comes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 60)
        self._buffer = b""
        self._line()

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _more(self) -> None:
        data = self._socket.recv(1 << 18)
        assert data, "the server hung up"
        self._buffer += data

    def login(self) -> None:
        self._socket.sendall(f"USER {USER}\r\nPASS secret\r\n".encode())
        for _ in range(2):
            line = self._line()
            assert line.startswith(b"+OK"), line

    def uidl(self) -> int:
        """How many rows."""
        self._socket.sendall(b"UIDL\r\n")
        pieces = [self._buffer]
        while not pieces[-1].endswith(b"\r\n.\r\n"):
            pieces.append(self._socket.recv(1 << 18))
            assert pieces[-1], "the server hung up"
            if len(pieces[-1]) < 5:  # the end may be cut
                pieces[-2:] = [pieces[-2] + pieces[-1]]
        self._buffer = b""
        return b"".join(pieces).count(b"\r\n") - 2

    def fetch(self, count: int, window: int = 50) -> int:
        """RETR 1 to `count`; octets."""
        asked = done = octets = 0
        tail = b""
        while done < count:
            if asked - done <= window // 2 and asked < count:
                more = range(asked + 1, min(count, asked + window) + 1)
                self._socket.sendall("".join(f"RETR {n}\r\n" for n in more).encode())
                asked = more.stop - 1
            data = self._socket.recv(1 << 18)
            assert data, "the server hung up"
            octets += len(data)
            whole = tail + data
            done += whole.count(b"\r\n.\r\n")
            tail = whole[-4:]
        return octets

    def quit(self) -> None:
        self._socket.sendall(b"QUIT\r\n")
        self._line()
        self._socket.close()


def make_mail(mail: pathlib.Path, user: str, count: int, size: int) -> None:
    box = mail / user
    make_mailbox(str(box))
    line = b"0123456789" * 7 + b"\r\n"
    most = b"Return-Path: <x@y>\r\nSubject: bench\r\n\r\n" + line * (2 * size // len(line) + 1)
    chance = random.Random(1)
    for n in range(count):
        # names and sizes differ as in life: on names that are much alike, Dovecot 2.3 takes forty times as long
        text = most[: int(size * chance.uniform(0.8, 1.2))] + b"\r\n"
        # in cur, as seen: Dovecot 2.3 takes minutes to move 100,000 messages there
        name = file_name("".join(chance.choices(LETTERS, k=18)) + "_0", 1_700_000_000 + n, "bench.example", len(text))
        (box / "cur" / f"{name}:2,S").write_bytes(text)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def run_pop3(options: argparse.Namespace) -> None:
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
    from support.dovecot import dovecot
    from support.gateways import common_folder, running

    found: dict[str, list[float]] = {}
    with common_folder() as folder, running(folder, user=USER) as gateway:
        mail = folder / "state" / "mail"
        folder.joinpath("state").chmod(0o755)
        for what, count, size in (("login + UIDL", options.messages, 200), ("RETR 10 KiB", options.fetch, 10_240)):
            shutil.rmtree(mail / USER, ignore_errors=True)
            make_mail(mail, USER, count, size)
            with dovecot(folder, mail, {USER: "secret"}) as other:
                other.own()
                servers = {"tripost": gateway.pop3, "dovecot": other.pop3}
                for n in range(options.rounds + 1):
                    for name, port in servers.items():
                        took = _one(port, what, count)
                        if n:  # the first is cold
                            found.setdefault(f"{what}, {count} messages: {name}", []).append(took)
            ours, theirs = (statistics.median(found[f"{what}, {count} messages: {name}"]) for name in servers)
            say(what=f"{what}, {count} messages", tripost=round(ours, 3), dovecot=round(theirs, 3), times=ours / theirs)
    for what, times in found.items():
        say(what=what, seconds=[round(one, 3) for one in times])


def _one(port: int, what: str, count: int) -> float:
    def uidl() -> None:
        client = Client(port)
        client.login()
        assert client.uidl() == count
        client.quit()

    if what != "RETR 10 KiB":
        return timed(uidl)
    client = Client(port)
    client.login()
    took = timed(lambda: client.fetch(count))
    client.quit()
    return took


# --- idle sessions ---

TLS = """\
[tls]
certificate = "cert.pem"
key = "key.pem"
"""


def run_idle(options: argparse.Namespace) -> None:
    """What a session that has logged in and says nothing costs, in plain text and inside of TLS."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
    import trustme

    from support.gateways import running

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for secured in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder, authority = pathlib.Path(name), trustme.CA()
            certificate = authority.issue_cert("localhost")
            certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
            certificate.private_key_pem.write_to_path(folder / "key.pem")
            with running(folder, TLS, user=USER) as gateway:
                digest = base64.b64encode(hashlib.sha256(b"secret").digest()).decode()  # a thousand logins, and quick
                users = [f"user{n}@machin.com" for n in range(options.sessions)]
                (folder / "accounts").write_text("".join(f"{user}:{{SHA256}}{digest}\n" for user in users))
                assert gateway.child is not None
                clients = [_idle(gateway.pop3, users[0], secured)]
                before = resident(gateway.child.pid)
                clients += [_idle(gateway.pop3, user, secured) for user in users[1:]]
                after = resident(gateway.child.pid)
                for client in clients:
                    client.close()
        each = (after - before) / (options.sessions - 1)
        say(what="idle sessions", tls=secured, sessions=options.sessions, KiB_each=round(each, 1), KiB_all=after)


def _idle(port: int, user: str, secured: bool) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), 60)
    lines = one.makefile("rb")
    assert lines.readline().startswith(b"+OK")
    if secured:
        one.sendall(b"STLS\r\n")
        assert lines.readline().startswith(b"+OK")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        one = context.wrap_socket(one)
        lines = one.makefile("rb")
    one.sendall(f"USER {user}\r\nPASS secret\r\nSTAT\r\n".encode())
    for _ in range(3):
        line = lines.readline()
        assert line.startswith(b"+OK"), line
    return one


def resident(pid: int) -> int:
    """KiB."""
    rows = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(row for row in rows if row.startswith("VmRSS")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pop3", "idle"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--fetch", type=int, default=10_000)
    options = parser.parse_args()
    {"pop3": run_pop3, "idle": run_idle}[options.what](options)


if __name__ == "__main__":
    main()
