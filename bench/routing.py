"""pyperf: the routing of one RCPT, with 10 and with 10,000 rules

deploy/uv run python bench/routing.py [-o FILE]
"""

from __future__ import annotations

import pyperf

from tripost.delivery.routing import Router
from tripost.delivery.rules import RouteRule
from tripost.delivery.wire.addresses import parse_path

USERS = {f"user{n}@machin.com": f"user{n}@machin.com" for n in range(10_000)}


def router(rules: int) -> Router:
    return Router(
        local_domains=frozenset({"machin.com"}),
        users=USERS.get,
        rules=[RouteRule(f"d{n}.example", "smtp://relay.example") for n in range(rules)],
    )


def main() -> None:
    runner = pyperf.Runner()
    small, large = router(10), router(10_000)
    runner.bench_func("parse RCPT path", parse_path, "<someone@destination.example>")
    runner.bench_func("route to mx, 10 rules", small.decide, "a@far.test", True)
    runner.bench_func("route to mx, 10,000 rules", large.decide, "a@far.test", True)
    runner.bench_func("route by rule, 10,000 rules", large.decide, "a@d9999.example", True)
    runner.bench_func("route to a local user", large.decide, "user77@machin.com", False)
    runner.bench_func("route to a local user with +detail", large.decide, "user77+list@machin.com", False)


if __name__ == "__main__":
    main()
