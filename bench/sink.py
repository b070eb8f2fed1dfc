"""a sink for mail: takes all, counts it, and can behave like a bad peer; one JSON line at its end

    deploy/uv run python bench/sink.py --port 2526
    deploy/uv run python bench/sink.py --port 2526 --answer "rcpt=451 4.2.1 not now@0.1" --delay 0.05

`--answer PHASE=REPLY[@SHARE]`: that reply instead of yes, to that share of the commands; the phases are connect,
ehlo, mail, rcpt, data, dot; a REPLY of "drop" closes the connection, "hang" says nothing any more. `--delay`
waits before every reply. Ctrl-C or SIGTERM ends it and prints what came.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from collections import Counter

import trio

READ = 65_536
YES = {
    "connect": "220 sink ESMTP",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "data": "354 go ahead",
    "dot": "250 2.0.0 taken",
}


class Gone(Exception):
    """This connection is over."""


class Sink:
    """`answers`: phase → (reply, share)."""

    def __init__(self, answers: dict[str, tuple[str, float]], delay: float, keywords: list[str]) -> None:
        self.answers = answers
        self.delay = delay
        self.hello = "".join(f"250-{one}\r\n" for one in ["sink", *keywords]) + "250 PIPELINING"
        self.messages = self.octets = self.connections = 0
        self.replies: Counter[str] = Counter()
        self.began = self.ended = 0.0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.began = self.began or time.perf_counter()
        try:
            await self._talk(stream)
        except (Gone, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _talk(self, stream: trio.SocketStream) -> None:
        data, out = b"", [await self._answer("connect")]
        while True:
            line, end, rest = data.partition(b"\r\n")
            if not end:
                if out:
                    await stream.send_all("".join(out).encode())
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
                await stream.send_all("".join(out).encode())
                data = await self._content(stream, data)
                out = [await self._answer("dot")]
                self.messages += out[-1].startswith("250")
                self.ended = time.perf_counter()

    async def _content(self, stream: trio.SocketStream, data: bytes) -> bytes:
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
            reply = self.hello if phase == "ehlo" else YES[phase]
        self.replies[f"{phase} {reply.splitlines()[-1][:3]}"] += 1
        if reply == "drop":
            raise Gone
        if reply == "hang":
            await trio.sleep_forever()
        return f"{reply}\r\n"

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


def answer(text: str) -> tuple[str, tuple[str, float]]:
    """ "rcpt=451 4.2.1 later@0.1" → ("rcpt", ("451 4.2.1 later", 0.1))."""
    phase, _, rest = text.partition("=")
    reply, at, share = rest.rpartition("@")
    if phase not in (*YES, "ehlo") or not rest:
        raise argparse.ArgumentTypeError(f"{text}: PHASE=REPLY[@SHARE]")
    return phase, (reply, float(share)) if at else (rest, 1.0)


async def main(options: argparse.Namespace) -> None:
    sink = Sink(dict(options.answer), options.delay, options.keyword)
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            listeners = await trio.open_tcp_listeners(options.port, host=options.host, backlog=1024)
            nursery.start_soon(trio.serve_listeners, sink.serve, listeners)
            async for _ in signals:
                break
        nursery.cancel_scope.cancel()
    print(json.dumps(sink.row()))


if __name__ == "__main__":
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    top.add_argument("--host", default="127.0.0.1")
    top.add_argument("--port", type=int, default=2526)
    top.add_argument("--delay", type=float, default=0.0, help="seconds before every reply")
    top.add_argument("--answer", type=answer, action="append", default=[], help="PHASE=REPLY[@SHARE]")
    top.add_argument("--keyword", action="append", default=[], help="for the reply to EHLO")
    trio.run(main, top.parse_args())
