"""what `--json` prints, command by command: types, from which `tripost schema` makes JSON Schemas

Each line of output is one object of the type here. Times are seconds since 1970, durations seconds, sizes octets; 0 and
"" mean that there is none. Fields may be added; what is there keeps its name and its meaning.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from tripost.gateway.cli.user import Row as User
from tripost.gateway.control.explain import Why
from tripost.gateway.monitor import feed
from tripost.gateway.observe.observer import ObserverStatistics
from tripost.gateway.observe.past import Past
from tripost.queue.actions import Kept
from tripost.queue.message import Envelope
from tripost.queue.search import Delivery, Hop
from tripost.queue.values import QueueStatistics
from tripost.queue.verify import Report

DRAFT = "https://json-schema.org/draft/2020-12/schema"


class ShedSoFar(msgspec.Struct):
    """`connections` that overload told to come again, since the start; the last of them had waited up to `wait`
    seconds; `now`: within the last two."""

    connections: int
    wait: float
    now: bool


class Running(msgspec.Struct):
    """A process of the gateway, with the configuration that it has; 0 for one that needs none."""

    name: str
    pid: int
    generation: int
    loaded: float


class Status(msgspec.Struct):
    """`state`: starting, serving or draining; `why` it is not `ready`; `boot`: another number after each start and
    restart; `up` in seconds; `listeners`: service → addresses; `generation` of the configuration, 1 at the start, in
    force since `loaded`."""

    state: str
    ready: bool
    why: str
    hostname: str
    version: str
    pid: int
    boot: int
    up: float
    listeners: dict[str, list[str]]
    shed: ShedSoFar
    generation: int
    loaded: float
    processes: list[Running]
    events: ObserverStatistics
    accepting: bool
    queue: QueueStatistics


class Routed(msgspec.Struct, omit_defaults=True):
    """Either `refused`, or `next_hop` and the `recipient` that it becomes there."""

    address: str
    refused: str = ""
    next_hop: str = ""
    recipient: str = ""


class Listed(msgspec.Struct):
    """A queued message."""

    id: str
    sender: str
    size: int
    accepted: float
    expires: float
    client: str
    account: str
    priority: int
    deliveries: list[Delivery]


class Counted(msgspec.Struct):
    """What fits; `octets` of its messages."""

    messages: int
    recipients: int
    octets: int


class Shown(msgspec.Struct):
    """A recipient of a message that is shown."""

    address: str
    next_hop: str
    state: str
    attempts: int
    due: float
    reply: str


class Changed(msgspec.Struct):
    """`fit` messages with `recipients`, of which `changed` were; `skipped` recipients are being delivered. `action`:
    the id for undo, which works `until` then."""

    action: str
    fit: int
    changed: int
    recipients: int
    skipped: int
    until: float
    dry_run: bool


class Undone(Changed):
    """`undone`: the action that was taken back."""

    undone: str


class Resumed(msgspec.Struct):
    """`kind`: destination, sender, account or client."""

    kind: str
    what: str


class Suspended(Resumed):
    """`until`: 0 until it is resumed."""

    until: float


class Suspension(Suspended):
    """`reason` as who suspended it wrote it."""

    reason: str


class Limited(msgspec.Struct):
    """`as_configured`: nothing is said otherwise."""

    site: str
    as_configured: bool


class Limit(msgspec.Struct):
    """What `who` said; null and "" where it is as configured."""

    site: str
    connections: int | None
    rate: str
    connection_rate: str
    who: str


class Exported(msgspec.Struct):
    """The names of its two files begin with its id."""

    id: str


class Imported(msgspec.Struct):
    """`id`: what the message of that file is called in this queue."""

    file: str
    id: str


class Line(msgspec.Struct, omit_defaults=True):
    """What one side said in a session; or how many lines came too fast to be told: `dropped`."""

    time: float = 0.0
    session: int = 0
    service: str = ""
    peer: str = ""
    direction: str = ""
    text: str = ""
    dropped: int = 0


class Taken(msgspec.Struct):
    """Keys of the configuration: `changed` now, and those that wait for a `restart`. `generation` of the one in force;
    `behind`: processes that have not confirmed it yet."""

    changed: list[str]
    restart: list[str]
    generation: int
    behind: list[str]


class Restarted(msgspec.Struct):
    """`seconds` from asking until the new one serves; `version`: of it, `was`: of the one before."""

    seconds: float
    version: str
    was: str


class Checked(msgspec.Struct):
    """`level`: error or warning. `line` and `column` from 1, 0 for a file as a whole; `key` as it is written."""

    level: str
    file: str
    line: int
    column: int
    key: str
    reason: str


class Effective(msgspec.Struct):
    """`value` as TOML; `source`: FILE:LINE, default, environment or what else it comes from; `file` and `line` where a
    file says it."""

    key: str
    value: str
    source: str
    file: str
    line: int


class Differing(msgspec.Struct):
    """Values as TOML, "" where there is none; `source` of the file's value."""

    key: str
    running: str
    file: str
    source: str


