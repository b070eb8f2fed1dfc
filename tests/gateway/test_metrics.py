"""/metrics: what a scrape tells, and that others can read it"""

from __future__ import annotations

import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.lowlevel
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from conftest import needs
from tripost.gateway.monitor.machine import Watcher, family
from tripost.gateway.monitor.metric_table import METRICS, MOST, OTHER, markdown
from tripost.gateway.monitor.metrics import Metrics, render
from tripost.gateway.monitor.readings import Machine, Readings, SiteReading, samples
from tripost.gateway.observe.counting import Counting
from tripost.gateway.observe.reader import ReaderStatistics, by_kind
from tripost.gateway.tls import self_signed
from tripost.queue import events
from tripost.queue.log import LogStatistics
from tripost.queue.message import Transfer
from tripost.queue.tally import Histogram
from tripost.queue.values import QueueStatistics

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
HOSTILE = 'x"}\n# TYPE forged counter\\ü\u2028.example'


def counted() -> Counting:
    """After one event of each kind that is counted in more than one way."""
    counting, smtp = Counting(), {"service": "smtp", "client": "192.0.2.1"}
    one = {"id": "I", "recipient_id": 0, "recipient": "a@x", "next_hop": "mx:x", "host": "mx.x", "attempt": 1}
    transfer = Transfer("192.0.2.9", mail=0.01, data=0.02, dot=0.03)
    some: tuple[events.Event, ...] = (
        events.Accepted(time=1.0, id="I", sender="", recipients=["a@x"], size=100, client="192.0.2.1", seconds=0.004),
        events.Attempted(time=1.0, id="I", next_hop="mx:x", host="mx.x", attempt=1, recipients=1),
        events.Relayed(time=1.0, reply="250 ok", transfer=transfer, age=2.0, **one),
        events.DeferredUntil(time=1.0, reply="450 4.2.2 mailbox full", due=2.0, delay=1.0, **one),
        events.Bounced(time=1.0, reply="550 5.1.1 no such user", report="", age=9.0, **one),
        events.Connected(time=1.0, **smtp),
        events.Secured(time=1.0, version="TLSv1.3", cipher="c", **smtp),
        events.Refused(time=1.0, phase="rcpt", reply="550 no", **smtp),
        events.Refused(time=1.0, phase="phase that nobody knows", reply="550 no", **smtp),
        events.Shed(time=1.0, service="smtp", connections=40, wait=0.3, state="begins"),
        events.Shed(time=2.0, service="smtp", connections=2, wait=0.2, state="goes on"),
        events.LoginFailed(time=1.0, reason="credentials", **smtp),
        events.Opened(time=1.0, site="s", host="h", address="192.0.2.9", tls="", open=1, limit=2, connect=0.05),
        events.Unreachable(time=1.0, id="I", site="s", host="h", phase="connect", reply="no", open=0),
        events.Limited(time=1.0, site="s", by="rate"),
        events.Steered(time=1.0, who="me", action="hold", what="{}", changed=1),
    )
    counting.take(by_kind(some))
    return counting


def readings(next_hops: int = 3, sites: int = 3) -> Readings:
    hops = [(f"mx:{number}.{HOSTILE}", next_hops - number) for number in range(next_hops)]
    return Readings(
        version="0.1.0",
        python="3.11",
        began=1_800_000_000.0,
        ready=True,
        stopping=False,
        counting=counted(),
        queue=QueueStatistics(**dict.fromkeys(QueueStatistics.__struct_fields__, 7)),
        log=LogStatistics(Histogram(), 5, 1000, -math.inf, False),
        last_commit=0.0,
        readers=[ReaderStatistics("log", 10, 2, 3, "")],
        clients={"live": 1, "events": 0},
        clients_cut=0,
        connections={"smtp": 2},
        connections_limit=10,
        messages_limit=0,
        octets_limit=0,
        min_free=1,
        next_hops=hops,
        deliveries=sum([count for _, count in hops]) + 5,
        down=1,
        suspended=0,
        slots=sites,
        slots_limit=10,
        sites=[SiteReading(f"site{number}", 1, 2) for number in range(sites)],
        sites_known=sites,
    )


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "1.seg").write_bytes(b"x" * 5000)
    pair = self_signed(str(tmp_path / "tls"), "smtp.machin.com")
    return Watcher(str(tmp_path), [pair.certificate, str(tmp_path / "none")]).look()


def values(families: Iterator[Family]) -> dict[tuple[str, ...], float]:
    """(metric's sample, values of its labels in their alphabetical order…) → value."""
    found = [one for family in families for one in family.samples]
    return {(one.name, *[value for _, value in sorted(one.labels.items())]): one.value for one in found}


def test_the_document_is_as_the_code_has_it() -> None:
    again = "deploy/uv run python -m tripost.gateway.monitor.metric_table > docs/metrics.md"
    assert (DOCS / "metrics.md").read_text() == markdown(), again


