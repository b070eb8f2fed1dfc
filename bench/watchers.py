"""what those who watch cost: relay rates with and without them, CPU of a client, memory; one JSON line

    deploy/uv run python bench/watchers.py live --clients 200       the rate while so many read /live, over that without
    deploy/uv run python bench/watchers.py stuck --clients 20       while so many never read /live and /events
    deploy/uv run python bench/watchers.py stuck --events --clients 20 --pause 4 --messages 30000     … and are cut
    deploy/uv run python bench/watchers.py all                      everything on, over everything off
    deploy/uv run python bench/watchers.py one                      the gateway's CPU for one client of /live
    deploy/uv run python bench/watchers.py top                      the CPU of `tripost top`, in tmux

`live` and `stuck`: one gateway takes turns with and without clients, which come before a turn and go after it. `all`:
two gateways take turns, as in observe.py; the one has events in a file, history, and a monitor that is scraped each 5 s
and has a client of /live and one of /events, as a page is; the other has nothing. Which turn is first alternates from
pair to pair. What the clients themselves cost is told, and is taken from the same cores. `stuck --events`: clients with
a small window ask for all events; FILL messages go through before their turn, so that everything between them and the
gateway is full when it begins, `--pause` s later; the turn has to be long enough that they are cut in it, ten seconds
after the gateway could send them nothing more.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import pathlib
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import observe
import source

from delivery import SinkProcess

ALL = "events,history,monitor"
SCRAPE = 5.0  # seconds
FILL = 1500  # messages: over a megabyte of events, what the systems of both sides hold is less
SMALL = 4096  # octets that a client's system takes for it
NEW = 12.0  # seconds after which one that never reads comes anew: the gateway has cut it, which it does not see
SIZES = ((80, 24), (200, 60))


# --- clients, in a process of their own ---


def upgraded(port: int, path: str, *, small: bool = False) -> socket.socket | None:
    """A websocket, its head read; None where there is none of that path."""
    one = socket.socket()
    one.settimeout(10.0)
    if small:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    one.connect(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    one.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        data = one.recv(1)  # not a byte more: a client that is stuck has read nothing
        if not data:
            return None
        head += data
    return one if b" 101 " in head.split(b"\r\n", 1)[0] else None


class Reading:
    """Frames of one socket, counted."""

    def __init__(self) -> None:
        self.messages = self.octets = 0
        self._left = 0
        self._head = b""

    def feed(self, data: bytes) -> None:
        self.octets += len(data)
        while data:
            if self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                continue
            need = 2 if len(self._head) < 2 else {126: 4, 127: 10}.get(self._head[1] & 127, 2)
            self._head, data = self._head + data[: need - len(self._head)], data[max(0, need - len(self._head)) :]
            if len(self._head) < 2:
                continue
            size = self._head[1] & 127
            need = {126: 4, 127: 10}.get(size, 2)
            if len(self._head) == need:
                self._left = size if size < 126 else int.from_bytes(self._head[2:], "big")
                self.messages += self._head[0] & 15 == 1
                self._head = b""


def clients(options: argparse.Namespace) -> None:
    """Until SIGTERM; says "ready" when all are there, and a JSON line at the end."""
    stop = False

    def end(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, end)
    crowd = Crowd(options)
    there = sum([crowd.join(path) for path in options.paths.split(",") for _ in range(options.count)])
    print("ready", there, flush=True)
    began, used, scrapes = time.monotonic(), time.process_time(), 0
    next_scrape = began if options.scrape else float("inf")
    while not stop:
        crowd.once(min(0.5, max(0.0, next_scrape - time.monotonic())))
        if time.monotonic() >= next_scrape:
            next_scrape += SCRAPE
            with urllib.request.urlopen(f"http://127.0.0.1:{options.port}/metrics", timeout=30) as answer:
                answer.read()
            scrapes += 1
    row = {"clients": there, "opened": crowd.opened, "messages": crowd.messages, "octets": crowd.octets}
    row |= {"seconds": time.monotonic() - began, "scrapes": scrapes, "cpu": time.process_time() - used}
    print(json.dumps(row), flush=True)


class Crowd:
    """Sockets that are read, or not."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._chosen = selectors.DefaultSelector()
        self._room = bytearray(1 << 18)
        self._stuck: list[tuple[float, socket.socket, str]] = []
        self.opened = self.messages = self.octets = 0

    def join(self, path: str) -> bool:
        one = upgraded(self._options.port, path, small=self._options.small)
        if one is None:
            return False
        self.opened += 1
        if self._options.never_read:
            self._stuck.append((time.monotonic(), one, path))
        else:
            one.setblocking(False)
            self._chosen.register(one, selectors.EVENT_READ, (path, Reading()))
        return True

    def once(self, seconds: float) -> None:
        if self._options.never_read:
            time.sleep(seconds)
            while self._stuck and time.monotonic() - self._stuck[0][0] > NEW:
                _, one, path = self._stuck.pop(0)
                one.close()
                self.join(path)
            return
        for key, _ in self._chosen.select(seconds):
            if self._take(key):
                self._chosen.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
                self.join(key.data[0])

    def _take(self, key: selectors.SelectorKey) -> bool:
        """True when it is over."""
        try:
            size = key.fileobj.recv_into(self._room)  # type: ignore[union-attr]
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.octets += size
        if self._options.frames:
            mine: Reading = key.data[1]
            before = mine.messages
            mine.feed(bytes(self._room[:size]))
            self.messages += mine.messages - before
        return not size


