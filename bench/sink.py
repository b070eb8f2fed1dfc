"""a sink for mail: takes all, counts it, and can behave like a bad peer; one JSON line at its end

    deploy/uv run python bench/sink.py --port 2526
    deploy/uv run python bench/sink.py --port 2526 --answer "rcpt=451 4.2.1 not now@0.1" --delay 0.05
    deploy/uv run python bench/sink.py --port 2526 --chaos 0.1

`--answer PHASE=REPLY[@SHARE]`: that reply instead of yes, to that share of the commands; the phases are connect,
ehlo, mail, rcpt, data, dot; a REPLY of "drop" closes the connection, "hang" says nothing any more. `--delay`
waits before every reply. `--chaos SHARE`: that share of the messages meets what large providers do: rates and
greylists, full and unknown mailboxes, blocklists, refused contents, connections that break or fall silent.
Ctrl-C or SIGTERM ends it and prints what came.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import time
from collections import Counter
from contextlib import suppress

import trio

from tripost.delivery.fast_stream import FastStream

READ = 65_536
YES = {
    "connect": "220 sink ESMTP",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "data": "354 go ahead",
    "dot": "250 2.0.0 taken",
}


# What large providers say, by phase, and how often of 100 troubles.
CHAOS = (
    ("connect", "421 4.7.0 too many connections from your network, come back later", 8),
    ("connect", "554 5.7.1 your address is on a list that we use", 1),
    ("connect", "drop", 3),
    ("ehlo", "421 4.3.2 this host is going down for a while", 2),
    ("ehlo", "hang", 1),
    ("mail", "450 4.7.1 you send faster than your reputation allows", 10),
    ("mail", "421 4.7.28 unusual rate of mail, closing", 5),
    ("rcpt", "450 4.2.0 greylisted, see you in 300 seconds", 20),
    ("rcpt", "550 5.1.1 there is no such mailbox", 15),
    ("rcpt", "452 4.2.2 the mailbox is full", 8),
    ("rcpt", "550 5.7.1 your address is on a list that we use", 4),
    ("data", "451 4.3.0 trouble here, try again", 4),
    ("data", "drop", 2),
    ("dot", "554 5.7.1 this looks like spam", 7),
    ("dot", "451 4.7.1 this will be looked at, try again", 5),
    ("dot", "552 5.3.4 larger than the mailbox allows", 2),
    ("dot", "drop", 2),
    ("dot", "hang", 1),
)


class Gone(Exception):
    """This connection is over."""


class Sink:
    """`answers`: phase → (reply, share); `chaos`: the share of messages that meet a trouble."""

    def __init__(
        self, answers: dict[str, tuple[str, float]], delay: float, keywords: list[str], chaos: float = 0.0
    ) -> None:
        self.answers = answers
        self.troubles: dict[str, list[tuple[str, float]]] = {}
        for phase, reply, of_100 in CHAOS if chaos else ():
            self.troubles.setdefault(phase, []).append((reply, chaos * of_100 / 100))
        self.delay = delay
        self.hello = "".join(f"250-{one}\r\n" for one in ["sink", *keywords]) + "250 PIPELINING"
        self.messages = self.octets = self.connections = 0
        self.replies: Counter[str] = Counter()
        self.began = self.ended = 0.0

    async def listen(self, nursery: trio.Nursery, host: str, port: int) -> None:
        """Bind, and take connections in a task of `nursery`."""
        listener = socket.create_server((host, port), backlog=1024)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setblocking(False)
        nursery.start_soon(self._accept, nursery, listener)

    async def _accept(self, nursery: trio.Nursery, listener: socket.socket) -> None:
        with listener:
            while True:
                await trio.lowlevel.wait_readable(listener)
                with suppress(BlockingIOError):
                    for _ in range(32):
                        nursery.start_soon(self.serve, FastStream(listener.accept()[0]))

    async def serve(self, stream: FastStream) -> None:
        self.connections += 1
        self.began = self.began or time.perf_counter()
        try:
            await self._talk(stream)
        except (Gone, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            stream.close()

    async def _talk(self, stream: FastStream) -> None:
        data, out = b"", [await self._answer("connect")]
        while True:
            line, end, rest = data.partition(b"\r\n")
            if not end:
                if out:
                    await _say(stream, out)
                    out = []
                more = await stream.receive_some(READ)
                if not more:
                    raise Gone
                data += more
                continue
            data = rest
            verb = line[:4].upper()
            if verb == b"QUIT":
                await stream.send_all(("".join(out) + "221 2.0.0 bye\r\n").encode())
                raise Gone
            phase = {b"EHLO": "ehlo", b"HELO": "ehlo", b"MAIL": "mail", b"RCPT": "rcpt", b"DATA": "data"}.get(verb)
            out.append(await self._answer(phase) if phase else "250 2.0.0 ok\r\n")
            if verb == b"DATA" and out[-1].startswith("354"):
                await _say(stream, out)
                data = await self._content(stream, data)
                out = [await self._answer("dot")]
                self.messages += out[-1].startswith("250")
                self.ended = time.perf_counter()

    async def _content(self, stream: FastStream, data: bytes) -> bytes:
        data = b"\r\n" + data
        while (end := data.find(b"\r\n.\r\n")) < 0:
            self.octets += max(0, len(data) - 4)
            more = await stream.receive_some(READ)
            if not more:
                raise Gone
            data = data[-4:] + more
        self.octets += end
        return data[end + 5 :]

    async def _answer(self, phase: str) -> str:
        reply, share = self.answers.get(phase, ("", 0.0))
        if self.delay:
            await trio.sleep(self.delay)
        if not reply or random.random() >= share:
            reply = self._trouble(phase) or (self.hello if phase == "ehlo" else YES[phase])
        self.replies[f"{phase} {reply.splitlines()[-1][:3]}"] += 1
        if reply == "drop":
            raise Gone
        if reply == "hang":
            await trio.sleep_forever()
        return f"{reply}\r\n"

    def _trouble(self, phase: str) -> str:
        mark = random.random() if self.troubles else 1.0
        for reply, share in self.troubles.get(phase, ()):
            mark -= share
            if mark < 0:
                return reply
        return ""

    def row(self) -> dict[str, object]:
        seconds = max(1e-9, self.ended - self.began)
        return {
            "bench": "sink",
            "messages": self.messages,
            "octets": self.octets,
            "connections": self.connections,
            "per_second": round(self.messages / seconds, 1),
            "replies": dict(self.replies),
        }


async def _say(stream: FastStream, replies: list[str]) -> None:
    """At once where that goes: more is read next, which lets others run."""
    data = "".join(replies).encode()
    sent = stream.send_now(data)
    if sent < len(data):
        await stream.send_all(data[sent:])


def answer(text: str) -> tuple[str, tuple[str, float]]:
    """ "rcpt=451 4.2.1 later@0.1" → ("rcpt", ("451 4.2.1 later", 0.1))."""
    phase, _, rest = text.partition("=")
    reply, at, share = rest.rpartition("@")
    if phase not in (*YES, "ehlo") or not rest:
        raise argparse.ArgumentTypeError(f"{text}: PHASE=REPLY[@SHARE]")
    return phase, (reply, float(share)) if at else (rest, 1.0)


async def main(options: argparse.Namespace) -> None:
    sink = Sink(dict(options.answer), options.delay, options.keyword, options.chaos)
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await sink.listen(nursery, options.host, options.port)
            async for _ in signals:
                break
        nursery.cancel_scope.cancel()
    print(json.dumps(sink.row()))


if __name__ == "__main__":
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--host", default="127.0.0.1")
    top.add_argument("--port", type=int, default=2526)
    top.add_argument("--delay", type=float, default=0.0, help="seconds before every reply")
    top.add_argument("--answer", type=answer, action="append", default=[], help="PHASE=REPLY[@SHARE]")
    top.add_argument("--keyword", action="append", default=[], help="for the reply to EHLO")
    top.add_argument("--chaos", type=float, default=0.0, metavar="SHARE", help="of messages that meet a trouble")
    trio.run(main, top.parse_args())
