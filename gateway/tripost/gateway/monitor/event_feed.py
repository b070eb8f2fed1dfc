"""/events: what is sent, which events somebody wants, and the newest of them in memory

Pure. A client says from which number on (`after`) and which events; what it gets are
the events as the log has them, in the order of their numbers, and a `gap` wherever
some of them are missing.

Bounds   the ring holds RING octets of encoded events; a filter ITEMS values.
Why      frames are made once for each batch and filter: who watches the same gets the
         same octets.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tripost.gateway.monitor.frames import frame, frames
from tripost.gateway.observe.reader import Batch
from tripost.gateway.observe.schema import KINDS, name_of
from tripost.queue.events import Accepted, Event, Routed
from tripost.queue.finding import like

RING = 8 << 20
ITEMS = 20
FRESH = 40  # batches, two seconds of many events, that remember what was made of them
KEPT = 8  # filters of which such a batch remembers its frames


class Hello(msgspec.Struct, frozen=True):
    """`first`, `last`: the numbers of the events that can be had; `boot` differs between starts."""

    kind: Literal["hello"]
    boot: int
    first: int
    last: int


class Gap(msgspec.Struct, frozen=True):
    """Events after number `after` and before `first` are not told. `reason`: old (they are not kept any more) | future
    (there were no such numbers) | slow (the client was) | lost (the disk was) | killed (the gateway was: its last ones
    may be missing). `dropped`: how many, 0 for unknown."""

    kind: Literal["gap"]
    reason: Literal["old", "future", "slow", "lost", "killed"]
    after: int
    first: int
    dropped: int = 0


_encode = msgspec.json.Encoder().encode
_NAMES = {name_of(kind): kind for kind in KINDS}
Fields = Annotated[str, Meta(description="values with commas between")]
CONDITIONS = ("id", "address", "domain", "next_hop", "site", "host", "client", "account", "service")
PLAIN = frozenset({"id", "next_hop", "site", "host", "account", "service"})


class Wanted:
    """Which events. Raises ValueError, one line."""

    def __init__(self, query: Mapping[str, str]) -> None:
        self.key = tuple(sorted((name, text) for name, text in query.items() if name != "after" and text))
        self.all = not self.key
        values = {name: [one for one in text.split(",") if one] for name, text in self.key}
        for name, some in values.items():
            if name != "event" and name not in CONDITIONS:
                raise ValueError(f"no condition {name!r}; there are after, event, {', '.join(CONDITIONS)}")
            if len(some) > ITEMS:
                raise ValueError(f"{name}: at most {ITEMS} values")
        for name in values.get("event", []):
            if name not in _NAMES:
                raise ValueError(f"no event {name!r}; there are {', '.join(sorted(_NAMES))}")
        self._kinds = frozenset(_NAMES[name] for name in values.pop("event", []))
        self._values = values
        self._networks = [ipaddress.ip_network(one, strict=False) for one in values.get("client", []) if "/" in one]

    def fits(self, event: Event) -> bool:
        """All conditions hold; of each, one of its values."""
        if self._kinds and type(event) not in self._kinds:
            return False
        return all(self._holds(name, some, event) for name, some in self._values.items())

    def _holds(self, name: str, some: list[str], event: Event) -> bool:
        if name in PLAIN:
            value = getattr(event, name, None)
            return isinstance(value, str) and any(like(one, value) for one in some)
        if name == "client":
            return self._from(getattr(event, "client", ""), some)
        addresses = _addresses(event)
        if name == "domain":
            domain = getattr(event, "domain", "")
            found = [one.rpartition("@")[2] for one in addresses] + ([domain] if domain else [])
            return any(like(wanted, one) for wanted in some for one in found)
        return any(like(wanted, one) for wanted in some for one in addresses)

    def _from(self, client: Any, some: list[str]) -> bool:
        if not isinstance(client, str) or not client:
            return False
        if any("/" not in one and like(one, client) for one in some):
            return True
        if not self._networks:
            return False
        try:
            address = ipaddress.ip_address(client.partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _addresses(event: Event) -> list[str]:
    found: list[str] = [getattr(event, name, "") for name in ("sender", "recipient", "account")]
    if isinstance(event, Accepted):
        found += event.recipients
    elif isinstance(event, Routed):
        found += [one.recipient for one in event.ways]
    return [one for one in found if one]


class Page:
    """One batch of events, with its frames as they were asked for, until it is old."""

    __slots__ = ("_batch", "_events", "_framed", "_fresh", "first", "last", "size")

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._events: list[Event] | None = None
        self._fresh = True
        self.size = len(batch.lines)
        self.first, self.last = batch.first, batch.last
        self._framed: dict[tuple[tuple[str, str], ...], bytes] = {}

    def age(self) -> None:
        """Keep the octets only."""
        self._fresh, self._events = False, None
        self._framed.clear()

    def ready(self, wanted: Wanted, after: int) -> bytes | None:
        """What `frames` gives, where that is little work."""
        if wanted.all:
            return self.frames(wanted, after)
        return self._framed.get(wanted.key) if after < self.first else None

    def frames(self, wanted: Wanted, after: int) -> bytes:
        """Of the events after a number that are wanted."""
        if after >= self.first:
            return self._frames(wanted, after)
        found = self._framed.get(wanted.key)
        if found is None:
            found = self._frames(wanted, 0)
            if self._fresh and len(self._framed) < KEPT:
                self._framed[wanted.key] = found
        return found

    def _frames(self, wanted: Wanted, after: int) -> bytes:
        lines = self._batch.lines.split(b"\n")
        lines.pop()  # behind the last newline
        skipped = max(0, after - self.first + 1)
        if wanted.all:
            return frames(lines[skipped:])
        events = self._events if self._events is not None else self._batch.events
        if self._fresh:
            self._events = events  # others may want others of them
        some = zip(events[skipped:], lines[skipped:], strict=True)
        return frames([line for event, line in some if wanted.fits(event)])


class Ring:
    """The newest events; `begin`: those after this number are told to it."""

    def __init__(self, begin: int) -> None:
        self._pages: deque[Page] = deque()
        self._size = 0
        self.first = begin + 1
        self.last = begin

    def add(self, batch: Batch) -> None:
        """Numbers that follow on those before."""
        page = Page(batch)
        self._pages.append(page)
        self._size += page.size
        self.last = page.last
        if len(self._pages) > FRESH:
            self._pages[-FRESH - 1].age()
        while self._size > RING and len(self._pages) > 1:
            self._size -= self._pages.popleft().size
            self.first = self._pages[0].first

    def after(self, number: int) -> Page | None:
        """The page with the next event; None where there is none yet."""
        if number >= self.last:
            return None
        for page in reversed(self._pages):
            if page.first <= number + 1:
                return page
        return self._pages[0]


def hello(boot: int, first: int, last: int) -> bytes:
    return frame(_encode(Hello("hello", boot, first, last)))


def gap(reason: Literal["old", "future", "slow", "lost", "killed"], after: int, first: int, dropped: int = 0) -> bytes:
    return frame(_encode(Gap("gap", reason, after, first, dropped)))
