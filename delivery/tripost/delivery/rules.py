"""the operator's routes: which rule is the first that fits

By recipient domain, and where a rule names one, by sender. Dictionary look-ups,
one for each label of a domain where there are suffixes ("*.example.net"); only
rules with a sender are walked through, of them those whose sender fits. Pure.

Patterns  domain: exact, "*.suffix" (not the suffix itself) or "*". sender: "user@domain",
          "*@domain", "*@*.suffix", "<>" (the null reverse-path); "" or "*" for all.
Fails     ValueError from `check_sender` for what is none of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from tripost.delivery.targets import next_hop_for
from tripost.delivery.wire.addresses import check_domain, parse_address, split

NULL = "<>"
_LAST = 1 << 62


class RouteRule(msgspec.Struct, frozen=True):
    """`to` and `options`: see tripost.delivery.targets."""

    domain: str
    to: str
    options: tuple[tuple[str, str], ...] = ()
    sender: str = ""


class Chosen(msgspec.Struct, frozen=True):
    """A rule's, ready to be used: `fixed` is the next hop of every domain, "" for mx."""

    to: str
    options: dict[str, str]
    fixed: str

    def next_hop(self, domain: str) -> str:
        return self.fixed or next_hop_for("mx", domain, self.options)


class Rules:
    """`by_sender`: it matters who sends."""

    def __init__(self, rules: Sequence[RouteRule]) -> None:
        self._exact: dict[str, tuple[int, Chosen]] = {}
        self._suffixes: dict[str, tuple[int, Chosen]] = {}  # ".example.net"; "" for all
        self._senders: dict[str, list[tuple[int, str, Chosen]]] = {}
        for number, rule in enumerate(rules):
            self._add(number, rule)

    def _add(self, number: int, rule: RouteRule) -> None:
        domain, options = rule.domain.lower(), dict(rule.options)
        way = Chosen(rule.to, options, "" if rule.to == "mx" else next_hop_for(rule.to, "", options))
        if rule.sender not in ("", "*"):
            self._senders.setdefault(rule.sender.lower().removeprefix("*"), []).append((number, domain, way))
        elif domain.startswith("*"):
            self._suffixes.setdefault(domain[1:], (number, way))
        else:
            self._exact.setdefault(domain, (number, way))

    @property
    def by_sender(self) -> bool:
        return bool(self._senders)

    def find(self, domain: str, sender: str = "") -> Chosen | None:
        """The first rule that fits; `domain` in lower case."""
        exact = self._exact.get(domain)
        number, found = exact if exact is not None else (_LAST, None)
        if self._suffixes:
            for suffix in _suffixes(domain):
                at, way = self._suffixes.get(suffix, (_LAST, None))
                if at < number:
                    number, found = at, way
        for key in _keys(sender) if self._senders else ():
            for at, pattern, way in self._senders.get(key, ()):
                if at > number:
                    break
                if _fits(pattern, domain):
                    number, found = at, way
                    break
        return found


def _suffixes(domain: str) -> Iterator[str]:
    """With the dot before them; "" for all, and not the domain itself."""
    yield ""
    at = domain.find(".", 1)
    while at >= 0:
        yield domain[at:]
        at = domain.find(".", at + 1)


def _fits(pattern: str, domain: str) -> bool:
    if not pattern.startswith("*"):
        return pattern == domain
    suffix = pattern[1:]
    return not suffix or (domain.endswith(suffix) and domain != suffix[1:])


def _keys(sender: str) -> Iterator[str]:
    """What rules may call this sender."""
    if not sender:
        yield NULL
        return
    domain = split(sender)[1].lower()
    yield f"{sender[: len(sender) - len(domain)].lower()}{domain}"
    yield f"@{domain}"
    labels = domain.split(".")
    for start in range(1, len(labels)):
        yield "@*." + ".".join(labels[start:])


def check_sender(pattern: str) -> None:
    """Raises ValueError."""
    if pattern in ("", "*", NULL):
        return
    local, _, domain = pattern.rpartition("@")
    if local == "*":
        check_domain(domain.removeprefix("*."))
    else:
        parse_address(pattern)
