"""the load tools do what their help says: source and sink over real sockets, charts, the comparison"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pyperf
import pytest

BENCH = pathlib.Path(__file__).parent.parent / "bench"
MBOX = """From a@b.example Thu Jan  1 10:00:00 2026
Subject: one

hello
.a dot
>From me

From c@d.example Thu Jan  1 10:00:00 2026
Subject: two

bye
"""


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def sink(*words: str) -> Generator[tuple[int, dict[str, Any]]]:
    """A running sink: its port, and what it tells at its end."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, str(BENCH / "sink.py"), "--port", str(port), *words]
    told: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield port, told
        finally:
            child.send_signal(signal.SIGTERM)
            assert child.stdout is not None
            told |= json.loads(child.stdout.read())


def source(port: int, *words: str) -> dict[str, Any]:
    command = [sys.executable, str(BENCH / "source.py"), "--port", str(port), "--patience", "5", *words]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, timeout=60).stdout)
    return found


def test_all_that_is_sent_arrives(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mbox").write_text(MBOX)
    with sink() as (port, told):
        mix = source(port, "--messages", "300", "--size", "2KiB:3,20KiB:1", "--processes", "2", "--per-connection", "7")
        assert (mix["messages"], mix["shed"], mix["errors"]) == (300, 0, {})
        late = source(port, "--rate", "200", "--seconds", "0.5", "--per-connection", "1", "--cdf")
        assert (late["messages"], late["loop"], len(late["cdf_ms"])) == (100, "open", 201)
        assert late["cdf_ms"] == sorted(late["cdf_ms"])
        assert late["latency_ms"]["p50"] <= late["latency_ms"]["p99.9"] <= late["latency_ms"]["max"]
        assert source(port, "--mbox", str(tmp_path / "mbox"), "--messages", "4", "--connections", "1")["messages"] == 4
    assert told["messages"] == 404
    # both kinds of size came, and the mbox as it was before it was quoted, without the dot that SMTP takes away
    least = 300 * 2048 + 100 * 2048
    assert least < told["octets"] < least + 300 * 20 * 1024


def test_an_mbox_is_read_as_it_was_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mbox").write_text(MBOX)
    found = list(load("source").mbox(str(tmp_path / "mbox"), "nobody@x.example"))
    assert found == [
        ("a@b.example", b"Subject: one\r\n\r\nhello\r\n..a dot\r\nFrom me\r\n.\r\n"),
        ("c@d.example", b"Subject: two\r\n\r\nbye\r\n.\r\n"),
    ]


def test_chaos_is_counted_on_both_sides() -> None:
    with sink("--chaos", "0.5", "--answer", "dot=451 4.3.0 not now@0.2") as (port, told):
        row = source(port, "--messages", "400", "--patience", "1", "--connections", "40")
    assert row["messages"] == told["messages"] < 400
    assert row["shed"] > 0
    assert any("550" in why for why in row["errors"])
    assert row["messages"] + row["shed"] + sum(row["errors"].values()) == 400


def test_a_chart_is_an_svg_file() -> None:
    text = load("plots").chart("a & b", "sessions", "per second", {"x": [(1, 10), (20, 3000)], "none": []}, log_x=True)
    root = xml.fromstring(text)
    lines = [one for one in root.iter() if one.tag.endswith("polyline")]
    assert len(lines) == 1
    for pair in lines[0].attrib["points"].split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= 720
        assert 0 <= y <= 420


def test_a_figure_that_became_slower_is_found(tmp_path: pathlib.Path) -> None:
    compare = load("compare")
    for name, factor in (("old", 1.0), ("new", 1.5)):
        parts = []
        for what, seconds in (("a", 0.1 * factor), ("b", 0.1)):
            values = [seconds * (1 + spread) for spread in (0.0, 0.001, 0.002)]
            runs = [pyperf.Run([one], metadata={"name": what}, collect_metadata=False) for one in values]
            parts.append(pyperf.Benchmark(runs))
        pyperf.BenchmarkSuite(parts).dump(str(tmp_path / name))
        compare.lean(tmp_path / name)
    assert compare.slower(tmp_path / "old", tmp_path / "new", 1.25) == {"a": pytest.approx(1.5)}
    assert compare.slower(tmp_path / "old", tmp_path / "new", 1.6) == {}