class Differences(msgspec.Struct):
    """Of the running gateway from the file."""

    same: bool
    differences: list[Differing]


def _like(name: str, kind: type[msgspec.Struct], **other: Any) -> type[msgspec.Struct]:
    """An object with the fields of `kind`, some with other types, and more."""
    known = [(one.name, other.pop(one.name, one.type)) for one in msgspec.structs.fields(kind)]
    return msgspec.defstruct(name, [*known, *other.items()], namespace={"__doc__": kind.__doc__})


HOP = _like("NextHop", feed.Hop, next_hop=str)


class Top(msgspec.Struct):
    """What /live tells, of the ten fullest next hops."""

    time: float
    seq: int
    state: feed.State
    ready: bool
    reason: str
    up: float
    queue: QueueStatistics
    rates: feed.Rates
    latency: feed.Latency
    connections: feed.Connections
    states: feed.States
    hops_total: int
    hops: list[HOP]  # type: ignore[valid-type]  # pyright: ignore[reportInvalidTypeForm]


EXPLAINED = _like("Why", Why, site=str)

ROWS: dict[str, type[msgspec.Struct]] = {
    "check": Checked,
    "config show": Effective,
    "config diff": Differences,
    "route": Routed,
    "status": Status,
    "reload": Taken,
    "restart": Restarted,
    "explain": EXPLAINED,
    "user list": User,
    "queue summary": _like("Hop", Hop, site=str),
    "queue list": Listed,
    "queue count": Counted,
    "queue show": _like("Message", Envelope, recipients=list[Shown], header=str),
    **{f"queue {verb}": Changed for verb in ("hold", "release", "retry", "reroute", "priority", "bounce", "delete")},
    "queue expire": Changed,
    "queue undo": Undone,
    "queue audit": _like("Action", Kept, action=str, filter=dict[str, Any], can_be_undone=bool),
    "queue suspend": Suspended,
    "queue resume": Resumed,
    "queue suspensions": Suspension,
    "queue limit": Limited,
    "queue limits": Limit,
    "history": Past,
    "trace": Line,
    "top": Top,
    "queue export": Exported,
    "queue import": Imported,
    "queue explain": EXPLAINED,
    "queue verify": Report,
}


def schema(command: str) -> dict[str, Any]:
    """JSON Schema of a line. Raises KeyError."""
    made: dict[str, Any] = straight(msgspec.json.schema(ROWS[command]))
    return {"$schema": DRAFT, "title": f"a line of tripost {command} --json"} | made


def straight(part: Any) -> Any:
    """Descriptions without the line ends that our source has."""
    if isinstance(part, dict):
        table = cast(dict[str, Any], part)
        return {
            name: " ".join(value.split()) if name == "description" and isinstance(value, str) else straight(value)
            for name, value in table.items()
        }
    return [straight(one) for one in part] if isinstance(part, list) else part  # pyright: ignore[reportUnknownVariableType]
