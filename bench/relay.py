"""mail relays side by side: source → relay → sink, on loopback; a JSON line per run, and medians at the end

    deploy/uv run python bench/relay.py --peers tripost,postfix,exim --cells 2048:20:conn,2048:20:keep --rounds 3
    deploy/uv run python bench/relay.py --peers tripost,opensmtpd --cells 2048:4:conn
    deploy/uv run python bench/relay.py --peers tripost@1,tripost@auto --sink discard --cells 2048:20:keep,2048:20:conn
    deploy/uv run python bench/relay.py --peers tripost,postfix --plots . --cells 2048:1:keep,2048:5:keep,2048:50:keep

Each peer is a folder of bench/peers with its settings and a start.sh; "direct" is the source straight into the sink;
`tripost@1` is tripost with `processes = 1` (or another number). A cell is SIZE:SESSIONS:MODE: `conn` a connection for
each message, `keep` kept connections (both by Postfix's smtp-source); by bench/source.py, with the latency of accepts:
`domains` kept connections and 1,000 recipient domains, `timed` kept connections, `single` a connection each. The sink
is Postfix's smtp-sink. All have what they accepted on disk, synced, before they say 250, but Haraka, which does not
sync the folder; `--folder` is on the disk to be measured. `--plots`: a folder for charts (SVG) of messages a second
and CPU per message over sessions, and of the latencies.

Told: `accept`, messages a second until the source has its last 250; `relay`, until the sink has them all; `cpu_ms` of
the relay and everything that it started, per message; `source_ms`, that of the source; `pss_mib`, the most memory that
was seen. In each round the peers take turns. What they wrote is removed when all is over: a disk that discards what is
removed slows who comes next. `--sink discard` is for tripost only: it accepts, and delivers to nowhere, to be seen at
`accept`. Needs root, and the Debian packages postfix, exim4-daemon-light and opensmtpd (of which two may be
unpacked beside the installed one, and be on PATH), and Haraka of npm (its node_modules/.bin on PATH).
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
sys.path.insert(0, str(HERE))
from keep import memory, used  # noqa: E402 - a script beside this one
from plots import chart  # noqa: E402

DIRECT = "direct"
PROGRAMS = {"postfix": "postfix", "exim": "exim4", "opensmtpd": "smtpd", "haraka": "haraka"}
PATIENCE = 120.0  # seconds without a message more at the sink, and the run is over
FIGURES = "accept", "relay", "cpu_ms", "source_ms", "pss_mib"
WARM = 200  # messages before the measured ones


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _listening(port: int, who: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as one:
                if one.recv(3) == b"220":
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"{who} does not answer at port {port}")


class Sink:
    """smtp-sink; `count` by what it tells of itself."""

    def __init__(self, folder: pathlib.Path, port: int) -> None:
        self._out = folder / "sink"
        command = ["smtp-sink", "-u", "nobody", "-c", "-m", "4000", f"127.0.0.1:{port}", "1000"]
        with self._out.open("wb") as out:
            self._child = subprocess.Popen(command, stdout=out, stderr=out)
        _listening(port, "smtp-sink")

    def count(self) -> int:
        with self._out.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 200))
            found = re.findall(rb"mesg=(\d+)[^0-9]", file.read())
        return int(found[-1]) if found else 0

    def wait(self, count: int) -> None:
        """Until it has so many. Raises TimeoutError when no more come."""
        last, end = -1, 0.0
        while (now := self.count()) < count:
            if now != last:
                last, end = now, time.monotonic() + PATIENCE
            elif time.monotonic() > end:
                raise TimeoutError(f"the sink has {now} of {count}")
            time.sleep(0.01)

    def close(self) -> None:
        self._child.terminate()
        self._child.wait()


@contextmanager
def relay(name: str, folder: pathlib.Path, port: int, sink: int) -> Iterator[int]:
    """A peer, running: the process below which all of it is; 0 for none. `sink` 0: it is to discard all."""
    if name == DIRECT:
        yield 0
        return
    name, _, processes = name.partition("@")
    command = [sys.executable, str(HERE / "peers" / "keep.py"), str(HERE / "peers" / name / "start.sh")]
    environment = os.environ | {"PYTHON": sys.executable}
    if not sink:
        environment["DISCARD"] = "1"
    if processes:
        environment["PROCESSES"] = processes if processes.isdigit() else f'"{processes}"'
    child = subprocess.Popen([*command, str(port), str(sink), str(folder)], env=environment)
    try:
        _listening(port, name)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(60)


def _source(cell: str, port: int, count: int) -> list[str]:
    size, sessions, mode = cell.split(":")
    if mode in ("domains", "timed", "single"):
        words = ["--connections", sessions, "--size", size, "--domains", "1000" if mode == "domains" else "1", "--cdf"]
        words += ["--per-connection", "1" if mode == "single" else "0", "--recipient", "u@d%d.sink.test"]
        return [sys.executable, str(HERE / "source.py"), "--port", str(port), "--messages", str(count), *words]
    kept = ["-d"] if mode == "keep" else []
    return [
        *("smtp-source", "-s", sessions, "-l", size, "-m", str(count), *kept),
        *("-f", "s@source.test", "-t", "u@sink.test", f"127.0.0.1:{port}"),
    ]


class _Watch:
    """The most memory, looked at from time to time."""

    def __init__(self, root: int) -> None:
        self.most = 0.0
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._root and not self._over.wait(0.5):
            self.most = max(self.most, memory(self._root))

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def _children() -> float:
    """CPU seconds of the children that were waited for."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def measure(name: str, cell: str, count: int, folder: pathlib.Path, discard: bool = False) -> dict[str, Any]:
    entry, sink_port = free_port(), 0 if discard else free_port()
    sink = None if discard else Sink(folder, sink_port)
    folder.chmod(0o755)
    try:
        with relay(name, folder, entry, sink_port) as root:
            to = entry if root else sink_port
            subprocess.run(_source(cell, to, WARM), check=True, stdout=subprocess.DEVNULL)
            if sink is not None:
                sink.wait(WARM)
            watch, before, sent, start = _Watch(root), used(root) if root else 0.0, _children(), time.perf_counter()
            told = subprocess.run(_source(cell, to, count), check=True, stdout=subprocess.PIPE).stdout
            accepted, sent = time.perf_counter() - start, _children() - sent
            if sink is not None:
                sink.wait(WARM + count)
            relayed = time.perf_counter() - start
            watch.close()
            time.sleep(1)  # what is left to be tidied up belongs to these messages
            spent = used(root) - before if root else 0.0
    finally:
        if sink is not None:
            sink.close()
    row: dict[str, Any] = {
        "peer": name,
        "cell": cell,
        "messages": count,
        "accept": round(count / accepted),
        "relay": round(count / relayed),
        "cpu_ms": round(spent / count * 1e3, 3),
        "source_ms": round(sent / count * 1e3, 3),
        "pss_mib": round(watch.most),
    }
    if told.startswith(b"{"):
        timed = json.loads(told)
        row |= {"accept": round(timed["per_second"]), "latency_ms": timed["latency_ms"], "cdf_ms": timed["cdf_ms"]}
    return row


