"""what watching costs: relay rate with events and history on, over that with everything off; one JSON line

    deploy/uv run python bench/observe.py --pairs 9 --messages 4000

Two gateways run side by side, each in a folder of its own, and take turns: `--messages` of 2 KiB go through one, then
through the other, from a source over SMTP into the spool (durable, as always), and out to a sink over SMTP. A turn is
over when the sink has all of them. Which one begins alternates from pair to pair. The other gateway is idle meanwhile.
`--on` and `--off` name what the two have: of events, history.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import source

from delivery import SinkProcess

TOML = """\
hostname = "smtp.bench.example"
state = "state"
[[listen]]
service = "smtp"
address = "127.0.0.1:{port}"
[[route]]
domain = "*"
to = "smtp://127.0.0.1:{sink}"
[limits]
client_connections = 1000
[spool]
min_free = "1MiB"
[events]
file = "events.log"
format = "{events}"
[history]
keep = "{keep}"
"""
MONITOR = """\
[[listen]]
service = "monitor"
address = "127.0.0.1:{port}"
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Gateway:
    """A running one; `has`: events, history, monitor."""

    def __init__(self, folder: pathlib.Path, sink: int, has: str) -> None:
        folder.mkdir()
        self.port, self.monitor = free_port(), free_port()
        self.folder = folder
        self.config = folder / "tripost.toml"
        events, keep = "json" if "events" in has else "off", "7d" if "history" in has else "0s"
        text = TOML.format(port=self.port, sink=sink, events=events, keep=keep)
        self.config.write_text(text + (MONITOR.format(port=self.monitor) if "monitor" in has else ""))
        self.child = subprocess.Popen([sys.executable, "-m", "tripost", "serve", str(self.config)])
        for _ in range(400):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as one:
                one.recv(100)
                return
            time.sleep(0.05)
        raise SystemExit("the gateway did not start")

    def status(self) -> dict[str, Any]:
        words = ["status", "--json", "--config", str(self.config)]
        done = subprocess.run([sys.executable, "-m", "tripost", *words], capture_output=True, text=True, check=True)
        row: dict[str, Any] = json.loads(done.stdout)
        return row

    def stop(self) -> None:
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(60)


def turn(gateway: Gateway, sink: SinkProcess, options: argparse.Namespace) -> tuple[float, float]:
    """Messages a second from the first MAIL to the sink's last 250, and the gateway's CPU per message in ms."""
    before, used = sink.counts()[2], source.cpu_of(gateway.child.pid)
    words = ["--port", str(gateway.port), "--connections", str(options.connections)]
    began = time.perf_counter()
    row = source.run(source.parser().parse_args([*words, "--messages", str(options.messages), "--domains", "50"]))
    if row["errors"]:
        raise SystemExit(str(row["errors"]))
    while sink.counts()[2] - before < options.messages:
        time.sleep(0.005)
        if time.perf_counter() - began > 120:
            raise SystemExit("the sink did not get them all")
    seconds = time.perf_counter() - began
    return options.messages / seconds, (source.cpu_of(gateway.child.pid) - used) / options.messages * 1e3


@contextlib.contextmanager
def pair(options: argparse.Namespace, sink: SinkProcess) -> Iterator[dict[str, Gateway]]:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        both = {
            name: Gateway(pathlib.Path(folder) / name, sink.port, has)
            for name, has in (("on", options.on), ("off", options.off))
        }
        try:
            yield both
        finally:
            for one in both.values():
                one.stop()


def main(options: argparse.Namespace) -> dict[str, Any]:
    sink = SinkProcess()
    rates: dict[str, list[float]] = {"on": [], "off": []}
    cpu: dict[str, list[float]] = {"on": [], "off": []}
    with pair(options, sink) as both:
        for one in both.values():
            turn(one, sink, options)  # to warm up
        for number in range(options.pairs):
            for name in ("on", "off") if number % 2 else ("off", "on"):
                rate, used = turn(both[name], sink, options)
                rates[name].append(rate)
                cpu[name].append(used)
                time.sleep(options.pause)
        readers = both["on"].status()["events"]["readers"]
    sink.end()
    ratios = [a / b for a, b in zip(rates["on"], rates["off"], strict=True)]
    return {
        "bench": "observe",
        "on": options.on,
        "off": options.off or "nothing",
        "messages": options.messages,
        "per_second_on": [round(one) for one in rates["on"]],
        "per_second_off": [round(one) for one in rates["off"]],
        "ratios": [round(one, 3) for one in ratios],
        "median": round(statistics.median(ratios), 3),
        "of_medians": round(statistics.median(rates["on"]) / statistics.median(rates["off"]), 3),
        "cpu_ms_on": round(statistics.median(cpu["on"]), 3),
        "cpu_ms_off": round(statistics.median(cpu["off"]), 3),
        "dropped": {one["name"]: one["dropped"] for one in readers},
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    top.add_argument("--pairs", type=int, default=9)
    top.add_argument("--messages", type=int, default=4000)
    top.add_argument("--connections", type=int, default=20)
    top.add_argument("--pause", type=float, default=0.3, help="seconds between turns")
    top.add_argument("--on", default="events,history")
    top.add_argument("--off", default="")
    top.add_argument("--folder", default=None)
    print(json.dumps(main(top.parse_args())))
