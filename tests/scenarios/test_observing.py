"""who watches never holds up the mail: stuck pipes, full disks, rotated logs; whole gateways"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import smtplib
import subprocess
import sys
from typing import Any

from support.gateways import Running, running, wait_for

NO_FILE = 'file = "events.log"\nformat = "json"\n'


def send(gateway: Running, recipients: list[str], count: int = 1) -> None:
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=60) as client:
        for _ in range(count):
            assert client.sendmail("fred@truc.fr", recipients, b"Subject: x\r\n\r\nhi\r\n") == {}


def reader_of(gateway: Running, name: str) -> dict[str, Any]:
    """What status says of a reader of events."""
    status = json.loads(gateway.command("status", "--json").stdout)
    (found,) = [one for one in status["events"]["readers"] if one["name"] == name]
    return dict(found)


class Piped(Running):
    """Its standard error is a pipe that nobody reads, until somebody does."""

    def __init__(self, folder: pathlib.Path, extra: str = "") -> None:
        super().__init__(folder, extra)
        self.file.write_text(self.file.read_text().replace(NO_FILE, ""))

    def start(self) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tripost", "serve", str(self.file)], cwd=self.folder, stderr=subprocess.PIPE
        )
        assert wait_for(self._answers), "the gateway did not start"


def test_a_log_that_nobody_reads(tmp_path: pathlib.Path) -> None:
    discard = '[[route]]\ndomain = "nobody.example"\nto = "discard"\n'
    many = [f"{'x' * 50}{n}@nobody.example" for n in range(1000)]
    with running(tmp_path, discard, kind=Piped) as gateway:
        send(gateway, many, 30)  # 12 MiB of events
        found = wait_for(lambda: (one := reader_of(gateway, "log"))["dropped"] and one, 60)
        assert found, "nothing was dropped"
        assert found["waiting"] <= 9 << 20
        send(gateway, ["marc@machin.com"])  # mail goes on
        assert wait_for(lambda: list((tmp_path / "state" / "mail").rglob("new/*")))
        child = gateway.child
        assert child is not None
        assert child.stderr is not None
        os.set_blocking(child.stderr.fileno(), False)
        got = bytearray()

        def drained() -> bool:
            got.extend(child.stderr.read() or b"")  # type: ignore[union-attr]
            return reader_of(gateway, "log")["waiting"] == 0

        def told() -> list[dict[str, Any]]:
            """Whole lines; once the end of the loss is told."""
            rows = [json.loads(line) for line in got.splitlines() if line.endswith(b"}")] if drained() else []
            dropped = [row["total"] for row in rows if row["event"] == "dropped"]
            return rows if dropped and dropped[-1] == reader_of(gateway, "log")["dropped"] else []

        assert wait_for(told, 60)
        send(gateway, ["marc@machin.com"])
        assert wait_for(lambda: drained() and got.rfind(b'"event":"accepted"') > got.rfind(b'"event":"dropped"'))
        rows = told()
        seen = [row["seq"] for row in rows]
        assert reader_of(gateway, "log")["dropped"] == seen[-1] - seen[0] + 1 - len(seen)
        assert gateway.stop() == 0
        child.stderr.close()


def test_a_gateway_ends_although_nobody_reads_its_log(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, '[[route]]\ndomain = "nobody.example"\nto = "discard"\n', kind=Piped) as gateway:
        send(gateway, [f"{n}@nobody.example" for n in range(1000)])
        assert wait_for(lambda: reader_of(gateway, "log")["waiting"])
        assert gateway.stop() == 0
        assert gateway.child is not None
        assert gateway.child.stderr is not None
        gateway.child.stderr.close()


def test_a_full_disk_below_the_log(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway:
        gateway.stop()
        gateway.file.write_text(gateway.file.read_text().replace('"events.log"', '"/dev/full"'))
        gateway.start()
        send(gateway, ["marc@machin.com"])
        assert wait_for(lambda: list((tmp_path / "state" / "mail").rglob("new/*")))
        found = wait_for(lambda: (one := reader_of(gateway, "log"))["dropped"] >= 5 and one)
        assert found
        assert found["wrong"] == "No space left on device"
        text = gateway.command("status").stdout
        assert "the log has lost " in text
        assert text.endswith(" events: No space left on device\n")


def test_a_log_is_rotated_by_hup(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway:
        log, old = tmp_path / "events.log", tmp_path / "events.log.1"
        send(gateway, ["marc@machin.com"], 5)
        log.rename(old)
        assert gateway.child is not None
        gateway.child.send_signal(signal.SIGHUP)
        assert wait_for(lambda: gateway.events("reopened"))
        send(gateway, ["marc@machin.com"], 5)
        assert gateway.stop() == 0
        first, *_ = gateway.events()
        assert (first["event"], first["file"]) == ("reopened", str(log))
        rows = [json.loads(line) for line in old.read_text().splitlines()] + gateway.events()
        seen = [row["seq"] for row in rows]
        assert seen == list(range(seen[0], seen[0] + len(seen)))
        assert [row["event"] for row in rows].count("accepted") == 10


def test_events_off(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway:
        gateway.stop()
        before = (tmp_path / "events.log").read_bytes()
        gateway.file.write_text(gateway.file.read_text().replace('format = "json"', 'format = "off"'))
        gateway.start()
        send(gateway, ["marc@machin.com"])
        status = json.loads(gateway.command("status", "--json").stdout)
        assert "log" not in [one["name"] for one in status["events"]["readers"]]
        assert (tmp_path / "events.log").read_bytes() == before