class Watchers:
    """Such clients; `told` once they have ended."""

    def __init__(self, port: int, count: int, *more: str, paths: str = "/live") -> None:
        words = ["clients", "--port", str(port), "--count", str(count), "--paths", paths, *more]
        self.child = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
        assert self.child.stdout is not None
        self.there = int(self.child.stdout.readline().split()[1])
        self.told: dict[str, Any] = {}

    def end(self) -> None:
        self.child.send_signal(signal.SIGTERM)
        out, _ = self.child.communicate(timeout=60)
        self.told = json.loads(out)


@contextlib.contextmanager
def watched(make: Callable[[], Watchers] | None, told: list[dict[str, Any]]) -> Iterator[None]:
    made = make() if make is not None else None
    try:
        yield
    finally:
        if made is not None:
            made.end()
            told.append(made.told)


def resident(pid: int) -> int:
    """KiB."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


# --- rates ---


class Found:
    """What the turns showed."""

    def __init__(self) -> None:
        self.figures: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
        self.told: list[dict[str, Any]] = []
        self.memory = {"with": 0, "without": 0}
        self.dropped: dict[str, int] = {}
        self.cut = 0.0


def rates(options: argparse.Namespace) -> dict[str, Any]:
    """live, stuck, all."""
    sink, found = SinkProcess(), Found()
    for number in range(options.sets):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            _pairs(options, sink, pathlib.Path(folder), found, options.pairs // options.sets, number)
    sink.end()
    return _summed(options, found)


def _pairs(
    options: argparse.Namespace, sink: SinkProcess, folder: pathlib.Path, found: Found, pairs: int, first: int
) -> None:
    whole = observe.Gateway(folder / "on", sink.port, ALL)
    other = observe.Gateway(folder / "off", sink.port, "") if options.what == "all" else whole

    def make() -> Watchers:
        if options.what == "all":
            return Watchers(whole.monitor, 1, "--scrape", paths="/live,/events")
        if options.what == "stuck" and options.events:
            made = Watchers(whole.monitor, options.clients, "--never-read", "--small", paths="/events")
            observe.turn(whole, sink, argparse.Namespace(**vars(options) | {"messages": FILL}))
            return made
        if options.what == "stuck":
            return Watchers(whole.monitor, options.clients // 2, "--never-read", paths="/live,/events")
        return Watchers(whole.monitor, options.clients)

    try:
        for one in {whole, other}:
            observe.turn(one, sink, options)  # to warm up
        for number in range(first, first + pairs):
            for name in ("with", "without") if number % 2 else ("without", "with"):
                gateway = whole if name == "with" else other
                with watched(make if name == "with" else None, found.told):
                    time.sleep(options.pause if name == "with" or not options.events else 1.0)
                    found.figures[name].append(observe.turn(gateway, sink, options))
                    found.memory[name] = max(found.memory[name], resident(gateway.child.pid))
        with urllib.request.urlopen(f"http://127.0.0.1:{whole.monitor}/metrics", timeout=30) as answer:
            found.cut += float(re.findall(rb"clients_cut_total ([0-9.]+)", answer.read())[0])
        for one in whole.status()["events"]["readers"]:
            found.dropped[one["name"]] = found.dropped.get(one["name"], 0) + one["dropped"]
    finally:
        for one in {whole, other}:
            one.stop()


def _summed(options: argparse.Namespace, found: Found) -> dict[str, Any]:
    figures, told = found.figures, found.told
    ratios = [one[0] / two[0] for one, two in zip(figures["with"], figures["without"], strict=True)]
    cpu = {name: statistics.median([one[1] for one in some]) for name, some in figures.items()}
    medians = {name: statistics.median([one[0] for one in some]) for name, some in figures.items()}
    seconds = sum([one["seconds"] for one in told]) or 1.0
    clients = statistics.median([one["clients"] for one in told])
    return {
        "bench": "watchers",
        "what": options.what,
        "clients": clients,
        "messages": options.messages,
        "pairs": len(ratios),
        "sets": options.sets,
        "median": round(statistics.median(ratios), 3),
        "of_medians": round(medians["with"] / medians["without"], 3),
        "ratios": [round(one, 3) for one in ratios],
        "per_second": {name: round(one) for name, one in medians.items()},
        "cpu_ms_per_message": {name: round(one, 3) for name, one in cpu.items()},
        "resident_kib": found.memory,
        "told_kib_per_second": round(sum([one["octets"] for one in told]) / seconds / 1024),
        "opened": sum([one["opened"] for one in told]),
        "scrapes": sum([one["scrapes"] for one in told]),
        "clients_cpu": round(sum([one["cpu"] for one in told]) / seconds, 3),
        "cores": os.cpu_count(),
        "cut": found.cut,
        "dropped": found.dropped,
    }


# --- one client, and top ---


def _busy(gateway: observe.Gateway, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Some mail, all the time, to many domains."""
    words = ["--port", str(gateway.port), "--rate", str(options.rate), "--seconds", "600", "--connections", "5"]
    program = str(pathlib.Path(__file__).with_name("source.py"))
    return subprocess.Popen([sys.executable, program, *words, "--domains", "60"], stdout=subprocess.DEVNULL)


