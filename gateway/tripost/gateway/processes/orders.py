"""what the supervisor and the processes it starts say to each other. Pure.

Order    Prepare → Ready from each, with the reasons why not → Commit to all, answered by Done; or Discard to all.
         A manager that is asked for a reload sends Wanted; it gets a Changed when it is over, and at a SIGHUP, too.
"""

from __future__ import annotations

import msgspec


class Listening(msgspec.Struct, frozen=True):
    """A socket of a service, bound by the supervisor, which knows it by `descriptor`."""

    service: str
    address: str  # as configured
    bound: str
    descriptor: int


class Order(msgspec.Struct, frozen=True, array_like=True):
    """One message of either direction."""


# --- from the supervisor ---


class Prepare(Order, frozen=True, tag="prepare"):
    """Build everything from the configuration that comes with it. `listening`: all there is then. Descriptors: the
    configuration, then the sockets of `listening` which `added` names by their numbers in the supervisor."""

    number: int
    listening: list[Listening]
    added: list[int]


class Commit(Order, frozen=True, tag="commit"):
    """Put in place what was prepared: the configuration of this generation, in force since `loaded`."""

    number: int
    generation: int
    loaded: float


class Discard(Order, frozen=True, tag="discard"):
    """Forget what was prepared."""

    number: int


class Running(Order, frozen=True, tag="running"):
    """A process that there is. `generation`: which configuration it has, `loaded` since when; 0 for one that has none,
    because it is told with each delivery what to do."""

    name: str
    pid: int
    generation: int = 0
    loaded: float = 0.0


class Present(Order, frozen=True, tag="present"):
    """All that there are, whenever that changes."""

    processes: list[Running]


class Changed(Order, frozen=True, tag="changed"):
    """What became of a reload. `asked`: of which Wanted, 0 for none. With `problems` nothing has changed. `behind`:
    processes that have not confirmed it."""

    asked: int
    problems: list[str]
    changed: list[str]
    restart: list[str]
    generation: int
    behind: list[str]


# --- from a process ---


class Ready(Order, frozen=True, tag="ready"):
    """Prepared, where there are no problems."""

    number: int
    problems: list[str]


class Done(Order, frozen=True, tag="done"):
    number: int


class Wanted(Order, frozen=True, tag="wanted"):
    """Somebody asked the manager for a reload."""

    asked: int


ToChild = Prepare | Commit | Discard | Present | Changed
FromChild = Ready | Done | Wanted
