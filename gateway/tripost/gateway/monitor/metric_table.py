"""every metric that /metrics tells: name, type, labels, meaning

The one list: the exposition is made from it, and so is docs/metrics.md. Names and
units are those of Prometheus' conventions: seconds, octets ("bytes"), `_total` for
what only grows. Pure.

Bounds   every label has a closed set of values, but `next_hop` and `site`, of which the
         MOST fullest are named and all others are one, `other`; and `certificate`, of
         which the MOST that end first are named.
"""

from __future__ import annotations

from typing import Literal

import msgspec

MOST = 20
OTHER = "other"
Kind = Literal["counter", "gauge", "histogram"]


class Metric(msgspec.Struct, frozen=True):
    """`labels`: their names, in the order of a sample's values."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def _c(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, "counter", help, labels)


def _g(name: str, help: str, *labels: str) -> Metric:
    return Metric(name, "gauge", help, labels)


def _h(name: str, help: str) -> Metric:
    return Metric(name, "histogram", help)


GROUPS: dict[str, tuple[Metric, ...]] = {
    "The gateway": (
        _g("tripost_build_info", "Always 1; which version runs, on which Python.", "version", "python"),
        _g("tripost_start_time_seconds", "When the gateway began to serve, seconds since 1970."),
        _g("tripost_ready", "1 while mail is taken, as /readyz has it, else 0."),
        _g("tripost_stopping", "1 once the gateway has been asked to stop, else 0."),
        _c("tripost_events_total", "Events by kind; docs/events.md describes each.", "event"),
        _c("tripost_event_reader_taken_total", "Events that a reader (log, history) has stored.", "reader"),
        _c("tripost_event_reader_dropped_total", "Events that a reader did not get, or could not store.", "reader"),
        _g("tripost_event_reader_waiting_bytes", "Octets of events that a reader has not stored yet.", "reader"),
        _g("tripost_monitor_clients", "Websockets of the monitor that are open.", "kind"),
        _c("tripost_monitor_clients_cut_total", "Websockets that were cut because they did not read."),
        _c("tripost_actions_total", "What operators did: hold, release, retry, suspend and so on.", "action"),
    ),
    "Mail in": (
        _c("tripost_accepted_messages_total", "Messages accepted: on stable storage, and ours."),
        _c("tripost_accepted_recipients_total", "Recipients of accepted messages."),
        _c("tripost_accepted_bytes_total", "Octets of accepted messages."),
        _h("tripost_accept_seconds", "From the end of a message's content until it is on stable storage."),
        _g("tripost_connections", "Connections of clients that are open.", "service"),
        _g("tripost_connections_limit", "How many may be open in all: [limits] connections."),
        _c("tripost_connections_opened_total", "Clients that came.", "service"),
        _c("tripost_connections_secured_total", "Clients whose connection became encrypted.", "service", "tls"),
        _c("tripost_refusals_total", "Clients or commands that were refused, by phase.", "service", "phase"),
        _c("tripost_connections_shed_total", "Connections that overload told to come again: [limits] lag.", "service"),
        _c("tripost_logins_total", "Clients that logged in.", "service"),
        _c("tripost_login_failures_total", "Logins that failed, and why.", "service", "reason"),
    ),
    "The queue": (
        _g("tripost_queue_messages", "Messages that are queued."),
        _g("tripost_queue_messages_limit", "How many may be queued: [spool] messages; 0 for no limit."),
        _g("tripost_queue_bytes", "Octets of queued messages."),
        _g("tripost_queue_limit_bytes", "How many may be queued: [spool] bytes; 0 for no limit."),
        _g("tripost_queue_recipients", "Recipients that are queued."),
        _g("tripost_queue_recipients_active", "Recipients whose delivery is under way."),
        _g("tripost_queue_recipients_recovered", "Recipients that the start found in the spool."),
        _c("tripost_recipients_ended_total", "Recipients that are queued no more, and what became of them.", "outcome"),
        _h("tripost_queue_time_seconds", "How old a message was when a recipient was relayed, delivered or given up."),
        _g("tripost_next_hops", "Next hops for which mail is queued, or that are remembered."),
        _g("tripost_next_hops_down", "Next hops that could not be spoken to, and wait for their probe."),
        _g("tripost_next_hops_suspended", "Next hops that an operator has suspended."),
        _g(
            "tripost_next_hop_deliveries",
            f"Deliveries that are queued for the {MOST} fullest next hops, and for all others.",
            "next_hop",
        ),
    ),
    "The spool": (
        _h("tripost_spool_commit_seconds", "From handing a record to the log until it is on stable storage."),
        _c("tripost_spool_syncs_total", "Syncs that made records durable; many records share one."),
        _c("tripost_spool_written_bytes_total", "Octets of records written."),
        _g("tripost_spool_last_commit_timestamp_seconds", "When a record was last made durable; 0 for never."),
        _g("tripost_spool_failed", "1 while the disk takes nothing, else 0."),
        _g("tripost_spool_segments", "Files of the log."),
        _g("tripost_spool_log_bytes", "Octets of the disk that the log uses."),
        _g("tripost_spool_free_bytes", "Octets that are free where the spool is."),
        _g("tripost_spool_free_inodes", "Inodes that are free where the spool is."),
        _g("tripost_spool_min_free_bytes", "Below so many free octets no mail is taken: [spool] min_free."),
    ),
    "Mail out": (
        _c("tripost_delivery_attempts_total", "Attempts to deliver a message at a host."),
        _c("tripost_delivery_deferrals_total", "Recipients put off, by what the reply means.", "class"),
        _c("tripost_delivery_failures_total", "Recipients given up, by what the reply means.", "class"),
        _h("tripost_delivery_seconds", "How long a transaction with a host took that relayed a recipient."),
        _h("tripost_delivery_connect_seconds", "From opening a connection until it can be used: TCP, greeting, TLS."),
        _g("tripost_delivery_connections", "Connections of ours that are open and greeted."),
        _c("tripost_delivery_connections_opened_total", "Connections of ours that were greeted.", "tls"),
        _c("tripost_delivery_connections_closed_total", "Connections of ours that are over."),
        _c("tripost_delivery_transactions_total", "Transactions over the connections that are over."),
        _c("tripost_delivery_unreachable_total", "Hosts that could not be spoken to, by phase.", "phase"),
        _c("tripost_delivery_backoffs_total", "Back-offs of next hops that could not be spoken to."),
        _c("tripost_delivery_limited_total", "How often a limit began to hold a site back.", "limit"),
        _g("tripost_delivery_slots", "Slots for connections of ours that are in use."),
        _g("tripost_delivery_slots_limit", "How many there are: [delivery] max_connections."),
        _g("tripost_sites", "Sites that are remembered."),
        _g("tripost_site_slots", f"Slots used by the {MOST} busiest sites, and by all others.", "site"),
        _g("tripost_site_slots_limit", f"How many each of the {MOST} busiest sites may use now.", "site"),
    ),
    "The machine": (
        _g(
            "tripost_tls_certificate_not_after_timestamp_seconds",
            f"When a certificate ends, of the {MOST} that end first.",
            "certificate",
        ),
        _g("tripost_processes", "Processes of the gateway that run.", "role"),
        _c("tripost_process_cpu_seconds_total", "Processor time of the gateway's processes, ended ones too.", "role"),
        _g("tripost_process_resident_memory_bytes", "Memory in use by the gateway's processes.", "role"),
        _g("tripost_process_open_fds", "Descriptors that the gateway's processes have open.", "role"),
        _c("process_cpu_seconds_total", "Processor time of the process that answers."),
        _g("process_resident_memory_bytes", "Memory in use by the process that answers."),
        _g("process_virtual_memory_bytes", "Address space of the process that answers."),
        _g("process_open_fds", "Descriptors that the process that answers has open."),
        _g("process_max_fds", "How many it may have open."),
        _g("process_start_time_seconds", "When the process that answers was started, seconds since 1970."),
    ),
}
METRICS: tuple[Metric, ...] = tuple(metric for group in GROUPS.values() for metric in group)

_HEAD = """\
# Metrics

`GET /metrics` of the monitor ([monitor.md](monitor.md)) tells all of these in the text format of Prometheus, or as
OpenMetrics to whom asks for that. Counters begin at 0 with the gateway, and go on when one of its workers is started
anew. The sets of labels are closed, and a scrape does not grow with the number of destinations: of next hops, sites and
certificates {most} are named. Times are seconds, sizes octets. With several processes commits, syncs and octets written
are those of the manager's log; ingress processes have their own, whose commits are part of `tripost_accept_seconds`.

This page is made from the code: `deploy/uv run python -m tripost.gateway.monitor.metric_table > docs/metrics.md`.
"""


def markdown() -> str:
    """docs/metrics.md."""
    parts = [_HEAD.format(most=MOST)]
    for group, metrics in GROUPS.items():
        rows = [
            f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
            for one in metrics
        ]
        head = [f"## {group}\n", "| metric | type | labels | |", "| --- | --- | --- | --- |"]
        parts.append("\n".join([*head, *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    print(markdown(), end="")
