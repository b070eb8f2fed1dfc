"""limits at a real sink: a gateway of its own process, `connections = 3, rate = "50/s"`, for a minute; one JSON line

    deploy/uv run python bench/limits.py            undisturbed
    deploy/uv run python bench/limits.py --kill     the gateway is killed (SIGKILL) in the middle, and started again

Told: the most connections open at once, the most transactions in any 1.00 s, and all of them, as the sink saw it.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import smtplib
import subprocess
import sys
import tempfile
import time

import trio

TOML = """\
hostname = "limits.example"
state = "state"
[[listen]]
service = "smtp"
address = "127.0.0.1:{port}"
[[route]]
domain = "*"
to = "smtp://127.0.0.1:{sink}"
[spool]
min_free = "1MiB"
[delivery.destination."127.0.0.1"]
connections = 3
rate = "50/s"
tls = "none"
[events]
file = "events.log"
"""
SENDERS = 8


class Sink:
    """`mails`: when each MAIL came, `greeted` when each connection; `most`: connections open at once."""

    def __init__(self) -> None:
        self.greeted: list[float] = []
        self.open = self.most = self.connections = 0
        self.mails: list[float] = []
        self.begun = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        self.open += 1
        self.connections += 1
        self.greeted.append(time.monotonic())
        self.most = max(self.most, self.open)
        try:
            await self._talk(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def _talk(self, stream: trio.SocketStream) -> None:
        await stream.send_all(b"220 sink\r\n")
        data, content = b"", False
        while part := await stream.receive_some(65_536):
            data += part
            while b"\r\n" in data:
                line, _, data = data.partition(b"\r\n")
                if content:
                    content = line != b"."
                    reply = b"" if content else b"250 taken\r\n"
                elif line.startswith(b"DATA"):
                    content, reply = True, b"354 go\r\n"
                elif line.startswith(b"QUIT"):
                    await stream.send_all(b"221 bye\r\n")
                    return
                else:
                    if line.startswith(b"MAIL"):
                        self.mails.append(time.monotonic())
                        self.begun.set()
                    reply = b"250 ok\r\n"
                if reply:
                    await stream.send_all(reply)


def _send(port: int, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        for _ in range(count):
            client.sendmail("s@x.example", ["u@far.example"], b"Subject: x\r\n\r\nhi\r\n")


def _start(folder: pathlib.Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tripost", "serve", str(folder / "tripost.toml")], cwd=folder)


async def _listening(port: int) -> None:
    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.05)
        else:
            await stream.aclose()
            return


def most_in(times: list[float], span: float) -> int:
    most = start = 0
    for end, when in enumerate(times):
        while when - times[start] >= span:
            start += 1
        most = max(most, end - start + 1)
    return most


async def main(options: argparse.Namespace) -> None:
    sink = Sink()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=256)
            nursery.start_soon(trio.serve_listeners, sink.serve, listeners)
            ours = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
            port = ours.socket.getsockname()[1]
            await ours.aclose()
            text = TOML.format(port=port, sink=listeners[0].socket.getsockname()[1])
            (folder / "tripost.toml").write_text(text)
            child = _start(folder)
            await _listening(port)
            async with trio.open_nursery() as senders:
                for _ in range(SENDERS):
                    senders.start_soon(trio.to_thread.run_sync, _send, port, options.messages // SENDERS)
            await sink.begun.wait()
            begin = len(sink.mails)
            if options.kill:
                await trio.sleep(options.seconds / 2)
                child.kill()
                child.wait()
                child = _start(folder)
                await trio.sleep(options.seconds / 2)
            else:
                await trio.sleep(options.seconds)
            mails, most = sink.mails[begin:], sink.most
            child.terminate()
            await trio.to_thread.run_sync(child.wait)
            nursery.cancel_scope.cancel()
    row = {
        "bench": "limits, killed" if options.kill else "limits",
        "cores": os.cpu_count(),
        "seconds": options.seconds,
        "connections": most,
        "most_in_a_second": most_in(sink.mails, 1.0),
        "transactions": len(mails),
        "connects": sink.connections,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    top.add_argument("--kill", action="store_true")
    top.add_argument("--seconds", type=float, default=60.0)
    top.add_argument("--messages", type=int, default=4800)
    trio.run(main, top.parse_args())
