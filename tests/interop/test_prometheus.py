"""Debian's Prometheus scrapes a loaded gateway, with our alert rules: alerts fire for what really happens"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import poplib
import re
import shutil
import smtplib
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from support.gateways import TOML, Running, free_port, running, wait_for
from support.sinks import Sink

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy" / "prometheus"
DASHBOARD = DEPLOY.parent / "grafana" / "tripost.json"
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

    def rows(self, query: str) -> list[Any]:
        """Nothing, too, where Prometheus does not take it."""
        found = self.get(f"query?query={urllib.parse.quote(query)}")
        return found["result"] if found else []

    def value(self, query: str) -> float:
        rows = self.rows(query)
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


def busy(gateway: Running, number: int) -> None:
    """Some of everything that a dashboard shows."""
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        for _ in range(number):
            client.sendmail("fred@truc.fr", ["marc@machin.com"], b"Subject: x\r\n\r\nx\r\n")
        client.sendmail("fred@truc.fr", ["u@deferred.example"], b"Subject: x\r\n\r\nx\r\n")
        client.sendmail("fred@truc.fr", ["u@refused.example"], b"Subject: x\r\n\r\nx\r\n")
        client.docmd("RCPT", "TO:<before@machin.com>")
    for password in ("secret", "wrong"):
        client = poplib.POP3("127.0.0.1", gateway.pop3, timeout=20)
        client.user("marc@machin.com")
        with contextlib.suppress(poplib.error_proto):
            client.pass_(password)
        client.close()


ROUTES = """\
[[route]]
domain = "refused.example"
to = "smtp://127.0.0.1:{refusing}"
[[route]]
domain = "deferred.example"
to = "smtp://127.0.0.1:{closed}"
[tls]
certificate = "cert.pem"
key = "key.pem"
"""


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_the_dashboard_shows_something_everywhere(tmp_path: pathlib.Path, processes: int) -> None:
    """Every query of every panel is taken by Prometheus, and has rows once the gateway was busy. Not so: what says who
    was limited, and what only several processes have."""
    folder = tmp_path / "g"
    folder.mkdir()
    made = trustme.CA().issue_cert("smtp.machin.com")
    made.private_key_pem.write_to_path(folder / "key.pem")
    made.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    panels = [one for one in json.loads(DASHBOARD.read_text())["panels"] if one["type"] != "row"]
    asked = [(one["title"], target["expr"]) for one in panels for target in one["targets"]]
    assert len(asked) >= 40
    silent = {"tripost_delivery_limited_total"} | ({"tripost_process_"} if processes == 1 else set())
    refusing = Sink(free_port(), refuse="550 5.1.1 nobody here")
    extra = ROUTES.format(closed=free_port(), refusing=refusing.server_address[1])
    toml = f"processes = {processes}\n{TOML}"
    with (
        contextlib.closing(refusing),
        running(folder, extra, toml=toml) as gateway,
        prometheus(tmp_path / "p", gateway) as watching,
    ):
        assert wait_for(lambda: watching.value("tripost_ready") == 1, 30)
        for _ in range(4):
            busy(gateway, 50)
            time.sleep(1.5)

        def empty() -> list[tuple[str, str]]:
            ready = [(title, one.replace("$instance", ".*").replace("$__rate_interval", "30s")) for title, one in asked]
            return [(title, one) for title, one in ready if not watching.rows(one) and not _any(silent, one)]

        assert wait_for(lambda: not empty(), 20), empty()


def _any(names: set[str], query: str) -> bool:
    return any(one in query for one in names)
