"""address → route

The hot path of every RCPT: dictionary look-ups, no I/O of its own, a million
rules as fast as ten. What is known of a domain is put together when it is first
seen, and kept (CACHE of them) unless rules ask who sends.

Local addresses are looked up as they came, in lower case, and without their
+detail; each time first among the aliases, then among the users. What nothing
fits goes to the domain's catch-all. An alias may name others, and itself: there
it is the user of that name.

States   what a route's next hop says is in tripost.delivery.targets; the
         schedule is keyed by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from tripost.delivery.rules import RouteRule, Rules
from tripost.delivery.wire.addresses import split

CACHE = 16_384  # domains
_NO_ALIAS: frozenset[str] = frozenset()


class Route(msgspec.Struct, frozen=True):
    """`also`: the others that an alias stands for. `via`: the alias that forwards this to another host."""

    next_hop: str
    address: str
    also: tuple[Route, ...] = ()
    via: str = ""

    @property
    def all(self) -> tuple[Route, ...]:
        return (self, *self.also)


class Refusal(msgspec.Struct, frozen=True):
    """Why not; a reply's parts."""

    code: int
    enhanced: str
    text: str


class _Way(msgspec.Struct, frozen=True):
    """All that is to be known of a domain: in lower case, ours, anyone's to relay to, what its rule says."""

    domain: str
    local: bool
    relayed: bool
    to: str  # "" without a rule
    next_hop: str


_NO_RELAY = Refusal(550, "5.7.1", "this server does not relay there for you")
_REJECTED = Refusal(550, "5.7.1", "mail to this domain is refused here")
_NO_USER = Refusal(550, "5.1.1", "no such user here")