def share(pid: int, seconds: float) -> float:
    """Of a core, in per cent."""
    before, began = source.cpu_of(pid), time.perf_counter()
    time.sleep(seconds)
    return (source.cpu_of(pid) - before) / (time.perf_counter() - began) * 100


def one(options: argparse.Namespace) -> dict[str, Any]:
    """The gateway's CPU with a client of /live, less that without, in turns; with `--rate` mail a second meanwhile."""
    sink = SinkProcess()
    found: dict[str, list[float]] = {"with": [], "without": []}
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        gateway = observe.Gateway(pathlib.Path(folder) / "one", sink.port, ALL)
        busy = _busy(gateway, options) if options.rate else None
        try:
            time.sleep(2)
            for number in range(options.pairs):
                for name in ("with", "without") if number % 2 else ("without", "with"):
                    with watched((lambda: Watchers(gateway.monitor, 1, "--frames")) if name == "with" else None, told):
                        time.sleep(1)
                        found[name].append(share(gateway.child.pid, options.seconds))
        finally:
            if busy is not None:
                busy.kill()
                busy.wait()
            gateway.stop()
            sink.end()
    more = [a - b for a, b in zip(found["with"], found["without"], strict=True)]
    hz = sum([one["messages"] for one in told]) / sum([one["seconds"] for one in told])
    return {
        "bench": "watchers",
        "what": "one",
        "rate": options.rate,
        "percent_with": [round(one, 2) for one in found["with"]],
        "percent_without": [round(one, 2) for one in found["without"]],
        "percent_of_a_core": round(statistics.median(more), 2),
        "told_hz": round(hz, 2),
        "told_octets": round(sum([one["octets"] for one in told]) / sum([one["messages"] for one in told])),
    }


def top(options: argparse.Namespace) -> dict[str, Any]:
    """CPU of `tripost top` at each size, of a gateway with mail for 60 domains."""
    sink = SinkProcess()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        gateway = observe.Gateway(pathlib.Path(folder) / "top", sink.port, ALL)
        busy = _busy(gateway, options)
        tmux = ["tmux", "-S", f"{folder}/tmux.sock", "-f", "/dev/null"]
        try:
            for columns, lines in SIZES:
                size = ["-x", str(columns), "-y", str(lines)]
                words = [sys.executable, "-m", "tripost", "top", "--config", str(gateway.config)]
                subprocess.run([*tmux, "new-session", "-d", *size, *words], check=True)
                time.sleep(3)
                pane = subprocess.run([*tmux, "list-panes", "-F", "#{pane_pid}"], capture_output=True, check=True)
                found[f"{columns}x{lines}"] = round(share(int(pane.stdout), options.seconds), 2)
                subprocess.run([*tmux, "kill-server"], check=True)
        finally:
            busy.kill()
            busy.wait()
            gateway.stop()
            sink.end()
    return {"bench": "watchers", "what": "top", "rate": options.rate, "percent_of_a_core": found}


def main() -> None:
    head = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    head.add_argument("what", choices=("live", "stuck", "all", "one", "top", "clients"))
    head.add_argument("--clients", type=int, default=200)
    head.add_argument("--pairs", type=int, default=7)
    head.add_argument("--sets", type=int, default=1, help="so many times with new gateways: two of the same differ")
    head.add_argument("--messages", type=int, default=8000)
    head.add_argument("--connections", type=int, default=20)
    head.add_argument("--pause", type=float, default=1.0, help="seconds before a turn")
    head.add_argument("--seconds", type=float, default=15.0, help="of one and top: how long is looked")
    head.add_argument("--events", action="store_true", help="of stuck: all ask for /events, with a small window")
    head.add_argument("--rate", type=int, default=100, help="of one and top: messages a second meanwhile")
    head.add_argument("--folder", default=None)
    inner = head.add_argument_group("clients")
    inner.add_argument("--port", type=int)
    inner.add_argument("--count", type=int, default=1)
    inner.add_argument("--paths", default="/live")
    inner.add_argument("--never-read", action="store_true")
    inner.add_argument("--small", action="store_true", help="a small window")
    inner.add_argument("--scrape", action="store_true")
    inner.add_argument("--frames", action="store_true", help="count messages, not octets only")
    options = head.parse_args()
    if options.what == "clients":
        clients(options)
        return
    print(json.dumps({"one": one, "top": top}.get(options.what, rates)(options)))


if __name__ == "__main__":
    main()
