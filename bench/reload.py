"""reloads and restarts under load: is anybody refused, is anything lost, how long does the slowest wait?

    deploy/uv run python bench/reload.py --rate 500 --seconds 30 --times 20
    deploy/uv run python bench/reload.py --restart --processes 2 --rate 500 --seconds 75 --times 20

A gateway, a sink behind it, and `bench/source.py` in an open loop that connects anew for each message, so that every
listener is asked all the time. The configuration changes each time: limits, an alias, a listener that comes and goes.
Prints one JSON line: what the source counted (`shed` are 4xx), what the sink got, how many reloads or restarts were
done, and for restarts how many seconds each took. The latency is that of a message, from due to 250, over the whole
run: with a restart every three seconds hardly a message is not in one's time.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

HERE = pathlib.Path(__file__).parent
TOML = """\
hostname = "mx.bench.example"
state = "state"
processes = {processes}
[[listen]]
service = "smtp"
address = "127.0.0.1:{port}"
[[route]]
domain = "*"
to = "smtp://127.0.0.1:{sink}"
[local]
domains = ["bench.example"]
[spool]
min_free = "1MiB"
[events]
file = "events.log"
[limits]
client_connections = 10000
errors = {number}
[local.aliases]
"a{number}@bench.example" = ["b@elsewhere.example"]
"""
MORE = '[[listen]]\nservice = "smtp"\naddress = "127.0.0.1:{more}"\n'


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def tripost(*words: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tripost", *words], cwd=folder, capture_output=True, text=True, check=False
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--restart", action="store_true", help="and not reload")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tripost-reload-") as name:
        print(json.dumps(measure(pathlib.Path(name), options)))


def measure(folder: pathlib.Path, options: argparse.Namespace) -> dict[str, Any]:
    port, behind, more = free_port(), free_port(), free_port()

    def write(number: int) -> None:
        text = TOML.format(port=port, sink=behind, number=100 + number, processes=options.processes)
        (folder / "tripost.toml").write_text(text + (MORE.format(more=more) if number % 2 else ""))

    write(0)
    sink = subprocess.Popen(
        [sys.executable, str(HERE / "sink.py"), "--port", str(behind)], stdout=subprocess.PIPE, text=True
    )
    gateway = subprocess.Popen([sys.executable, "-m", "tripost", "serve", "tripost.toml"], cwd=folder)
    try:
        while tripost("status", folder=folder).returncode:
            time.sleep(0.2)
        words = ["--rate", str(options.rate), "--seconds", str(options.seconds), "--per-connection", "1"]
        source = subprocess.Popen(
            [sys.executable, str(HERE / "source.py"), "--port", str(port), "--connections", "900", *words],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        took = changes(options, write, folder)
        said, _ = source.communicate()
        while tripost("queue", "count", folder=folder).returncode == 0:
            time.sleep(0.5)
    finally:
        gateway.send_signal(signal.SIGTERM)
        gateway.wait(60)
        sink.send_signal(signal.SIGTERM)
        taken, _ = sink.communicate()
    what = "restart" if options.restart else "reload"
    row = {"bench": what, "processes": options.processes, "done": len(took), "seconds": took}
    return {**row, "source": json.loads(said), "sink": json.loads(taken)}


def changes(options: argparse.Namespace, write: Any, folder: pathlib.Path) -> list[float]:
    """How long each took that was done. Spread over the time of the source, with some at its beginning and end left
    alone."""
    took: list[float] = []
    pause = (options.seconds - 4) / max(1, options.times)
    time.sleep(2)
    for number in range(1, options.times + 1):
        began = time.monotonic()
        write(number)
        if options.restart:
            done = tripost("restart", "--json", folder=folder)
            took += [json.loads(done.stdout)["seconds"]] if not done.returncode else []
        else:
            done = tripost("reload", folder=folder)
            took += [round(time.monotonic() - began, 3)] if not done.returncode else []
        if done.returncode:
            print(done.stderr, file=sys.stderr, end="")
        time.sleep(max(0.0, pause - (time.monotonic() - began)))
    return took


if __name__ == "__main__":
    main()
