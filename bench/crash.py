"""kill -9 under load, again and again; one line a round, and the sum

    deploy/uv run python bench/crash.py --rounds 100 --folder DIR

A real gateway takes mail from `clients` SMTP connections and relays it to a sink in this process. At a random
moment of each round it is killed and started anew on the same state. At the end it delivers what is left, and the
books are made up: every message that got its 250 must have reached the sink. What got no reply may have.

With `--processes` the gateway has several, and each round kills another: one that takes mail in, the one that owns the
queue, one that delivers, and the one that started them (then all are gone). While that one lives no connection may be
refused.

A duplicate is a second delivery of the same message; there may be as many in a round as messages were on their
way to the sink when the gateway was killed (RFC 5321 §6.1). Exit code 1 when a message is lost or made up, or when
there are more duplicates than that.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter

import trio

CONFIG = """\
hostname = "gateway.example"
state = "state"
processes = {processes}
[[listen]]
service = "smtp"
address = "127.0.0.1:{port}"
[spool]
min_free = "1MiB"
segment_size = "{segment}"
[[route]]
domain = "far.example"
to = "smtp://127.0.0.1:{sink}"
[delivery.default]
connections = 20
probe_first = "200ms"
probe_longest = "1s"
[events]
file = "events.log"
"""
PATIENCE = 30.0
WHOLE = "all"
ROLES = ("ingress", "manager", "delivery", WHOLE)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _children(parent: int, role: str) -> list[int]:
    """Processes of that role which it has started."""
    found: list[int] = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            stat = (path / "stat").read_text().rpartition(")")[2].split()
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(stat[1]) == parent and b"--role" in words and words[words.index(b"--role") + 1] == role.encode():
            found.append(int(path.name))
    return found


class Lines:
    """A stream read line by line."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def line(self) -> bytes:
        """Raises EOFError, OSError."""
        while (end := self._buffer.find(b"\n")) < 0:
            try:
                data = await self.stream.receive_some(65536)
            except trio.BrokenResourceError as wrong:
                raise EOFError from wrong
            if not data:
                raise EOFError
            self._buffer += data
        found = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return found

    async def reply(self) -> int:
        while True:
            line = await self.line()
            if line[3:4] != b"-":
                return int(line[:3])

    async def say(self, data: bytes) -> None:
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError as wrong:
            raise EOFError from wrong


