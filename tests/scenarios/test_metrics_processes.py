"""/metrics of a gateway in several processes: counters go on when a worker is killed and started anew"""

from __future__ import annotations

import pathlib
import smtplib
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from support.gateways import Running, free_port, wait_for
from support.processes import kill_one, roles, running, toml
from support.sinks import Sink
from tripost.gateway.monitor.metric_table import METRICS

ROUTE = '[[route]]\ndomain = "far.example"\nto = "smtp://127.0.0.1:{port}"\n'
GROWS = {one.name for one in METRICS if one.kind == "counter"}
GROWS |= {f"{one.name}{end}" for one in METRICS if one.kind == "histogram" for end in ("_bucket", "_count", "_sum")}


def scrape(gateway: Running) -> dict[tuple[str, ...], float]:
    """(sample, its labels) → value, of what may only grow."""
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.monitor}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = [one for family in parse_text(text) for one in family.samples if one.name in GROWS]
    return {(one.name, *[f"{name}={value}" for name, value in sorted(one.labels.items())]): one.value for one in found}


def send(gateway: Running, count: int) -> int:
    """How many were taken; a worker may die in between."""
    taken = 0
    for _ in range(count):
        try:
            with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
                client.sendmail("fred@truc.fr", ["u@far.example"], b"Subject: x\r\n\r\nx\r\n")
            taken += 1
        except (OSError, smtplib.SMTPException):
            continue
    return taken


@pytest.mark.parametrize("processes", [2])
def test_counters_outlive_a_worker(tmp_path: pathlib.Path, processes: int) -> None:
    port = free_port()
    sink = Sink(port)
    relayed = "tripost_recipients_ended_total", "outcome=relayed"
    try:
        with running(tmp_path, ROUTE.format(port=port), toml=toml(processes)) as gateway:
            taken = send(gateway, 10)
            before = scrape(gateway)
            workers = [one for one in ("ingress", "delivery") if one in roles(gateway)]
            assert "ingress" in workers
            for role in [*workers, *workers]:
                killed = kill_one(gateway, role)
                assert wait_for(lambda: killed not in roles(gateway).get(role, []) and role in roles(gateway))  # noqa: B023
                taken += send(gateway, 10)
                after = scrape(gateway)
                assert [(key, value) for key, value in before.items() if after.get(key, -1) < value] == []
                before = after
            assert wait_for(lambda: scrape(gateway)[relayed] >= taken)
            told = scrape(gateway)
            assert told["tripost_accepted_messages_total",] >= taken
            assert told["tripost_accept_seconds_count",] == told["tripost_accepted_messages_total",]
            assert told["tripost_process_cpu_seconds_total", "role=ingress"] > 0
            assert told["tripost_process_cpu_seconds_total", "role=supervisor"] > 0
    finally:
        sink.close()
