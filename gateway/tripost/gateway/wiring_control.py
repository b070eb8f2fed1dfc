"""from the running parts to state/control.sock"""

from __future__ import annotations

import importlib.metadata
import os
from functools import partial
from typing import Any

import msgspec

from tripost.delivery.classify import classify
from tripost.delivery.dispatcher import Dispatcher
from tripost.delivery.routing import Router
from tripost.delivery.targets import next_hop_for, parse
from tripost.gateway.control.action_verbs import ActionVerbs
from tripost.gateway.control.ended import ended
from tripost.gateway.control.explain import Binding
from tripost.gateway.control.history_verbs import HistoryVerbs
from tripost.gateway.control.life_verbs import LifeVerbs
from tripost.gateway.control.queue_verbs import QueueVerbs
from tripost.gateway.control.route_verb import RouteVerb
from tripost.gateway.control.server import ControlServer, Upload, Verb
from tripost.gateway.control.trace_verb import TraceVerb
from tripost.gateway.control.transfer_verbs import TransferVerbs
from tripost.gateway.observe.history import History
from tripost.gateway.observe.observer import Observer
from tripost.gateway.overload import Sheds
from tripost.gateway.room import shortage
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.errors import SpoolUnsure
from tripost.queue.manager import Queue
from tripost.queue.planning import Way


def make_control(
    life: LifeVerbs,
    queue: Queue,
    dispatcher: Dispatcher,
    router: Router,
    bus: Bus,
    clock: Clock,
    addresses: dict[str, list[str]],
    observer: Observer,
    history: History,
    sheds: Sheds,
) -> ControlServer:
    began, config = clock.now(), life.config

    def binding(next_hop: str) -> Binding | None:
        found = dispatcher.bound(next_hop)
        return Binding(site=found[0], by=found[1], wait=found[2]) if found is not None else None

    def describe() -> dict[str, Any]:
        return {
            **_readiness(life.phase(), queue, shortage(life.config) or life.trouble()),
            "hostname": config.hostname,
            **_image(bus, life),
            "up": round(clock.now() - began, 1),
            "listeners": addresses,
            "shed": {"connections": sheds.connections, "wait": sheds.wait, "now": sheds.now(clock.now())},
            "events": msgspec.to_builtins(observer.statistics()),
        }

    def way(to: str) -> Way:
        if to == "config":
            return lambda one, sender: router.route(one.address, sender).next_hop
        if "?" in to:  # a next hop with its options, as queue summary tells it
            parse(to)  # raises ValueError
            return lambda one, sender: to
        next_hop_for(to, "example.com")  # raises ValueError
        return lambda one, sender: next_hop_for(to, one.address.rpartition("@")[2])

    queue.search.site_of = dispatcher.site_of
    queue.search.class_of = lambda reply: classify(reply).name
    verbs: dict[str, Verb | Upload] = {
        **QueueVerbs(queue, clock, binding, dispatcher.site_of, describe, partial(ended, history)).verbs,
        **ActionVerbs(queue, bus, clock, way=way, sites=dispatcher, grace=lambda: life.config.admin.grace).verbs,
        **TransferVerbs(queue, bus, clock, router, lambda: life.config.retry.warn or 3600.0).verbs,
        **HistoryVerbs(history).verbs,
        **TraceVerb(bus.tracing).verbs,
        **RouteVerb(router).verbs,
        **life.verbs,
    }
    return ControlServer(os.path.join(config.state, "control.sock"), config.admin.group, verbs, bus, clock)


def _image(bus: Bus, life: LifeVerbs) -> dict[str, Any]:
    """`boot`: another number after each start and restart."""
    return {
        "version": importlib.metadata.version("tripost"),
        "pid": os.getpid(),
        "boot": bus.first,
        **life.configuration(),
    }


def _readiness(phase: str, queue: Queue, trouble: str) -> dict[str, Any]:
    """Should mail be sent here?"""
    why = trouble if phase == "serving" else phase
    if not queue.accepting:
        why = SpoolUnsure.text
    return {"state": phase, "ready": not why, "why": why}
