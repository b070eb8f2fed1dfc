"""the OpenAPI document of /api/v1, made from the table that serves it

OpenAPI 3.1: its schemas are JSON Schema, the same that `tripost schema` prints.
docs/openapi.json is this document; a test holds it to it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tripost.gateway.cli.rows import ROWS, straight
from tripost.gateway.monitor.api_table import OPERATIONS, PREFIX, Operation, Problem, Session

REF = "#/components/schemas/{name}"
_PROBLEMS = {
    "400": "what cannot be meant",
    "401": "no token, or a wrong one",
    "403": "the token does not suffice, or the Host or Origin is foreign",
    "404": "nothing is found",
    "409": "it cannot be done",
    "429": "too many wrong tokens",
    "503": "it cannot be done now",
}


def openapi() -> dict[str, Any]:
    """OpenAPI 3.1."""
    types: list[type[Any]] = [Problem, Session]
    for one in OPERATIONS:
        types += [one.arguments, *[_type(part) for part in (one.row, one.sum) if part is not None]]
    types = list(dict.fromkeys(types))
    found, schemas = msgspec.json.schema_components(types, ref_template=REF)
    shapes = dict(zip(types, found, strict=True))
    paths: dict[str, Any] = {f"{PREFIX}/session": {"get": _session(shapes)}}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})["post" if one.acts else "get"] = _operation(one, shapes, schemas)
    made: dict[str, Any] = straight(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "tripost",
                "version": "1",
                "description": "What `tripost queue` does, over HTTP. Times are seconds since 1970, durations seconds.",
                "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"token": []}, {"session": []}],
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {
                    "token": {"type": "http", "scheme": "bearer"},
                    "session": {"type": "apiKey", "in": "cookie", "name": "tripost"},
                },
            },
        }
    )
    return made


def _type(part: type[Any] | str) -> type[Any]:
    return ROWS[part] if isinstance(part, str) else part


def _session(shapes: dict[type[Any], Any]) -> dict[str, Any]:
    return {
        "operationId": "session",
        "summary": "What this session may do",
        "responses": {"200": _json("so it is", shapes[Session])} | _problems(shapes),
    }


def _operation(one: Operation, shapes: dict[type[Any], Any], schemas: dict[str, Any]) -> dict[str, Any]:
    rows: Any = shapes[_type(one.row)] if one.row is not None else {}
    answer: dict[str, Any] = {
        "type": "object",
        "required": ["rows", "sum"],
        "properties": {"rows": {"type": "array", "items": rows}, "sum": shapes[_type(one.sum)]},
    }
    made: dict[str, Any] = {
        "operationId": one.verb.replace(".", "_"),
        "summary": one.text,
        "responses": {"200": _json("done", answer)} | _problems(shapes),
    }
    if one.acts:
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": shapes[one.arguments]}}}
        return made
    table = schemas[shapes[one.arguments]["$ref"].rpartition("/")[2]]
    made["parameters"] = [
        {
            "name": name,
            "in": "query",
            "required": name in table.get("required", []),
            "schema": shape,
        }
        | ({"style": "form", "explode": False} if shape.get("type") == "array" else {})
        for name, shape in table["properties"].items()
    ]
    return made


def _json(text: str, schema: Any) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _problems(shapes: dict[type[Any], Any]) -> dict[str, Any]:
    return {status: _json(text, shapes[Problem]) for status, text in _PROBLEMS.items()}
