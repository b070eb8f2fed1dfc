"""what /api/v1 offers: each operation is a verb of the control socket

One table, from which requests are served (`api`) and the OpenAPI document is made
(`openapi`). Pure.

Shape    GET looks: arguments are the query's, lists with commas. POST acts: arguments
         are the body's JSON object. Both as the verb takes them: times in seconds. The
         answer is {"rows": […], "sum": {…}}.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tripost.gateway.control.action_verbs import Change, Limit, Taking, Target
from tripost.gateway.control.queue_verbs import Filter, Shown, Topic
from tripost.gateway.control.route_verb import Address
from tripost.gateway.observe.past import About


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments, or no members."""


class Hops(msgspec.Struct, frozen=True):
    """`ages`: minutes, the bounds of each row's ages."""

    messages: int
    queued: int
    next_hops: int
    ages: list[int]


class Some(msgspec.Struct, frozen=True):
    """`more`: not all of them are here."""

    messages: int
    more: bool


class Messages(msgspec.Struct, frozen=True):
    messages: int


class Actions(msgspec.Struct, frozen=True):
    actions: int


class Suspensions(msgspec.Struct, frozen=True):
    suspensions: int


class Limits(msgspec.Struct, frozen=True):
    limits: int


class Session(msgspec.Struct, frozen=True):
    """`may`: nothing, look or act; `login`: there is a token to log in with."""

    may: str
    hostname: str
    version: str
    boot: int
    login: bool


class Problem(msgspec.Struct, frozen=True):
    """Why not."""

    error: str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """`row`, `sum`: the type of each row and of the sum; a text names a command whose `tripost schema` it is."""

    path: str
    verb: str
    text: str
    acts: bool = False
    arguments: type[Any] = Nothing
    row: type[Any] | str | None = None
    sum: type[Any] | str = Nothing


PREFIX = "/api/v1"
_CHANGES = {
    "hold": "Keep messages from being tried",
    "release": "Let held messages go on",
    "retry": "Try messages and their next hops now",
    "reroute": "Send messages another way",
    "priority": "Let messages go before or after others",
    "bounce": "Return messages to their senders",
    "delete": "Delete messages; nobody is told",
    "expire": "Return messages as if their time were up",
}


def _look(name: str, text: str, **more: Any) -> Operation:
    return Operation(path=f"{PREFIX}/queue/{name}", verb=f"queue.{name}", text=text, **more)


def _act(name: str, text: str, arguments: type[Any]) -> Operation:
    return Operation(
        path=f"{PREFIX}/queue/{name}",
        verb=f"queue.{name}",
        text=text,
        acts=True,
        arguments=arguments,
        sum=f"queue {name}",
    )


OPERATIONS: tuple[Operation, ...] = (
    Operation(path=f"{PREFIX}/status", verb="status", text="What the gateway is and does", sum="status"),
    _look("summary", "The queue by next hop and age", arguments=Filter, row="queue summary", sum=Hops),
    _look("list", "Queued messages", arguments=Filter, row="queue list", sum=Some),
    _look("count", "How many queued messages fit", arguments=Filter, sum="queue count"),
    _look(
        "show", "A message's envelope; its header and content for the acting token", arguments=Shown, row="queue show"
    ),
    _look("explain", "Why mail is not delivered yet", arguments=Topic, row="queue explain", sum=Some),
    _look("audit", "Who did what", row="queue audit", sum=Actions),
    _look("suspensions", "What is suspended", row="queue suspensions", sum=Suspensions),
    _look("limits", "Limits that operators set", row="queue limits", sum=Limits),
    Operation(
        path=f"{PREFIX}/history",
        verb="history",
        text="What became of messages",
        arguments=About,
        row="history",
        sum=Messages,
    ),
    Operation(path=f"{PREFIX}/route", verb="route", text="Where mail goes", arguments=Address, row="route"),
    *[_act(name, text, Change) for name, text in _CHANGES.items()],
    _act("undo", "Take back an action", Taking),
    _act("suspend", "Try nothing for a next hop, or from a sender, account or client", Target),
    _act("resume", "End a suspension", Target),
    _act("limit", "Set a site's limits, until told otherwise", Limit),
)