class Router:
    """`users`: full address → mailbox name, or None; asked for local domains only. `keeps`: does a mailbox have a
    folder for this detail, so that the address is to keep it? `full`: why a mailbox takes nothing now, or None.
    `aliases` and `catch_all` in lower case."""

    def __init__(
        self,
        *,
        local_domains: frozenset[str],
        users: Callable[[str], str | None],
        relay_domains: frozenset[str] = frozenset(),
        rules: Sequence[RouteRule] = (),
        postmaster: str = "",
        separator: str = "+",
        aliases: Mapping[str, Sequence[str]] | None = None,
        catch_all: Mapping[str, str] | None = None,
        keeps: Callable[[str, str], bool] = lambda mailbox, detail: False,
        full: Callable[[str], Refusal | None] = lambda mailbox: None,
    ) -> None:
        self._local = local_domains
        self._users = users
        self._relay = relay_domains
        self._postmaster = postmaster
        self._separator = separator
        self._aliases = aliases or {}
        self._catch_all = catch_all or {}
        self._keeps = keeps
        self._full = full
        self._rules = Rules(rules)
        self._ways: dict[str, _Way] = {}
        self._older: dict[str, _Way] = {}  # what `_ways` was before it was full

    def become(self, other: Router) -> None:
        """Decide as `other` does, from now on. Nothing of `other` may be used any more."""
        self._local, self._users, self._relay, self._postmaster = (
            *(other._local, other._users, other._relay, other._postmaster),
        )
        self._separator, self._aliases, self._catch_all = other._separator, other._aliases, other._catch_all
        self._keeps, self._full, self._rules = other._keeps, other._full, other._rules
        self._ways, self._older = other._ways, other._older

    @property
    def by_sender(self) -> bool:
        """Does it matter who sends?"""
        return self._rules.by_sender

    def route(self, address: str, sender: str = "") -> Route:
        """Where mail for `address` goes; a local address that is no user's goes to "local" and fails there."""
        local, domain = split(address)
        way = self._way(domain, sender)
        found = self._local_routes(local, way.domain, _NO_ALIAS, sender)
        if found:
            return _together(found)
        return Route("local" if domain and way.local and not way.to else way.next_hop, address)

    def decide(self, address: str, may_relay: bool, sender: str = "") -> Route | Refusal:
        """What a RCPT gets; `may_relay` when the client may send anywhere; `sender`: "" for the null reverse-path."""
        local, at, domain = address.rpartition("@")
        if not at:
            return self._decide_local(address, self._way("", sender), address, sender)
        way = self._ways.get(domain) or self._way(domain, sender)
        if way.local:
            name = address if way.domain == domain else f"{local}@{way.domain}"
            return self._user_now(name) or self._decide_local(local, way, address, sender)
        if not (may_relay or way.relayed):
            return _NO_RELAY
        return Route(way.next_hop, address) if way.to != "reject" else _REJECTED

    def _user_now(self, name: str) -> Route | Refusal | None:
        """The shortest way, of what nearly every local address is: a user's name in lower case, and no alias."""
        if name in self._aliases or not name.islower() or name[:11] == "postmaster@":
            return None
        user = self._users(name)
        return (self._full(user) or Route("local", user)) if user is not None else None

    def _way(self, domain: str, sender: str) -> _Way:
        """`domain` in any case; "" where an address has none, which can only be ours."""
        if self._rules.by_sender:
            return self._looked_up(domain, sender)
        way = self._ways.get(domain)
        if way is None:
            way = self._older.get(domain) or self._looked_up(domain, sender)
            if len(self._ways) >= CACHE // 2:
                self._older, self._ways = self._ways, {}
            self._ways[domain] = way
        return way

    def _looked_up(self, domain: str, sender: str) -> _Way:
        name = domain.lower()
        target = self._rules.find(name, sender)
        hop = f"mx:{name}" if target is None else target.next_hop(name)
        to = target.to if target is not None else ""
        return _Way(name, not name or name in self._local, name in self._relay, to, hop)

    def _decide_local(self, local: str, way: _Way, address: str, sender: str) -> Route | Refusal:
        found = self._local_routes(local, way.domain, _NO_ALIAS, sender)
        if len(found) == 1 and found[0].next_hop == "local":
            refusal = self._full(self.mailbox(found[0].address)[0] or found[0].address)
            if refusal is not None:
                return refusal
        if found:
            return _together(found)
        if way.to and way.to not in ("local", "reject"):
            return Route(way.next_hop, address)
        return _NO_USER

    def mailbox(self, address: str) -> tuple[str, str]:
        """The mailbox of a local route's address, and the detail that it kept; "" where it is nobody's."""
        user = self._exactly(address)
        if user is not None:
            return user, ""
        local, domain = split(address)
        base, separator, detail = local.partition(self._separator) if self._separator else (local, "", "")
        user = self._exactly(f"{base}@{domain}") if separator else None
        return (user, detail) if user is not None else ("", "")

    def _exactly(self, address: str) -> str | None:
        """The mailbox of an address as a route has it."""
        if self._postmaster and split(address)[0].lower() == "postmaster":
            return self._postmaster
        return address if address == self._postmaster else self._users(address)

    def _user(self, address: str, lower: str) -> str | None:
        """The mailbox of exactly that address, else of the same in lower case."""
        if lower[:11] == "postmaster@" and self._postmaster:
            return self._postmaster
        for name in (address, lower) if lower != address else (address,):
            user = name if name == self._postmaster else self._users(name)
            if user is not None:
                return user
        return None

    def _local_routes(self, local: str, domain: str, seen: frozenset[str], sender: str) -> list[Route]:
        """All that a local address stands for; none where it is nobody's. `seen`: the aliases on the way here."""
        if domain not in self._local:
            if domain or local.lower() != "postmaster" or not self._postmaster:
                return []
            return self._routes(self._postmaster, seen | {"postmaster"}, sender)
        found = self._named(f"{local}@{domain}", "", seen, sender)
        if found is None and self._separator in local and self._separator:
            base, _, detail = local.partition(self._separator)
            found = self._named(f"{base}@{domain}", detail, seen, sender) if base else None
        if found is not None:
            return found
        catch = self._catch_all.get(domain, "")
        here = f"@{domain}"
        return self._routes(catch, seen | {here}, sender) if catch and here not in seen else []

    def _named(self, address: str, detail: str, seen: frozenset[str], sender: str) -> list[Route] | None:
        """Of the alias, or the user, of that name."""
        lower = address.lower()
        if lower in self._aliases and lower not in seen:
            return self._expand(lower, seen | {lower}, sender)
        user = self._user(address, lower)
        if user is None:
            return None
        return [Route("local", self._with_detail(user, detail) if detail else user)]

    def _with_detail(self, user: str, detail: str) -> str:
        if not detail or not self._keeps(user, detail):
            return user
        local, domain = split(user)
        return f"{local}{self._separator}{detail}@{domain}"

    def _expand(self, alias: str, seen: frozenset[str], sender: str) -> list[Route]:
        targets = self._aliases[alias]
        if len(targets) == 1:
            return [_by(alias, one) for one in self._routes(targets[0], seen, sender)]
        found: dict[tuple[str, str], Route] = {}
        for target in targets:
            for one in self._routes(target, seen, sender):
                found.setdefault((one.next_hop, one.address), _by(alias, one))
        return list(found.values())

    def _routes(self, target: str, seen: frozenset[str], sender: str) -> list[Route]:
        """Of what an alias, a catch-all or the postmaster names, which may be anywhere."""
        local, domain = split(target)
        way = self._way(domain, sender)
        found = self._local_routes(local, way.domain, seen, sender)
        if found or (domain and way.local):
            return found
        return [Route(way.next_hop, target)] if way.to != "reject" else []


def _by(alias: str, route: Route) -> Route:
    """What leaves the house tells by which alias; the one that named it."""
    return route if route.next_hop == "local" or route.via else msgspec.structs.replace(route, via=alias)


def _together(routes: list[Route]) -> Route:
    return msgspec.structs.replace(routes[0], also=tuple(routes[1:])) if len(routes) > 1 else routes[0]
