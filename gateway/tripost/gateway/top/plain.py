"""one line a tick, where nobody watches a screen. Pure."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from tripost.gateway.top.words import brief, clean, octets, rate

FLOWS = ("accepted", "relayed", "delivered", "deferred", "failed")
KEPT = (
    *("time", "seq", "state", "ready", "reason", "up", "queue"),
    *("rates", "latency", "connections", "states", "hops_total"),
)


def line(state: dict[str, Any], now: float) -> str:
    """For people and for `grep`."""
    rates, queue, links = state["rates"], state["queue"], state["connections"]
    clock = datetime.datetime.fromtimestamp(now).strftime("%H:%M:%S")
    parts = [clock, state["state"] if state["ready"] else "not-ready"]
    parts += [f"{name}={rate(rates[name]['s1'])}/s" for name in FLOWS]
    for name in ("accept", "deliver"):
        parts.append(f"{name}-p99={brief(state['latency'][name]['p99'])}")
    parts += [f"queued={queue['queued']}", f"octets={octets(queue['octets']).replace(' ', '')}"]
    parts += [f"in={sum(links['in'].values())}", f"out={links['out']}", f"next-hops={state['hops_total']}"]
    fullest = max(state["hops"].items(), key=lambda item: item[1]["deliveries"], default=None)
    if fullest is not None:
        parts.append(f"fullest={clean(fullest[0])}:{fullest[1]['deliveries']}:{fullest[1]['state']}")
    return " ".join(parts)


def row(state: dict[str, Any]) -> bytes:
    """The same for programs: one object."""
    made = {name: state[name] for name in KEPT if name in state}
    fullest = sorted(state["hops"].items(), key=lambda item: -item[1]["deliveries"])[:10]
    made["hops"] = [{"next_hop": name} | one for name, one in fullest]
    return msgspec.json.encode(made)
