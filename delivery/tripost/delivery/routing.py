"""address → route

The hot path of every RCPT: dictionary look-ups, no I/O of its own, no loop over
rules where the rules are plain domains.

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

from tripost.delivery.rules import Chosen, RouteRule, Rules
from tripost.delivery.wire.addresses import split


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

    @property
    def by_sender(self) -> bool:
        """Does it matter who sends?"""
        return self._rules.by_sender

    def route(self, address: str, sender: str = "") -> Route:
        """Where mail for `address` goes; a local address that is no user's goes to "local" and fails there."""
        found = self._local_routes(address, frozenset(), sender)
        if found:
            return _together(found)
        domain = split(address)[1].lower()
        target = self._rules.find(domain, sender)
        if target is None and domain in self._local:
            return Route("local", address)
        return Route(_next_hop(target, domain), address)

    def decide(self, address: str, may_relay: bool, sender: str = "") -> Route | Refusal:
        """What a RCPT gets; `may_relay` when the client may send anywhere; `sender`: "" for the null reverse-path."""
        domain = split(address)[1].lower()
        if not domain or domain in self._local:
            return self._decide_local(address, domain, sender)
        target = self._rules.find(domain, sender)
        if not (may_relay or domain in self._relay):
            return Refusal(550, "5.7.1", "this server does not relay there for you")
        if target is not None and target.to == "reject":
            return Refusal(550, "5.7.1", "mail to this domain is refused here")
        return Route(_next_hop(target, domain), address)

    def _decide_local(self, address: str, domain: str, sender: str) -> Route | Refusal:
        found = self._local_routes(address, frozenset(), sender)
        if len(found) == 1 and found[0].next_hop == "local":
            refusal = self._full(self.mailbox(found[0].address)[0] or found[0].address)
            if refusal is not None:
                return refusal
        if found:
            return _together(found)
        target = self._rules.find(domain, sender)
        if target is not None and target.to not in ("local", "reject"):
            return Route(_next_hop(target, domain), address)
        return Refusal(550, "5.1.1", "no such user here")

    def mailbox(self, address: str) -> tuple[str, str]:
        """The mailbox of a local route's address, and the detail that it kept; "" where it is nobody's."""
        user = self._user(address)
        if user is not None:
            return user, ""
        local, domain = split(address)
        base, separator, detail = local.partition(self._separator) if self._separator else (local, "", "")
        user = self._user(f"{base}@{domain}") if separator else None
        return (user, detail) if user is not None else ("", "")

    def _user(self, address: str) -> str | None:
        if self._postmaster and split(address)[0].lower() == "postmaster":
            return self._postmaster
        return address if address == self._postmaster else self._users(address)

    def _local_routes(self, address: str, seen: frozenset[str], sender: str) -> list[Route]:
        """All that a local address stands for; none where it is nobody's. `seen`: the aliases on the way here."""
        local, domain = split(address)
        domain = domain.lower()
        if not domain and local.lower() == "postmaster":
            return self._routes(self._postmaster, seen | {"postmaster"}, sender) if self._postmaster else []
        if domain not in self._local:
            return []
        for name, detail in self._names(local):
            whole = f"{name}@{domain}"
            alias = whole.lower()
            if alias in self._aliases and alias not in seen:
                return self._expand(alias, seen | {alias}, sender)
            user = self._user(whole)
            if user is not None:
                return [Route("local", self._with_detail(user, detail))]
        catch = self._catch_all.get(domain, "")
        here = f"@{domain}"
        return self._routes(catch, seen | {here}, sender) if catch and here not in seen else []

    def _names(self, local: str) -> list[tuple[str, str]]:
        names = [(local, ""), (local.lower(), "")]
        if self._separator and self._separator in local:
            base, _, detail = local.partition(self._separator)
            names += [(base, detail), (base.lower(), detail)] if base else []
        return names

    def _with_detail(self, user: str, detail: str) -> str:
        if not detail or not self._keeps(user, detail):
            return user
        local, domain = split(user)
        return f"{local}{self._separator}{detail}@{domain}"

    def _expand(self, alias: str, seen: frozenset[str], sender: str) -> list[Route]:
        found: dict[tuple[str, str], Route] = {}
        for target in self._aliases[alias]:
            for one in self._routes(target, seen, sender):
                if one.next_hop != "local" and not one.via:
                    one = msgspec.structs.replace(one, via=alias)
                found.setdefault((one.next_hop, one.address), one)
        return list(found.values())

    def _routes(self, target: str, seen: frozenset[str], sender: str) -> list[Route]:
        """Of what an alias, a catch-all or the postmaster names, which may be anywhere."""
        found = self._local_routes(target, seen, sender)
        domain = split(target)[1].lower()
        if found or domain in self._local:
            return found
        rule = self._rules.find(domain, sender)
        return [Route(_next_hop(rule, domain), target)] if rule is None or rule.to != "reject" else []


def _together(routes: list[Route]) -> Route:
    return msgspec.structs.replace(routes[0], also=tuple(routes[1:])) if len(routes) > 1 else routes[0]


def _next_hop(target: Chosen | None, domain: str) -> str:
    return f"mx:{domain}" if target is None else target.next_hop(domain)
