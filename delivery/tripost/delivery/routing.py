"""address → route

The hot path of every RCPT: dictionary look-ups, no I/O, no loop over rules
where the rules are plain domains.

States   a route's next hop is "local", "discard", "mx:domain" or
         "smtp://host:port"; the schedule is keyed by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from tripost.delivery.wire.addresses import split

SMTP_PORT = 25


class RouteRule(msgspec.Struct, frozen=True):
    """`domain`: exact, "*.suffix" (not the suffix itself) or "*"; `to`: mx, local, discard, reject, smtp://host[:port]."""

    domain: str
    to: str


class Route(msgspec.Struct, frozen=True):
    next_hop: str
    address: str


class Refusal(msgspec.Struct, frozen=True):
    """Why not; a reply's parts."""

    code: int
    enhanced: str
    text: str


class Router:
    """`users`: full address → mailbox name, or None; asked for local domains only."""

    def __init__(
        self,
        *,
        local_domains: frozenset[str],
        users: Callable[[str], str | None],
        relay_domains: frozenset[str] = frozenset(),
        rules: Sequence[RouteRule] = (),
        postmaster: str = "",
        separator: str = "+",
    ) -> None:
        self._local = local_domains
        self._users = users
        self._relay = relay_domains
        self._postmaster = postmaster
        self._separator = separator
        self._exact: dict[str, str] = {}
        self._suffix: list[tuple[int, str, str]] = []
        for number, rule in enumerate(rules):
            self._add(number, rule)
        self._order = {rule.domain.lower(): number for number, rule in reversed(list(enumerate(rules)))}

    def _add(self, number: int, rule: RouteRule) -> None:
        domain = rule.domain.lower()
        if domain.startswith("*"):
            self._suffix.append((number, domain[1:], rule.to))
        else:
            self._exact.setdefault(domain, rule.to)

    def route(self, address: str) -> Route:
        """Where mail for `address` goes; a local address that is no user's goes to "local" and fails there."""
        mailbox = self._mailbox(address)
        if mailbox is not None:
            return Route("local", mailbox)
        domain = split(address)[1].lower()
        target = self._rule(domain)
        if not target and domain in self._local:
            target = "local"
        return Route(_next_hop(target or "mx", domain), address)

    def decide(self, address: str, may_relay: bool) -> Route | Refusal:
        """What a RCPT gets; `may_relay` when the client may send anywhere."""
        domain = split(address)[1].lower()
        if not domain or domain in self._local:
            mailbox = self._mailbox(address)
            if mailbox is not None:
                return Route("local", mailbox)
            target = self._rule(domain)
            if target and target not in ("local", "reject"):
                return Route(_next_hop(target, domain), address)
            return Refusal(550, "5.1.1", "no such user here")
        target = self._rule(domain)
        if not (may_relay or domain in self._relay):
            return Refusal(550, "5.7.1", "this server does not relay there for you")
        if target == "reject":
            return Refusal(550, "5.7.1", "mail to this domain is refused here")
        return Route(_next_hop(target or "mx", domain), address)

    def _mailbox(self, address: str) -> str | None:
        """The local user's name for an address of ours: as it is, lower-case, or without its +detail."""
        local, domain = split(address)
        if not domain and local.lower() == "postmaster":
            return self._postmaster or None
        if domain.lower() not in self._local:
            return None
        if local.lower() == "postmaster" and self._postmaster:
            return self._postmaster
        names = [local, local.lower()]
        if self._separator and self._separator in local:
            base = local.partition(self._separator)[0]
            names += [base, base.lower()]
        for name in names:
            found = self._users(f"{name}@{domain.lower()}") if name else None
            if found is not None:
                return found
        return None

    def _rule(self, domain: str) -> str:
        """The first rule that matches, "" for none."""
        exact = self._exact.get(domain, "")
        limit = self._order[domain] if exact else len(self._order) + 1_000_000
        for number, suffix, to in self._suffix:
            if number > limit:
                break
            if not suffix or (domain.endswith(suffix) and domain != suffix.removeprefix(".")):
                return to
        return exact


def _next_hop(target: str, domain: str) -> str:
    if target == "mx":
        return f"mx:{domain}"
    if target.startswith("smtp://"):
        host = target.removeprefix("smtp://").rstrip("/")
        bracketed = host.endswith("]") or ":" not in host
        return f"smtp://{host}:{SMTP_PORT}" if bracketed else f"smtp://{host}"
    return target