def main(options: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    peers = options.peers.split(",")
    discard = options.sink == "discard"
    if discard and not all(one.startswith("tripost") for one in peers):
        raise SystemExit("--sink discard: only tripost is set up for that")
    tools = [PROGRAMS[one] for one in peers if one in PROGRAMS]
    for tool in ["smtp-source", "smtp-sink", *tools]:
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is missing (see the packages that --help names)")
    with ExitStack() as folders:
        for number in range(options.rounds):
            for cell in options.cells.split(","):
                for name in peers if number % 2 == 0 else peers[::-1]:
                    folder = tempfile.TemporaryDirectory(prefix="relay-", dir=options.folder)
                    row = measure(name, cell, options.messages, pathlib.Path(folders.enter_context(folder)), discard)
                    rows.append(row)
                    print(json.dumps({key: value for key, value in row.items() if key != "cdf_ms"}), flush=True)
    if options.plots:
        plot(rows, pathlib.Path(options.plots))
    print(json.dumps({"bench": "relay", "cores": os.cpu_count(), "rounds": options.rounds, "medians": medians(rows)}))


def plot(rows: list[dict[str, Any]], folder: pathlib.Path) -> None:
    """Throughput and CPU over sessions for each size and mode that has several; latencies where cells have them."""
    folder.mkdir(parents=True, exist_ok=True)
    found = medians(rows)
    kinds = dict.fromkeys((size, mode) for size, _, mode in (cell.split(":") for cell in found))
    for size, mode in kinds:
        cells = [cell for cell in found if cell.split(":")[::2] == [size, mode]]
        for key, unit in (("relay", "messages/s"), ("cpu_ms", "ms CPU/message")) if len(cells) > 1 else ():
            series = {
                name: [(float(cell.split(":")[1]), found[cell][name][key]) for cell in cells if name in found[cell]]
                for name in dict.fromkeys(row["peer"] for row in rows)
                if name != DIRECT
            }
            text = chart(f"{size} octets, {mode}", "sessions", unit, series)
            (folder / f"{key}-{size}-{mode}.svg").write_text(text)
    for cell in found:
        curves: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            points = row.get("cdf_ms", [])
            if row["cell"] == cell and points:
                curves[row["peer"]] = [(max(one, 0.01), at / (len(points) - 1)) for at, one in enumerate(points)]
        if curves:
            text = chart(f"accepted within, {cell}", "ms", "share", curves, log_x=True)
            (folder / f"latency-{cell.replace(':', '-')}.svg").write_text(text)


def medians(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Cell → peer → figures."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for cell, name in dict.fromkeys((row["cell"], row["peer"]) for row in rows):
        some = [row for row in rows if (row["cell"], row["peer"]) == (cell, name)]
        figures = {key: statistics.median(row[key] for row in some) for key in FIGURES}
        for part in some[0].get("latency_ms", {}):
            figures[f"{part}_ms"] = statistics.median(row["latency_ms"].get(part, 0.0) for row in some)
        found.setdefault(cell, {})[name] = figures
    return found


if __name__ == "__main__":
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--peers", default="direct,tripost,postfix,exim")
    top.add_argument("--cells", default="2048:20:conn,2048:20:keep,51200:20:conn,2048:20:domains")
    top.add_argument("--sink", choices=("smtp-sink", "discard"), default="smtp-sink")
    top.add_argument("--messages", type=int, default=5000)
    top.add_argument("--rounds", type=int, default=1)
    top.add_argument("--folder", default=None, help="on the disk that is to be measured")
    top.add_argument("--plots", default="", help="folder for charts")
    main(top.parse_args())