class Bench:
    """`taken`: numbers with a 250; `asked`: numbers whose content was sent; `came`: how often each reached the sink."""

    def __init__(self, options: argparse.Namespace, folder: pathlib.Path) -> None:
        self.options = options
        self.folder = folder
        self.port, self.sink_port = free_port(), 0
        self.taken: set[int] = set()
        self.asked: set[int] = set()
        self.came: Counter[int] = Counter()
        self.under_way = 0  # messages whose content the sink is reading or has just confirmed
        self.number = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.loading = True
        self.whole_is_gone = True  # it is about to start
        self.life = 0
        self.killed = 0
        self.refused: list[str] = []

    # --- the gateway ---

    def start(self) -> None:
        count = self.options.processes
        config = CONFIG.format(
            port=self.port,
            sink=self.sink_port,
            segment=self.options.segment_size,
            processes=count if count.isdecimal() else f'"{count}"',
        )
        (self.folder / "tripost.toml").write_text(config)
        with open(self.folder / "out", "ab") as out:
            self.process = subprocess.Popen(
                [pathlib.Path(sys.executable).with_name("tripost"), "serve", "tripost.toml"],
                cwd=self.folder,
                stdout=out,
                stderr=out,
            )

    def kill(self, role: str) -> None:
        """The whole, or (it is started again by the whole) one process of that role."""
        assert self.process is not None
        if role == WHOLE:
            self.whole_is_gone = True
            self.life += 1
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            return
        self.killed += 1
        pids = _children(self.process.pid, role)
        if pids:
            os.kill(random.choice(pids), signal.SIGKILL)

    # --- what sends ---

    async def client(self) -> None:
        while self.loading:
            life = self.life
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", self.port)
            except OSError as wrong:
                if not self.whole_is_gone:
                    self.refused.append(str(wrong))
                await trio.sleep(0.02)
                continue
            async with stream:
                try:
                    await self._session(Lines(stream), life)
                except (EOFError, OSError):
                    await trio.sleep(0.01)

    async def _session(self, peer: Lines, life: int) -> None:
        await peer.reply()
        await peer.say(b"EHLO load.example\r\n")
        await peer.reply()
        while self.loading:
            self.number += 1
            number = self.number
            for command in (b"MAIL FROM:<s@load.example>\r\n", b"RCPT TO:<u@far.example>\r\n", b"DATA\r\n"):
                await peer.say(command)
                if await peer.reply() >= 400:
                    raise EOFError
            body = b"x" * random.choice(self.options.sizes)
            self.asked.add(number)
            await peer.say(b"Subject: %d\r\n\r\n%s\r\n.\r\n" % (number, body))
            if await peer.reply() == 250:
                self.taken.add(number)
                if life == self.life:  # not one whose last words were still on their way
                    self.whole_is_gone = False

    # --- what receives ---

    async def sink(self, stream: trio.SocketStream) -> None:
        peer = Lines(stream)
        try:
            await peer.say(b"220 sink\r\n")
            while True:
                verb = (await peer.line())[:4].upper()
                if verb == b"DATA":
                    await self._content(peer)
                else:
                    await peer.say(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
        except (EOFError, OSError):
            pass
        finally:
            await stream.aclose()

    async def _content(self, peer: Lines) -> None:
        await peer.say(b"354 go\r\n")
        number = 0
        while (line := await peer.line()) != b".\r\n":
            if line.startswith(b"Subject: "):
                number = int(line[9:])
        self.came[number] += 1
        self.under_way += 1
        try:
            await peer.say(b"250 ok\r\n")
            await peer.stream.wait_send_all_might_not_block()
        finally:
            self.under_way -= 1

    # --- the rounds ---

    async def run(self) -> bool:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self.sink, 0)
            self.sink_port = listeners[0].socket.getsockname()[1]
            self.start()
            for _ in range(self.options.clients):
                nursery.start_soon(self.client)
            worst = 0
            for number in range(1, self.options.rounds + 1):
                worst = max(worst, await self._round(number))
            self.loading = False
            lost = await self._drain()
            nursery.cancel_scope.cancel()
        made_up = sum(1 for number in self.came if number not in self.asked)
        duplicates = sum(count - 1 for count in self.came.values())
        most = self.options.rounds * 20
        row = {
            "rounds": self.options.rounds,
            "accepted": len(self.taken),
            "delivered": sum(1 for number in self.taken if self.came[number]),
            "lost": len(lost),
            "made_up": made_up,
            "duplicates": duplicates,
            "most_duplicates_in_a_round": worst,
            "refused_connections": len(self.refused),
            "unanswered_but_delivered": sum(1 for number in self.came if number not in self.taken),
        }
        print(json.dumps(row))
        return bool(self.taken) and not lost and not made_up and duplicates <= most and not self.refused

    async def _round(self, number: int) -> int:
        """Load for a while, kill, start; how many duplicates came of the last kill."""
        before = sum(self.came.values()) - len(self.came)
        taken = len(self.taken)
        end = trio.current_time() + PATIENCE
        while len(self.taken) == taken:  # until it serves again
            if trio.current_time() > end:
                raise SystemExit(f"the gateway takes no mail: {(self.folder / 'out').read_text()[-500:]}")
            await trio.sleep(0.01)
        await trio.sleep(random.uniform(*self.options.seconds))
        roles = ROLES if self.options.processes != "1" else (WHOLE,)
        role = roles[number % len(roles)]
        self.kill(role)
        waiting = sum(1 for one in self.taken if not self.came[one])
        duplicates = sum(self.came.values()) - len(self.came) - before
        print(
            f"round {number} ({role}): {len(self.taken)} accepted, {waiting} of them not delivered yet, "
            f"{duplicates} duplicates since the kill before",
            flush=True,
        )
        if role == WHOLE:
            self.start()
        return duplicates

    async def _drain(self) -> list[int]:
        """Until all is delivered, or nothing has come for PATIENCE seconds; what is missing."""
        last, since = -1, trio.current_time()
        while missing := [number for number in self.taken if not self.came[number]]:
            if sum(self.came.values()) != last:
                last, since = sum(self.came.values()), trio.current_time()
            elif trio.current_time() > since + PATIENCE:
                break
            await trio.sleep(0.1)
        await trio.sleep(2)
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)
        return missing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--processes", default="1", metavar="N", help='or "auto"')
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, nargs=2, default=(0.1, 1.0), metavar=("LEAST", "MOST"))
    parser.add_argument("--sizes", type=int, nargs="+", default=(100, 2000, 50_000))
    parser.add_argument("--segment-size", default="1MiB", help="small ones make segments turn over in every round")
    parser.add_argument("--folder", help="on the disk to be tried (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        began = time.monotonic()
        good = trio.run(Bench(options, pathlib.Path(folder)).run)
        print(f"{'nothing lost' if good else 'NOT GOOD'} in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
