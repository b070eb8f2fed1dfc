"""what events look like, for programs and for people

Both are made from the structs of `queue.events`: the JSON Schema of one line of
the log, and the tables of docs/events.md. `tripost events schema` and `tripost
events kinds` print them; a test holds the files in docs/ to it.
"""

from __future__ import annotations

import re
from typing import Any, get_args

import msgspec

from tripost.queue import events
from tripost.queue.events import AnyEvent, Event
from tripost.queue.message import Transfer

# heading of docs/events.md → its kinds
GROUPS: dict[str, tuple[type[Event], ...]] = {
    "The gateway": get_args(events.Lifecycle),
    "Clients": get_args(events.OfClients),
    "Messages": get_args(events.OfMessages),
    "Destinations": get_args(events.OfDestinations),
    "Operators": get_args(events.OfOperators),
}
KINDS: tuple[type[Event], ...] = tuple(kind for group in GROUPS.values() for kind in group)
EVERYWHERE = ("event", "time", "seq")
_TYPES = {"string": "text", "integer": "number", "number": "number", "boolean": "true or false"}


def name_of(kind: type[Event]) -> str:
    """As the field `event` has it."""
    return str(kind.__struct_config__.tag)


def schema() -> dict[str, Any]:
    """JSON Schema of one event, draft 2020-12."""
    made = msgspec.json.schema(AnyEvent)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of tripost: one line of the log",
    }
    return head | made


def kinds() -> str:
    """The tables of docs/events.md."""
    defined: dict[str, Any] = schema()["$defs"]
    parts: list[str] = []
    for group, members in GROUPS.items():
        parts.append(f"## {group}\n")
        for kind in members:
            parts.append(_section(f"### `{name_of(kind)}`\n", kind, defined[kind.__name__]))
    parts.append(_section("## `transfer`\n", Transfer, defined["Transfer"]))
    return "\n".join(parts)


def _section(title: str, kind: type[Any], shape: dict[str, Any]) -> str:
    text = re.sub(r"\s+", " ", kind.__doc__ or "").strip()
    rows = [
        f"| `{name}` | {_type(one)} | {_cell(one.get('description', ''))} |"
        for name, one in shape["properties"].items()
        if name not in EVERYWHERE
    ]
    table = "\n".join(["| field | | |", "| --- | --- | --- |", *rows, ""]) if rows else ""
    return f"{title}\n{text}\n\n{table}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _type(shape: dict[str, Any]) -> str:
    if "anyOf" in shape:
        return _type(shape["anyOf"][-1] if shape["anyOf"][0].get("type") == "null" else shape["anyOf"][0])
    if "$ref" in shape:
        return f"`{shape['$ref'].rpartition('/')[2].lower()}`"
    if shape["type"] == "array":
        return f"list of {_type(shape['items'])}"
    if shape["type"] == "object":
        return f"text → {_type(shape['additionalProperties'])}"
    return _TYPES[shape["type"]]