def test_a_scrape_has_every_metric_of_the_table_with_its_labels(machine: Machine) -> None:
    found = samples(readings(), machine)
    assert set(found) == {one.name for one in METRICS}
    assert len({one.name for one in METRICS}) == len(METRICS)
    for metric in METRICS:
        for labels, value in found[metric.name]:
            assert len(labels) == len(metric.labels), metric.name
            assert isinstance(value, Histogram) == (metric.kind == "histogram"), metric.name


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_the_official_parser_reads_it(accept: str, parse: Callable[[str], Iterator[Family]], machine: Machine) -> None:
    kind, body = render(samples(readings(), machine), accept)
    assert kind.startswith("application/openmetrics-text" if accept else "text/plain; version=0.0.4")
    found = values(parse(body.decode()))
    assert found["tripost_accepted_messages_total",] == 1
    assert found["tripost_recipients_ended_total", "relayed"] == 7
    assert found["tripost_refusals_total", "rcpt", "smtp"] == 1
    assert found["tripost_refusals_total", OTHER, "smtp"] == 1, "words that nobody knows are one"
    assert found["tripost_connections_shed_total", "smtp"] == 42
    assert found["tripost_delivery_deferrals_total", "full"] == 1
    assert found["tripost_delivery_failures_total", "no-user"] == 1
    assert found["tripost_accept_seconds_bucket", "0.005"] == 1
    assert found["tripost_accept_seconds_bucket", "0.002"] == 0
    assert found["tripost_queue_time_seconds_sum",] == 11.0
    assert found["tripost_delivery_seconds_sum",] == pytest.approx(0.06)
    assert found["tripost_next_hop_deliveries", f"mx:0.{HOSTILE}"] == 3, "a name is a label, whatever it holds"
    assert not [one for one in found if one[0].startswith("forged")]
    ends = [value for name, value in found.items() if name[0].startswith("tripost_tls_cert")]
    assert 390 * 86400 < ends[0] - time.time() < 400 * 86400
    assert found["tripost_spool_log_bytes",] >= 5000
    assert found["process_open_fds",] > 3
    assert abs(found["process_start_time_seconds",] - time.time()) < 3600 * 24


def test_promtool_finds_nothing_to_blame(machine: Machine) -> None:
    needs("promtool", "prometheus")
    _, body = render(samples(readings(), machine))
    done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_scrape_does_not_grow_with_the_destinations(machine: Machine) -> None:
    few, many = [render(samples(readings(count, count), machine))[1] for count in (MOST, 100_000)]
    assert len(many) < len(few) * 1.05
    found = values(parse_text(many.decode()))
    named = [value for name, value in found.items() if name[0] == "tripost_next_hop_deliveries"]
    assert len(named) == MOST + 1
    assert sum(named) == 100_000 * 100_001 / 2 + 5, "the sum is that of all"
    assert sum(value for name, value in found.items() if name[0] == "tripost_site_slots") == 100_000


def test_the_time_of_a_worker_that_ended_goes_on_counting(tmp_path: pathlib.Path) -> None:
    roles = {os.getpid(): "manager"}
    watcher = Watcher(str(tmp_path), [], lambda: roles)
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ntime.sleep(60)"

    def worker() -> subprocess.Popen[bytes]:
        one = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE)
        assert one.stdout is not None
        one.stdout.readline()
        return one

    def end(one: subprocess.Popen[bytes]) -> None:
        one.send_signal(signal.SIGKILL)
        one.wait()
        assert one.stdout is not None
        one.stdout.close()

    def looked() -> dict[str, tuple[int, float]]:
        return {role: (count, cpu) for role, count, cpu, *_ in watcher.look().roles}

    first = worker()
    roles[first.pid] = "ingress"
    try:
        before = looked()["ingress"][1]
    finally:
        end(first)
    assert before >= 0.2, "the system counts in hundredths"
    del roles[first.pid]
    assert looked()["ingress"] == (0, before)
    second = worker()
    roles[second.pid] = "ingress"
    try:
        after = looked()["ingress"]
    finally:
        end(second)
    assert after[0] == 1
    assert after[1] >= before + 0.2


def test_a_process_alone_is_the_gateway() -> None:
    assert family() == {os.getpid(): "gateway"}


async def test_scrapes_that_come_together_share_one_look(tmp_path: pathlib.Path) -> None:
    looks = 0

    async def read() -> Readings:
        nonlocal looks
        looks += 1
        await trio.lowlevel.checkpoint()
        return readings()

    metrics = Metrics(read, Watcher(str(tmp_path), []))
    found: list[bytes] = []

    async def scrape() -> None:
        found.append((await metrics.text())[1])

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(scrape)
    assert looks == 1
    assert len(found) == 50
    assert len(set(found)) == 1


def test_a_copy_of_counts_stays_as_it_was() -> None:
    counting = counted()
    kept = counting.copy()
    other = events.Accepted(time=1.0, id="J", sender="", recipients=[], size=1, client="c", seconds=0.1)
    counting.take(by_kind([other]))
    assert (kept.messages, kept.accepting.count, kept.by_name()["accepted"]) == (1, 1, 1)
    assert (counting.messages, counting.accepting.count, counting.by_name()["accepted"]) == (2, 2, 2)
    assert kept.by_name()["backoff"] == 0, "kinds that did not happen are told too"
