"""from the running parts to one picture of them

`Painter.paint` is synchronous and costs what is shown, never what is queued: which
next hops are the fullest, and how old what waits for them is, comes from looks that
`watch` takes at its own pace.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import islice

import msgspec
import trio

from tripost.delivery.settings import Rate
from tripost.delivery.site import Said, Site
from tripost.gateway.control.explain import LIMITS
from tripost.gateway.monitor import feed
from tripost.gateway.monitor.feed import SHOWN, Action, Hop, Picture, States, Suspension
from tripost.gateway.monitor.figures import Figures
from tripost.gateway.monitor.provider import Sources
from tripost.queue import actions
from tripost.queue.depths import Depth, Sampled
from tripost.queue.finding import DOWN, READY, SUSPENDED

EASE = 24.0  # seconds of rest for each second of looking: 4 % of a core
AT_LEAST = 1.0  # seconds between two looks
SUSPENSIONS = 50


class Painter:
    """`sampled` is the last look at every delivery."""

    def __init__(self, sources: Sources, figures: Figures) -> None:
        self._from = sources
        self._figures = figures
        self._full: list[str] = []
        self._busy: list[str] = []
        self._actions: list[Action] = []
        self._said: dict[str, Said] = {}
        self._steered = -1
        self.sampled = Sampled(0.0, 0.0, Depth(), {}, {})

    async def watch(self) -> None:
        """Look which next hops are the fullest, and how old what is queued is. Until cancelled."""
        depths = self._from.queue.search.depths
        while True:
            self._full = await depths.fullest(SHOWN, EASE)
            self.sampled = await depths.sample(self._full, EASE)
            await trio.sleep(AT_LEAST)

    def second(self) -> None:
        """Choose the sites to show, and look for what operators did."""
        sites = self._from.dispatcher.sites
        used = heapq.nlargest(SHOWN, [(one.workers, one.open, name) for name, one in sites.items() if not one.unused])
        self._busy = [name for *_, name in used]
        if self._steered != self._figures.steered:
            self._steered = self._figures.steered
            known = self._from.queue.edit.actions()
            self._actions = [self._action(id, known[id]) for id in islice(reversed(known), feed.RECENT)]
            self._said = self._from.dispatcher.limits()

    def paint(self, clients: feed.Clients) -> Picture:
        known, figures, now = self._from, self._figures, self._from.now()
        unready = known.unready()
        statistics = known.observer.statistics()
        hops = self._hops(now)
        sites = self._sites(now)
        return Picture(
            time=round(now, 3),
            seq=known.bus.number,
            boot=known.boot,
            hostname=known.hostname,
            version=known.version,
            up=round(now - known.began, 1),
            state="draining" if known.draining.begun else "serving",
            ready=not unready,
            reason=unready,
            accepting=known.queue.accepting,
            clients=clients,
            queue=known.queue.statistics(),
            rates=figures.rates(),
            latency=feed.Latency(figures.accept.quantiles(), figures.deliver.quantiles()),
            connections=figures.connections(known.connections()),
            hops=hops,
            hops_total=known.queue.statistics().hops,
            sites=sites,
            sites_total=len(known.dispatcher.sites),
            states=self._states(hops),
            sampled=round(self.sampled.time, 1),
            failures=figures.failures(now),
            suspensions=self._suspensions(),
            suspensions_total=len(known.queue.suspensions) + len(known.queue.pauses.known),
            actions=[
                one if one.can_be_undone == _can(one, now) else msgspec.structs.replace(one, can_be_undone=False)
                for one in self._actions
            ],
            trouble=list(figures.trouble),
            dropped={one.name: one.dropped for one in statistics.readers},
        )

    # --- next hops ---

    def _hops(self, now: float) -> dict[str, Hop]:
        suspended = islice((hop for hop in self._from.queue.suspensions if hop not in self._full), SHOWN)
        found: dict[str, Hop] = {}
        for name in [*self._full, *suspended]:
            count = self._from.queue.search.depths.count(name)
            if count or name in self._from.queue.suspensions:
                found[name] = self._hop(name, count, now)
        return found

    def _hop(self, name: str, count: int, now: float) -> Hop:
        queue, dispatcher = self._from.queue, self._from.dispatcher
        depth = self.sampled.hops.get(name) or Depth()
        state, by, wait, why, until = READY, "", 0.0, "", 0.0
        site = dispatcher.site_of(name)
        last, down_until = queue.down(name)
        suspension = queue.suspensions.get(name)
        if suspension is not None and not 0.0 < suspension.until <= now:
            state = by = SUSPENDED
            until, why = suspension.until, suspension.reason
        elif last:
            state = by = DOWN
            until, why = down_until, last
            wait = max(0.0, until - now)
        elif (bound := dispatcher.bound(name)) is not None:
            where, by, wait = bound
            why = LIMITS.get(by, "{site}: " + by).format(site=where)
        reply, reply_at = self._figures.replies.get(name, ("", 0.0))
        return Hop(
            site=site,
            state=state,
            deliveries=count,
            recipients=depth.recipients,
            octets=depth.octets,
            oldest=round(max(0.0, depth.oldest)),
            next_due=round(depth.next_due),
            ages=depth.ages,
            by=by,
            wait=round(wait, 1),
            why=why,
            until=round(until, 1),
            failures=self._figures.failures_of.get(name, 0) if last else 0,
            rate=self._figures.rate(name),
            reply=reply,
            reply_at=round(reply_at, 1),
        )

    def _states(self, hops: Mapping[str, Hop]) -> States:
        """What waits for next hops that are down or suspended is known of those that are shown."""
        told, total = self.sampled.states, self.sampled.total.deliveries
        known = {name: told.get(name, 0) for name in ("deferred", "held", "suspended", "active", "ending")}
        ready = max(0, total - sum(known.values()))
        for hop in hops.values():
            if hop.state != READY:
                some = min(ready, hop.deliveries)
                known[hop.state] = known.get(hop.state, 0) + some
                ready -= some
        return States(ready=ready, **known)

    # --- sites ---

    def _sites(self, now: float) -> dict[str, feed.Site]:
        sites = self._from.dispatcher.sites
        return {name: self._site(one, now) for name in self._busy if (one := sites.get(name)) is not None}

    def _site(self, one: Site, now: float) -> feed.Site:
        by, wait = one.binding(now, bool(one.open))
        by = by or (one.room() if one.hops else "")
        reply, reply_at = self._figures.site_replies.get(one.name, ("", 0.0))
        said = self._said.get(one.name)
        return feed.Site(
            open=one.open,
            workers=one.workers + one.extras,
            limit=one.limit,
            window=one.window.state,
            connections=one.terms.connections,
            rate=_rate(one.terms.rate),
            connection_rate=_rate(one.terms.connection_rate),
            by=by,
            wait=round(wait, 1),
            why=LIMITS.get(by, "").format(site=one.name),
            rest=round(one.rest, 1) if one.rest > now else 0.0,
            reply=reply,
            reply_at=round(reply_at, 1),
            hops=len(one.hops),
            said=said.who if said is not None else "",
        )

    # --- operators ---

    def _suspensions(self) -> list[Suspension]:
        queue = self._from.queue
        hops = islice(queue.suspensions.items(), SUSPENSIONS)
        found = [Suspension("destination", hop, one.until, one.reason) for hop, one in hops]
        rest = islice(queue.pauses.known.items(), SUSPENSIONS - len(found))
        return found + [Suspension(kind, what, one.until, one.reason) for (kind, what), one in rest]

    def _action(self, id: str, one: actions.Kept) -> Action:
        known = {name: getattr(one, name) for name in Action.__struct_fields__ if hasattr(one, name)}
        made = Action(action=id, can_be_undone=True, **known)
        return msgspec.structs.replace(made, can_be_undone=_can(made, self._from.now()))


def _can(one: Action, now: float) -> bool:
    return one.state in (actions.APPLIED, actions.PENDING) and now < one.until


def _rate(rate: Rate) -> str:
    return f"{rate.count}/{rate.seconds:g}s" if rate.count else ""
