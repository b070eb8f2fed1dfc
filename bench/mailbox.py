"""local delivery and POP3, each against its measure in the same run

    python bench/mailbox.py deliver [--folder DIR] [--seconds 3] [--rounds 3]
        messages/s made durable in 100 mailboxes by `MaildirDelivery`, beside the disk's bound: create, write 2 KiB,
        fsync, rename, with 1, 4 and 16 threads, alternating in one run
    python bench/mailbox.py pop3 [--messages 100000] [--fetch 10000] [--rounds 3]
        login + UIDL of a large mailbox and RETR of 10 KiB messages, beside Dovecot (Debian: dovecot-pop3d) on the
        same Maildir with the same pipelining client
    python bench/mailbox.py idle [--sessions 1000]
        memory of idle sessions

One JSON line per figure, with the medians.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import platform
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import trio

from tripost.delivery.mailbox.maildir import MaildirDelivery
from tripost.delivery.mailbox.places import make_mailbox
from tripost.delivery.mailbox.uids import file_name
from tripost.queue.body import BodyReader
from tripost.queue.message import Delivered, Envelope, Recipient

SIZE = 2048
BOXES = 100
USER = "marc@machin.com"


def say(**figures: object) -> None:
    print(json.dumps(figures | {"cores": os.cpu_count(), "python": platform.python_version()}), flush=True)


# --- local delivery ---


def bound(folder: str, seconds: float, threads: int) -> float:
    """Messages/s of create + write + fsync + rename, as a Maildir needs at the least."""
    counts = [0] * threads
    stop = time.perf_counter() + seconds
    data = b"x" * SIZE

    def work(me: int) -> None:
        while time.perf_counter() < stop:
            name = os.path.join(folder, f"{me}.{counts[me]}")
            fd = os.open(f"{name}.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, data)
            os.fsync(fd)
            os.close(fd)
            os.rename(f"{name}.tmp", name)
            counts[me] += 1

    began = time.perf_counter()
    pool = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for one in pool:
        one.start()
    for one in pool:
        one.join()
    return sum(counts) / (time.perf_counter() - began)


async def deliver(folder: str, seconds: float, at_once: int) -> float:
    """Messages/s through `MaildirDelivery`, `at_once` of them waiting at any time."""
    local = MaildirDelivery(folder, "bench.example")
    content = b"Subject: x\r\n\r\n" + b"y" * (SIZE - 14)
    count = done = 0
    stop = trio.current_time() + seconds

    async def open_reader() -> BodyReader:
        return BodyReader(content, None, len(content), trio.to_thread.run_sync)

    async def work() -> None:
        nonlocal count, done
        while trio.current_time() < stop:
            count += 1
            who = (Recipient(0, f"user{count % BOXES}@bench.example", "local"),)
            envelope = Envelope(f"B{count:017}", "x@y", who, time.time(), time.time() + 1000)
            outcomes = await local.deliver(envelope, who, open_reader)
            assert isinstance(outcomes[0], Delivered), outcomes
            done += 1

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(work)
    rate = done / (trio.current_time() - began)
    local.store.close()
    return rate


def in_folder(parent: str | None, work: Callable[[str], float]) -> float:
    folder = tempfile.mkdtemp(prefix="bench-mailbox-", dir=parent)
    try:
        return work(folder)
    finally:
        shutil.rmtree(folder)
        os.sync()


def run_deliver(options: argparse.Namespace) -> None:
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for threads in (1, 4, 16):
            rate = in_folder(options.folder, functools.partial(bound, seconds=options.seconds, threads=threads))
            found.setdefault(f"bound, {threads} threads", []).append(rate)
        for at_once in (20, 64, 200):
            rate = in_folder(options.folder, lambda one, n=at_once: trio.run(deliver, one, options.seconds, n))
            found.setdefault(f"deliver, {at_once} at once", []).append(rate)
    for what, rates in found.items():
        say(what=what, median=round(statistics.median(rates)), runs=[round(one) for one in rates])


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
    text = (b"Return-Path: <x@y>\r\nSubject: bench\r\n\r\n" + line * (size // len(line) + 1))[: size - 2] + b"\r\n"
    for n in range(count):
        (box / "new" / file_name(f"B{n:016}_0", 1_700_000_000 + n, "bench.example", len(text))).write_bytes(text)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def run_pop3(options: argparse.Namespace) -> None:
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
    from support.dovecot import common_folder, dovecot
    from support.gateways import running

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["deliver", "pop3", "idle"])
    parser.add_argument("--folder", default=str(pathlib.Path.cwd()))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--fetch", type=int, default=10_000)
    options = parser.parse_args()
    {"deliver": run_deliver, "pop3": run_pop3}[options.what](options)


if __name__ == "__main__":
    main()
