"""the AsyncAPI document of the monitor's websockets, made from the structs that are sent

docs/asyncapi.json is this document; a test holds it to it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tripost.gateway.cli.rows import ROWS, straight
from tripost.gateway.monitor.event_feed import Gap, Hello
from tripost.gateway.monitor.feed import Picture, Sample, Snapshot
from tripost.queue.events import AnyEvent

REF = "#/components/schemas/{name}"


def asyncapi() -> dict[str, Any]:
    """AsyncAPI 3.0."""
    line = ROWS["trace"]
    found, schemas = msgspec.json.schema_components(
        [Snapshot, Picture, Sample, Hello, Gap, AnyEvent, line], ref_template=REF
    )
    snapshot, picture, sample, hello, gap, event, dialogue = found
    schemas["Delta"] = _delta(schemas[_name(picture)], sample)
    messages = {
        "snapshot": _message("All of it, first and whenever a client was too slow for a delta.", snapshot),
        "delta": _message(
            "What changed since the message before: a JSON Merge Patch (RFC 7396).", {"$ref": REF.format(name="Delta")}
        ),
        "hello": _message("The first message: which events there are.", hello),
        "event": _message("An event, as the log has it.", event),
        "gap": _message("Some events are not told.", gap),
        "line": _message("What one side said in a session; or {}: nothing was said for a while.", dialogue),
    }
    made: dict[str, Any] = straight(
        {
            "asyncapi": "3.0.0",
            "info": {
                "title": "tripost",
                "version": "1",
                "description": "What the monitor's port tells by websocket: text messages, each one JSON object.",
            },
            "servers": {"gateway": {"host": "localhost:8025", "protocol": "ws"}},
            "channels": {
                "live": _channel("/live", "The whole picture, and what changes.", ("snapshot", "delta")),
                "events": _channel("/events", EVENTS, ("hello", "event", "gap")),
                "trace": _channel("/trace", "The redacted dialogue of live sessions.", ("line", "gap")),
            },
            "operations": {
                name: {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
                for name in ("live", "events", "trace")
            },
            "components": {"messages": messages, "schemas": schemas},
        }
    )
    return made


EVENTS = (
    "What happens, one message for each event. Query: `after` (a number: events from there on, over restarts too), "
    "`event` (kinds), and conditions on fields, `id`, `address`, `domain`, `next_hop`, `site`, `host`, `client`, "
    "`account`, `service`; with commas: any of these."
)


def _name(reference: Any) -> str:
    return str(reference["$ref"].rpartition("/")[2])


def _message(text: str, payload: Any) -> dict[str, Any]:
    return {"summary": text, "contentType": "application/json", "payload": payload}


def _channel(address: str, text: str, messages: tuple[str, ...]) -> dict[str, Any]:
    return {
        "address": address,
        "description": text,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }


def _delta(picture: dict[str, Any], sample: Any) -> dict[str, Any]:
    """As a picture, but only what changed: members of `hops` and `sites` in part, or null."""
    part = {"type": ["object", "null"]}
    own: dict[str, Any] = {
        "kind": {"const": "delta"},
        "tick": {"type": "integer", "description": "one more than that of the message before"},
        "sample": sample | {"description": "of the second that is over"},
        "hops": {"type": "object", "additionalProperties": part},
        "sites": {"type": "object", "additionalProperties": part},
    }
    objects = ("queue", "rates", "latency", "connections", "states", "clients", "dropped")
    own |= {name: {"type": "object"} for name in objects}
    return {
        "type": "object",
        "description": "Members of the picture that changed; objects in part, lists as a whole; null for what is gone.",
        "required": ["kind", "tick"],
        "properties": dict(picture["properties"]) | own,
    }
