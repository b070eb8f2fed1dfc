"""/metrics of a real gateway: under mail, over 100,000 next hops"""

from __future__ import annotations

import pathlib
import smtplib
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from conftest import needs
from support.gateways import Running, running, wait_for
from tripost.gateway.monitor.metric_table import METRICS, MOST, OTHER
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.message import Envelope, Recipient
from tripost.queue.opening import open_queue
from tripost.queue.values import QueueSettings

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
MANY = 100_000


def scrape(gateway: Running, accept: str = "") -> tuple[str, str]:
    """(content type, body)."""
    request = urllib.request.Request(f"http://127.0.0.1:{gateway.monitor}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.headers["Content-Type"]), answer.read().decode()


def values(text: str) -> dict[tuple[str, ...], float]:
    """(sample, values of its labels in their alphabetical order…) → value."""
    found = [one for family in parse_text(text) for one in family.samples]
    return {(one.name, *[value for _, value in sorted(one.labels.items())]): one.value for one in found}


def send(gateway: Running, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        for _ in range(count):
            client.sendmail("fred@truc.fr", ["marc@machin.com"], b"Subject: x\r\n\r\nx\r\n")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("metrics")) as made:
        yield made


def test_counters_follow_the_mail(gateway: Running) -> None:
    before = values(scrape(gateway)[1])
    send(gateway, 20)
    wanted = "tripost_recipients_ended_total", "delivered"
    assert wait_for(lambda: values(scrape(gateway)[1])[wanted] == before[wanted] + 20)
    after = values(scrape(gateway)[1])
    for name in ("tripost_accepted_messages_total", "tripost_accepted_recipients_total"):
        assert after[name,] == before[name,] + 20
    for name in ("tripost_accept_seconds_count", "tripost_queue_time_seconds_count"):
        assert after[name,] == before[name,] + 20
    assert after["tripost_spool_commit_seconds_count",] >= before["tripost_spool_commit_seconds_count",] + 40
    assert after["tripost_connections_opened_total", "smtp"] == before["tripost_connections_opened_total", "smtp"] + 1
    assert after["tripost_queue_messages",] == 0
    assert after["tripost_ready",] == 1
    assert after["tripost_accepted_bytes_total",] > before["tripost_accepted_bytes_total",] + 20 * 15
    counters = {one.name for one in METRICS if one.kind == "counter"}
    assert [key for key, value in before.items() if key[0] in counters and after[key] < value] == []


def test_the_official_parser_and_promtool_take_it(gateway: Running) -> None:
    needs("promtool", "prometheus")
    kind, text = scrape(gateway)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert {family.name for family in parse_text(text)} == {one.name.removesuffix("_total") for one in METRICS}
    done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    kind, text = scrape(gateway, OPENMETRICS)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert {family.name for family in parse_openmetrics(text)} == {one.name.removesuffix("_total") for one in METRICS}


async def _fill(state: pathlib.Path) -> None:
    """100 messages to 1,000 next hops each, to be sent tomorrow."""
    clock, content = Clock(), b"Subject: x\r\n\r\nx\r\n"
    settings = QueueSettings(min_free=0)
    async with open_queue(str(state / "spool"), settings, clock=clock, bus=Bus(), reporter=lambda *_: None) as queue:
        now = clock.now()
        for number in range(MANY // 1000):
            hops = [f"mx:d{number}-{more}.example" for more in range(1000)]
            people = tuple(Recipient(one, f"a@{hop[3:]}", hop) for one, hop in enumerate(hops))
            body, tomorrow = queue.new_body(), now + 86400
            await body.write(content)
            await queue.accept(
                Envelope(queue.new_id(), "f@t", people, now, tomorrow + 9, len(content), release=tomorrow), body
            )


def test_a_hundred_thousand_next_hops_do_not_make_it_longer(gateway: Running, tmp_path: pathlib.Path) -> None:
    trio.run(_fill, tmp_path / "state")
    _, short = scrape(gateway)
    with running(tmp_path) as full:
        _, long = scrape(full)
    found = values(long)
    assert found["tripost_next_hops",] == MANY
    hops = {key[1]: value for key, value in found.items() if key[0] == "tripost_next_hop_deliveries"}
    assert len(hops) == MOST + 1
    assert hops[OTHER] == MANY - MOST
    assert len(long) < len(short) + MOST * 100
