"""a gateway of today takes over the spool of an older version: everything in it is delivered, and nothing is damaged"""

from __future__ import annotations

import pathlib
import shutil

import pytest

from support.gateways import free_port, running, wait_for
from support.sinks import Sink

SPOOLS = sorted((pathlib.Path(__file__).parents[1] / "queue" / "spools").iterdir())


@pytest.mark.parametrize("old", SPOOLS, ids=lambda path: path.name)
def test_upgrade(tmp_path: pathlib.Path, old: pathlib.Path) -> None:
    shutil.copytree(old, tmp_path / "state" / "spool")
    port = free_port()
    with running(tmp_path, '[dns]\nnameservers = ["127.0.0.1:1"]\n') as gateway:
        listed = gateway.command("queue", "list", "--limit", "0", "--json").stdout.splitlines()
        assert len(listed) >= 20
        sink = Sink(port)
        for words in (("release",), ("reroute", "--to", f"smtp://127.0.0.1:{port}"), ("retry",)):
            done = gateway.command("queue", words[0], "--id", "*", *words[1:], "--yes")
            assert done.returncode in (0, 1), done.stderr  # 1: none was held
        assert wait_for(lambda: gateway.command("queue", "count").returncode == 1), gateway.command(
            "queue", "list"
        ).stdout
        assert len(sink.messages) >= len(listed)
        assert gateway.command("queue", "verify").returncode == 0
        sink.close()
