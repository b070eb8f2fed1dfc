"""Debian's Prometheus scrapes a loaded gateway, with our alert rules: alerts fire for what really happens"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import smtplib
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from support.gateways import Running, free_port, running, wait_for

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy" / "prometheus"
CONFIG = """\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: tripost
    static_configs: [{{targets: ["127.0.0.1:{monitor}"]}}]
"""


class Prometheus:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str) -> Any:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self._url}/{path}", timeout=10) as answer:
            return json.load(answer)["data"]
        return None

    def value(self, query: str) -> float:
        found = self.get(f"query?query={urllib.parse.quote(query)}")
        rows = found["result"] if found else []
        return float(rows[0]["value"][1]) if rows else -1.0

    def firing(self) -> set[str]:
        found = self.get("alerts")
        return {one["labels"]["alertname"] for one in found["alerts"] if one["state"] == "firing"} if found else set()


@contextlib.contextmanager
def prometheus(folder: pathlib.Path, gateway: Running) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    if program is None:
        if os.environ.get("TRIPOST_REQUIRE"):
            pytest.fail("prometheus is missing: apt-get install prometheus")
        pytest.skip("prometheus is missing: Debian's prometheus")
    folder.mkdir()
    (folder / "prometheus.yml").write_text(CONFIG.format(monitor=gateway.monitor))
    # the rules as they are, but for their patience
    (folder / "rules.yml").write_text(re.sub(r"for: \w+", "for: 0s", (DEPLOY / "tripost.rules.yml").read_text()))
    port = free_port()
    words = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    with open(folder / "log", "wb") as log:
        with subprocess.Popen([program, *words], cwd=folder, stderr=log, stdout=log) as child:
            try:
                yield Prometheus(port)
            finally:
                child.terminate()
                child.wait(30)


@pytest.mark.long
def test_scraped_and_alarmed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "g").mkdir()
    with running(tmp_path / "g") as gateway, prometheus(tmp_path / "p", gateway) as watching:
        with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
            for _ in range(200):
                client.sendmail("fred@truc.fr", ["marc@machin.com"], b"Subject: x\r\n\r\nx\r\n")
        assert wait_for(lambda: watching.value("tripost_accepted_messages_total") == 200, 30)
        assert wait_for(lambda: watching.value('tripost_recipients_ended_total{outcome="delivered"}') == 200, 30)
        assert watching.value("tripost_ready") == 1
        assert watching.value("histogram_quantile(0.99, tripost_accept_seconds_bucket)") > 0
        assert watching.firing() == set()
        text = gateway.file.read_text()
        gateway.file.write_text(text + '[tls]\ncertificate = "none"\nkey = "none"\n')
        assert gateway.command("reload").returncode == 2
        assert wait_for(lambda: "TripostTrouble" in watching.firing(), 30)
        gateway.file.write_text(text)
        assert gateway.command("drain").returncode == 0
        assert wait_for(lambda: "TripostDown" in watching.firing(), 30)


@pytest.mark.long
def test_a_full_disk_alarms(tmp_path: pathlib.Path) -> None:
    (tmp_path / "g").mkdir()
    with running(tmp_path / "g") as gateway:
        gateway.stop()
        gateway.file.write_text(gateway.file.read_text().replace('min_free = "1MiB"', 'min_free = "900TiB"'))
        gateway.start()
        with prometheus(tmp_path / "p", gateway) as watching:
            assert wait_for(lambda: "TripostDiskFull" in watching.firing(), 30)
