"""more mail than can be relayed: an open loop at parts of the maximum; one JSON line

    deploy/uv run python bench/overload.py
    deploy/uv run python bench/overload.py --peer postfix --parts 0.7 --seconds 30

First the maximum, by a closed loop of `--most-connections` (or `--most`, where it is known): messages a second, until
the sink has them all. Then for each part of it an open loop (bench/source.py): messages are due at fixed times, each on
a connection of its own, and what a message waits counts from when it was due. Told for each part: the latencies of what
was accepted; `shed`, what got a 4xx (the client keeps it and comes again later); `source_lag_ms`, how late the source
itself was for want of the processor, which is in the latencies and no fault of the gateway's; and `lost`: accepted, and
not at the sink when nothing more came for five seconds.

Source and sink share the machine with the gateway. Above the maximum nobody gets the processor that he wants: there the
source goes before the others (`--nice`, where root runs this), as it would on a machine of its own, and has as many
connections as it has messages that wait, as all the world has: with fewer, what cannot connect waits in the source.
Needs what bench/relay.py needs.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from relay import HERE, Sink, free_port, relay


def source(to: int, *words: str) -> dict[str, Any]:
    """One run of bench/source.py."""
    command = [sys.executable, str(HERE / "source.py"), "--port", str(to), "--per-connection", "1", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def settled(sink: Sink, accepted: int) -> int:
    """How many of these never came: known when all did, or none came for five seconds."""
    last, end = -1, 0.0
    while (now := sink.count()) < accepted:
        if now != last:
            last, end = now, time.monotonic() + 5
        elif time.monotonic() > end:
            break
        time.sleep(0.05)
    return accepted - now


def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="overload-", dir=options.folder) as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        to, sink_port = free_port(), free_port()
        sink = Sink(folder, sink_port)
        rows = []
        try:
            with relay(options.peer, folder, to, sink_port):
                size = ("--size", options.size)
                accepted = source(to, "--messages", "500", *size)["messages"]
                most = options.most
                if not most:
                    settled(sink, accepted)
                    most = _most(options, to, sink)
                time.sleep(2)  # what is left to be tidied up is not the next part's
                for part in options.parts.split(","):
                    rows.append(_part(options, to, sink, float(part), most))
        finally:
            sink.close()
    row = {"bench": "overload", "peer": options.peer, "cores": os.cpu_count(), "most": round(most), "parts": rows}
    print(json.dumps(row))


def _most(options: argparse.Namespace, to: int, sink: Sink) -> float:
    """Messages a second until the sink has them all: what is taken in faster waits in the queue."""
    words = ("--messages", str(options.messages), "--connections", str(options.most_connections))
    before = sink.count()
    row = source(to, *words, "--size", options.size)
    start = time.perf_counter()
    settled(sink, before + row["messages"])
    return float(row["messages"] / (row["seconds"] + time.perf_counter() - start))


def _part(options: argparse.Namespace, to: int, sink: Sink, part: float, most: float) -> dict[str, Any]:
    before = sink.count()
    words = ["--rate", f"{most * part:.0f}", "--seconds", str(options.seconds), "--size", options.size]
    words += ["--connections", str(options.connections), "--processes", str(options.processes)]
    row = source(to, *words, "--nice", str(options.nice if part > 1 else 0))
    lost = settled(sink, before + row["messages"])
    wanted = ("messages", "per_second", "latency_ms", "shed", "errors", "source_lag_ms")
    return {"part": part, "rate": row["rate"], "lost": lost} | {key: row[key] for key in wanted}


if __name__ == "__main__":
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--peer", default="tripost", help="as in bench/relay.py")
    top.add_argument("--parts", default="0.7,1.5", help="of the maximum")
    top.add_argument("--most", type=float, default=0.0, help="messages a second that are the maximum; 0: measure")
    top.add_argument("--most-connections", type=int, default=100, help="to measure it")
    top.add_argument("--messages", type=int, default=10_000, help="to measure it")
    top.add_argument("--seconds", type=float, default=15.0, help="for each part")
    top.add_argument("--size", default="2048")
    top.add_argument("--connections", type=int, default=10_000, help="of the open loop, at most")
    top.add_argument("--processes", type=int, default=2, help="of the source, in the open loop")
    top.add_argument("--nice", type=int, default=-15, help="of the source, for parts above 1")
    top.add_argument("--folder", default=None, help="on the disk that is to be measured")
    main(top.parse_args())
