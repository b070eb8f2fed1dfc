"""what the workers of delivery act on, and what they ask of the crowd

Types only: `Crowd` is the dispatcher as its workers see it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from tripost.delivery.dialling import Dialler
from tripost.delivery.forwarding import OpenReader
from tripost.delivery.settings import DeliverySettings
from tripost.delivery.site import Site
from tripost.delivery.ways import Ways
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.manager import Queue
from tripost.queue.message import Envelope, Outcome, Recipient


class LocalDelivery(Protocol):
    """The local destination."""

    async def deliver(
        self, envelope: Envelope, recipients: tuple[Recipient, ...], open_reader: OpenReader
    ) -> dict[int, Outcome]: ...


class Crowd(Protocol):
    """All sites and workers."""

    def found(self, next_hop: str) -> None:
        """It has something to claim."""
        ...

    def serve(self, site: Site) -> None:
        """Let one worker more begin, where that may be."""
        ...

    def wanted(self, site: Site) -> bool:
        """Do others wait for a slot, of which this site has more than its share?"""
        ...

    def idling(self, site: Site) -> AbstractContextManager[None]:
        """A worker waits there with its connection."""
        ...

    def extra(self, site: Site) -> bool:
        """A slot more, for a race; False when there is none."""
        ...

    def extra_gone(self, site: Site) -> None: ...

    async def remember(self, site: Site) -> None:
        """Make durable what is known of it."""
        ...


class Outside(msgspec.Struct, frozen=True):
    """The world that workers act on."""

    queue: Queue
    settings: DeliverySettings
    ways: Ways
    local: LocalDelivery
    dialler: Dialler
    bus: Bus
    clock: Clock
    stopping: Callable[[], bool]
    crowd: Crowd
