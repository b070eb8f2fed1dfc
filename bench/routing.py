"""pyperf: where a RCPT goes

    deploy/uv run python bench/routing.py [--fast] [-o FILE]      # 10 minutes; --fast: 2

The mix: 100,000 distinct addresses over 1,000 domains, shuffled. Half of the domains are local, with 1,000,000 users in
all; of the addresses 10 % are aliases, 10 % have a +detail, 30 % are plain users, 50 % go elsewhere, half of these by a
route of their domain, half by MX. The tables hold 10 or 1,000,000 routes; a figure is for one address.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import cache

import pyperf

from tripost.delivery.routing import Router
from tripost.delivery.rules import RouteRule
from tripost.delivery.wire.addresses import ascii_form, parse_path
from tripost.gateway.ingress.smtp_protocol import ServerProtocol
from tripost.gateway.ingress.terms import Terms

DOMAINS, USERS, ADDRESSES = 500, 1_000_000, 100_000
ROUTED = 250  # of the domains elsewhere


def far(number: int) -> str:
    return f"d{number}.far.example"


@cache
def router(routes: int) -> Router:
    """Where there is room, the mix's domains have a route each; where there is none, a wildcard is theirs."""
    own = ROUTED if routes > ROUTED + 2 else 0
    rules = [RouteRule(far(n), "smtp://relay.example") for n in range(own)]
    rules += [RouteRule(f"r{n}.example", f"smtp://s{n % 100}.example") for n in range(routes - 2 - len(rules))]
    rules += [RouteRule("*.far.example", "smtp://relay.example"), RouteRule("*.down.example", "reject")]
    users = {f"user{n}@l{n % DOMAINS}.example": f"user{n}@l{n % DOMAINS}.example" for n in range(USERS)}
    aliases = {f"alias{n}@l{n % DOMAINS}.example": [f"user{n}@l{n % DOMAINS}.example"] for n in range(ADDRESSES)}
    local = frozenset(f"l{n}.example" for n in range(DOMAINS))
    return Router(
        local_domains=local, users=users.get, rules=rules, aliases=aliases, postmaster="postmaster@l0.example"
    )


@cache
def mix() -> list[str]:
    rng = random.Random(1)
    found = [f"alias{n}@l{n % DOMAINS}.example" for n in range(ADDRESSES // 10)]
    found += [f"user{n}+list@l{n % DOMAINS}.example" for n in range(ADDRESSES // 10)]
    found += [f"user{n}@l{n % DOMAINS}.example" for n in range(ADDRESSES * 3 // 10)]
    found += [f"someone{n}@{far(n % ROUTED)}" for n in range(ADDRESSES // 4)]
    found += [f"someone{n}@m{n % ROUTED}.elsewhere.example" for n in range(ADDRESSES // 4)]
    rng.shuffle(found)
    return found


@cache
def strangers() -> list[str]:
    """More domains than any cache holds."""
    return [f"a@n{number}.new.example" for number in range(200_000)]


def decide(loops: int, routes: int, addresses: Callable[[], Sequence[str]]) -> float:
    decision, found = router(routes).decide, addresses()
    for address in found:  # as in a gateway that has been running
        decision(address, True)
    began = time.perf_counter()
    for _ in range(loops):
        for address in found:
            decision(address, True)
    return time.perf_counter() - began


def parse(loops: int, line: bytes) -> float:
    """From the octets of the line to the address by which it is routed."""
    began = time.perf_counter()
    for _ in range(loops):
        ascii_form(parse_path(line.decode()[8:], utf8=True)[0])
    return time.perf_counter() - began


def command(loops: int, line: bytes) -> float:
    """The whole of the protocol for one RCPT."""
    protocol = ServerProtocol(Terms(hostname="h", message_size=1, recipients=1))
    protocol.feed(b"EHLO x\r\nMAIL FROM:<> SMTPUTF8\r\n")
    assert protocol.next() is not None
    protocol.hello_accepted("x")
    assert protocol.next() is not None
    protocol.mail_accepted()
    began = time.perf_counter()
    for _ in range(loops):
        protocol.feed(line)
        protocol.next()
    return time.perf_counter() - began


def main() -> None:
    runner = pyperf.Runner(processes=2, values=8)  # each process makes its own tables, for seconds
    for routes in (10, 1_000_000):
        runner.bench_time_func(f"route the mix, {routes:,} routes", decide, routes, mix, inner_loops=ADDRESSES)
        runner.bench_time_func(
            f"first sight of a domain, {routes:,} routes", decide, routes, strangers, inner_loops=200_000
        )
    lines = {"ASCII": b"RCPT TO:<someone@destination.example>\r\n", "IDN": "RCPT TO:<ü@bücher.example>\r\n".encode()}
    for name, line in lines.items():
        runner.bench_time_func(f"parse a RCPT's path, {name}", parse, line)
        runner.bench_time_func(f"the protocol of a RCPT, {name}", command, line)


if __name__ == "__main__":
    main()
