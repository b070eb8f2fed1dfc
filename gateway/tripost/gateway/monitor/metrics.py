"""/metrics: readings in Prometheus' words

Readings are gathered in Trio, where the counters live; rendering, which takes
milliseconds, and the operating system are left to a thread. One scrape at a time;
whoever comes within FRESH of the last one gets the same text.

Promise  a scrape keeps mail waiting for less than a millisecond, whatever is queued, and
         its size has a bound (see metric_table). prometheus_client is imported by the
         first scrape.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable

import trio

from tripost.gateway.monitor.machine import Watcher
from tripost.gateway.monitor.metric_table import METRICS, Metric
from tripost.gateway.monitor.readings import Readings, Samples, samples
from tripost.queue.tally import Histogram

FRESH = 0.5  # seconds


class Metrics:
    """`read()` gathers."""

    def __init__(self, read: Callable[[], Awaitable[Readings]], watcher: Watcher) -> None:
        self._read = read
        self._watcher = watcher
        self._turn = trio.Lock()
        self._made_at = -math.inf
        self._found: Samples = {}

    async def text(self, accept: str = "") -> tuple[str, bytes]:
        """(content type, body) in the form that an Accept field asks for."""
        async with self._turn:
            if trio.current_time() - self._made_at > FRESH:
                now = await self._read()
                self._found = await trio.to_thread.run_sync(lambda: samples(now, self._watcher.look()))
                self._made_at = trio.current_time()
            found = self._found
            return await trio.to_thread.run_sync(lambda: render(found, accept))


def render(found: Samples, accept: str = "") -> tuple[str, bytes]:
    """(content type, body)."""
    from prometheus_client.exposition import choose_encoder

    class Found:
        """A collector of what was found."""

        def collect(self) -> Iterable[object]:
            return [family(metric, found) for metric in METRICS if metric.name in found]

    encode, kind = choose_encoder(accept)
    return kind, encode(Found())  # type: ignore[arg-type]  # pyright: ignore


def family(metric: Metric, found: Samples) -> object:
    """A metric and its samples, as prometheus_client has them."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if metric.kind == "histogram":
        made = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in found[metric.name]:
            assert isinstance(value, Histogram)
            made.add_metric(labels, buckets(value), value.total)
        return made
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    plain = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in found[metric.name]:
        assert not isinstance(value, Histogram)
        plain.add_metric(labels, float(value))
    return plain


def buckets(one: Histogram) -> list[tuple[str, float]]:
    """(upper bound, how many are at most that), the last one of all."""
    rows: list[tuple[str, float]] = []
    seen = 0
    for bound, count in zip([*one.bounds, math.inf], one.counts, strict=True):
        seen += count
        rows.append(("+Inf" if bound == math.inf else repr(float(bound)), seen))
    return rows
