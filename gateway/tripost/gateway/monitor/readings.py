"""what one scrape of /metrics has to tell, and which metric each figure is

`Readings` are gathered in Trio, in one go; `samples` turns them into the values of
metric_table's metrics, in any thread. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from tripost.gateway.monitor.metric_table import MOST, OTHER
from tripost.gateway.observe.counting import Counting
from tripost.gateway.observe.reader import ReaderStatistics
from tripost.queue.log import LogStatistics
from tripost.queue.tally import Histogram
from tripost.queue.values import QueueStatistics

Value = float | Histogram
Samples = dict[str, list[tuple[tuple[str, ...], Value]]]

OUTCOMES = ("relayed", "delivered", "discarded", "deleted", "reported", "suppressed")


class SiteReading(msgspec.Struct, frozen=True):
    name: str
    slots: int
    limit: int


class Machine(msgspec.Struct, frozen=True):
    """What the operating system says. `process`: of the one that answers, by its metric's name; `roles`: of all, as
    (role, how many, CPU seconds, resident octets, descriptors)."""

    log_files: int = 0
    log_octets: int = 0
    free_octets: int = 0
    free_inodes: int = 0
    certificates: dict[str, float] = {}  # file → end
    process: dict[str, float] = {}
    roles: list[tuple[str, int, float, int, int]] = []


class Readings(msgspec.Struct, kw_only=True):
    """`counting` is a copy. `next_hops`: the fullest, (name, deliveries); `deliveries`: of all; `sites`: the busiest.
    Limits are 0 for none. `connections`: of clients, by service."""

    version: str
    python: str
    began: float
    ready: bool
    stopping: bool
    counting: Counting
    queue: QueueStatistics
    log: LogStatistics
    last_commit: float
    readers: list[ReaderStatistics]
    clients: Mapping[str, int]
    clients_cut: int
    connections: Mapping[str, int]
    connections_limit: int
    messages_limit: int
    octets_limit: int
    min_free: int
    next_hops: list[tuple[str, int]]
    deliveries: int
    down: int
    suspended: int
    slots: int
    slots_limit: int
    sites: list[SiteReading]
    sites_known: int


def samples(now: Readings, machine: Machine) -> Samples:
    """Metric → (labels' values, value)."""
    return _gateway(now) | _in(now) | _queue(now) | _spool(now, machine) | _out(now) | _machine(machine)


def _one(value: Value) -> list[tuple[tuple[str, ...], Value]]:
    return [((), value)]


def _each(counts: Mapping[tuple[str, ...], int]) -> list[tuple[tuple[str, ...], Value]]:
    return [(labels, count) for labels, count in sorted(counts.items())]


def _plain(counts: Mapping[str, int]) -> list[tuple[tuple[str, ...], Value]]:
    return [((label,), count) for label, count in sorted(counts.items())]


def _top(named: Iterable[tuple[str, int]], total: int) -> list[tuple[tuple[str, ...], Value]]:
    """The sum of all is `total`."""
    rows = list(named)[:MOST]
    left = max(0, total - sum([count for _, count in rows]))
    return [*[((name,), count) for name, count in rows], ((OTHER,), left)]


def _gateway(now: Readings) -> Samples:
    return {
        "tripost_build_info": [((now.version, now.python), 1)],
        "tripost_start_time_seconds": _one(now.began),
        "tripost_ready": _one(now.ready),
        "tripost_stopping": _one(now.stopping),
        "tripost_events_total": _plain(now.counting.by_name()),
        "tripost_event_reader_taken_total": _plain({one.name: one.taken for one in now.readers}),
        "tripost_event_reader_dropped_total": _plain({one.name: one.dropped for one in now.readers}),
        "tripost_event_reader_waiting_bytes": _plain({one.name: one.waiting for one in now.readers}),
        "tripost_monitor_clients": _plain(now.clients),
        "tripost_monitor_clients_cut_total": _one(now.clients_cut),
        "tripost_actions_total": _each(now.counting.steered),
    }


def _in(now: Readings) -> Samples:
    counted = now.counting
    return {
        "tripost_accepted_messages_total": _one(counted.messages),
        "tripost_accepted_recipients_total": _one(now.queue.accepted),
        "tripost_accepted_bytes_total": _one(counted.octets),
        "tripost_accept_seconds": _one(counted.accepting),
        "tripost_connections": _plain(now.connections),
        "tripost_connections_limit": _one(now.connections_limit),
        "tripost_connections_opened_total": _each(counted.connected),
        "tripost_connections_secured_total": _each(counted.secured),
        "tripost_refusals_total": _each(counted.refused),
        "tripost_connections_shed_total": _each(counted.shed),
        "tripost_logins_total": _each(counted.logged_in),
        "tripost_login_failures_total": _each(counted.login_failed),
    }


def _queue(now: Readings) -> Samples:
    queue = now.queue
    return {
        "tripost_queue_messages": _one(queue.messages),
        "tripost_queue_messages_limit": _one(now.messages_limit),
        "tripost_queue_bytes": _one(queue.octets),
        "tripost_queue_limit_bytes": _one(now.octets_limit),
        "tripost_queue_recipients": _one(queue.queued),
        "tripost_queue_recipients_active": _one(queue.leased),
        "tripost_queue_recipients_recovered": _one(queue.recovered),
        "tripost_recipients_ended_total": [((one,), getattr(queue, one)) for one in OUTCOMES],
        "tripost_queue_time_seconds": _one(now.counting.age),
        "tripost_next_hops": _one(queue.hops),
        "tripost_next_hops_down": _one(now.down),
        "tripost_next_hops_suspended": _one(now.suspended),
        "tripost_next_hop_deliveries": _top(now.next_hops, now.deliveries),
    }


def _spool(now: Readings, machine: Machine) -> Samples:
    return {
        "tripost_spool_commit_seconds": _one(now.log.commits),
        "tripost_spool_syncs_total": _one(now.log.syncs),
        "tripost_spool_written_bytes_total": _one(now.log.octets),
        "tripost_spool_last_commit_timestamp_seconds": _one(now.last_commit),
        "tripost_spool_failed": _one(now.log.lost),
        "tripost_spool_segments": _one(machine.log_files),
        "tripost_spool_log_bytes": _one(machine.log_octets),
        "tripost_spool_free_bytes": _one(machine.free_octets),
        "tripost_spool_free_inodes": _one(machine.free_inodes),
        "tripost_spool_min_free_bytes": _one(now.min_free),
    }


def _out(now: Readings) -> Samples:
    counted = now.counting
    return {
        "tripost_delivery_attempts_total": _one(counted.attempts),
        "tripost_delivery_deferrals_total": _each(counted.deferred),
        "tripost_delivery_failures_total": _each(counted.failed),
        "tripost_delivery_seconds": _one(counted.transferring),
        "tripost_delivery_connect_seconds": _one(counted.connecting),
        "tripost_delivery_connections": _one(max(0, sum(counted.opened.values()) - counted.closed)),
        "tripost_delivery_connections_opened_total": _each(counted.opened),
        "tripost_delivery_connections_closed_total": _one(counted.closed),
        "tripost_delivery_transactions_total": _one(counted.transactions),
        "tripost_delivery_unreachable_total": _each(counted.unreachable),
        "tripost_delivery_backoffs_total": _one(counted.back_offs),
        "tripost_delivery_limited_total": _each(counted.limited),
        "tripost_delivery_slots": _one(now.slots),
        "tripost_delivery_slots_limit": _one(now.slots_limit),
        "tripost_sites": _one(now.sites_known),
        "tripost_site_slots": _top([(one.name, one.slots) for one in now.sites], now.slots),
        "tripost_site_slots_limit": [((one.name,), one.limit) for one in now.sites[:MOST]],
    }


def _machine(machine: Machine) -> Samples:
    soonest = sorted(machine.certificates.items(), key=lambda item: item[1])[:MOST]
    return {
        "tripost_tls_certificate_not_after_timestamp_seconds": [((path,), end) for path, end in soonest],
        "tripost_processes": [((role,), count) for role, count, *_ in machine.roles],
        "tripost_process_cpu_seconds_total": [((role,), cpu) for role, _, cpu, *_ in machine.roles],
        "tripost_process_resident_memory_bytes": [((role,), rss) for role, _, _, rss, _ in machine.roles],
        "tripost_process_open_fds": [((role,), fds) for role, *_, fds in machine.roles],
        **{name: _one(value) for name, value in machine.process.items()},
    }
