"""gateways of several processes: who they are, and clients that keep count while they die"""

from __future__ import annotations

import os
import pathlib
import random
import re
import signal
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from support import gateways
from support.gateways import TOML, Running, wait_for
from support.sinks import Sink


def toml(processes: int | str) -> str:
    text = f'"{processes}"' if isinstance(processes, str) else processes
    return TOML.replace('state = "state"\n', f'state = "state"\nprocesses = {text}\n')


def roles(gateway: Running, number: int = 0) -> dict[str, list[int]]:
    """Role → processes, "supervisor" for the one that the user started; `number`: only those with that one."""
    assert gateway.child is not None
    found = {"supervisor": [gateway.child.pid]}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (path / "stat").read_text().rpartition(")")[2].split()
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(stat[1]) == gateway.child.pid and stat[0] != "Z" and b"--role" in words and _has(words, number):
            found.setdefault(words[words.index(b"--role") + 1].decode(), []).append(int(path.name))
    return found


def _has(words: list[bytes], number: int) -> bool:
    return not number or any(b'"number":%d,' % number in word for word in words)


@contextmanager
def running(
    folder: pathlib.Path, extra: str = "", *, toml: str, kind: type[Running] = Running
) -> Iterator[Running]:
    """As support.gateways has it, once the manager answers too."""
    with gateways.running(folder, extra, toml=toml, kind=kind) as gateway:
        assert wait_for(lambda: gateway.command("status").returncode == 0)
        yield gateway


class Load:
    """Clients that send until `stop`; each message has a number, after `first`. `refused`: connections that were not
    taken."""

    def __init__(self, port: int, clients: int = 6, domain: str = "far.example", first: int = 0) -> None:
        self.taken: set[int] = set()
        self.refused: list[str] = []
        self._port = port
        self._domain = domain
        self._number = first
        self._lock = threading.Lock()
        self._going = True
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for one in self._threads:
            one.start()

    def _next(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def _client(self) -> None:
        while self._going:
            try:
                client = smtplib.SMTP("127.0.0.1", self._port, timeout=40)
            except ConnectionRefusedError as wrong:
                self.refused.append(str(wrong))
                time.sleep(0.01)
                continue
            except (OSError, smtplib.SMTPException):  # taken, and then it died
                continue
            try:
                for _ in range(random.randint(1, 30)):
                    number = self._next()
                    to = f"u{number}@{self._domain}"
                    client.sendmail(
                        "fred@truc.fr", [to], f"Subject: n{number}\r\n\r\n{'x' * random.choice((9, 2000))}\r\n"
                    )
                    self.taken.add(number)
                    if not self._going:
                        break
            except (OSError, smtplib.SMTPException):
                pass
            finally:
                client.close()

    def stop(self) -> None:
        self._going = False
        for one in self._threads:
            one.join(60)


class Counting(Sink):
    """`came`: how often each of Load's messages has. Their contents are not kept: there are many."""

    def __init__(self, port: int) -> None:
        self.came: Counter[int] = Counter()
        super().__init__(port)

    def take(self, content: bytes) -> None:
        with self._lock:
            self.came.update(int(n) for n in re.findall(rb"^Subject: n(\d+)", content, re.MULTILINE))

    def has(self, those: set[int]) -> bool:
        """All of them?"""
        return len(self.came) >= len(those) and those <= self.came.keys()


def kill_one(gateway: Running, role: str) -> int:
    """Which of them, by kill -9."""
    pid = random.choice(wait_for(lambda: roles(gateway).get(role, []), 60))
    os.kill(pid, signal.SIGKILL)
    return pid
