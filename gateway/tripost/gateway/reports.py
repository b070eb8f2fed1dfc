"""who is told what became of a message

The queue asks here for the report that it commits with a settlement.

Promise  The failure of a message without a sender is told to the postmaster, or to
         nobody, as `[dsn] double_bounce` says; what fails on its way to the
         postmaster is told to nobody.
Fails    `ValueError` for a template that is none.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from tripost.delivery.dsn import WORDS, Words, make_report, read_words
from tripost.delivery.routing import Router
from tripost.gateway.settings import Config
from tripost.queue.clock import Clock
from tripost.queue.message import Envelope, News, Recipient


class Reports:
    """`new_id` is set once there is a queue."""

    def __init__(self, config: Config, router: Router, clock: Clock) -> None:
        self._router = router
        self._clock = clock
        self.new_id: Callable[[], str] | None = None
        self._config = config
        self._words = templates(config.dsn.templates)
        self._second = _second(config)

    def prepare(self, config: Config) -> Callable[[], None]:
        """See `tripost.gateway.reloading`. Raises ValueError."""
        words = templates(config.dsn.templates)

        def commit() -> None:
            self._config, self._words, self._second = config, words, _second(config)

        return commit

    def __call__(self, envelope: Envelope, news: list[News], original: bytes) -> tuple[Envelope, bytes] | None:
        assert self.new_id is not None
        second = "" if envelope.sender else self._second
        if second and any(self._is(one.recipient.address, second) for one in news):
            return None
        made = make_report(
            hostname=self._config.hostname,
            envelope=envelope,
            news=news,
            original=original,
            now=self._clock.now(),
            id=self.new_id(),
            next_hop_for=lambda address: self._router.route(address).next_hop,
            expire=self._config.retry.expire,
            to=second,
            words=self._words,
        )
        return (self._to_all(made[0]), made[1]) if made is not None else None

    def _is(self, address: str, postmaster: str) -> bool:
        """Is it the postmaster, by whatever name?"""
        if address.lower() == postmaster.lower():
            return True
        return address in [one.address for one in self._router.route(postmaster).all]

    def _to_all(self, report: Envelope) -> Envelope:
        """A report's recipients: its addressee may be an alias of ours."""
        routes = self._router.route(report.recipients[0].address).all
        people = [Recipient(n, one.address, one.next_hop, via=one.via) for n, one in enumerate(routes)]
        return msgspec.structs.replace(report, recipients=tuple(people))


def _second(config: Config) -> str:
    """Who is told of what nobody else can be told."""
    return config.local.postmaster if config.dsn.double_bounce == "postmaster" else ""


def templates(folder: str) -> dict[str, Words]:
    """Our words, but for those of which the folder has a file, as failed.txt. Raises ValueError."""
    found = dict(WORDS)
    for action in WORDS if folder else ():
        path = os.path.join(folder, f"{action}.txt")
        try:
            with open(path, encoding="utf-8") as file:
                found[action] = read_words(file.read())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as wrong:
            raise ValueError(f"{path}: {getattr(wrong, 'strerror', None) or wrong}") from wrong
    if folder and not os.path.isdir(folder):
        raise ValueError(f"{folder}: there is no such folder")
    return found
