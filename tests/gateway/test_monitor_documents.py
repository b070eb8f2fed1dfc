"""the documents of the monitor's interfaces are what their standards ask for"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jsonschema
from openapi_spec_validator import OpenAPIV31SpecValidator

from tripost.gateway.control.action_verbs import VERBS
from tripost.gateway.monitor.api_table import OPERATIONS, PREFIX
from tripost.gateway.monitor.event_feed import CONDITIONS
from tripost.gateway.monitor.feed import Picture

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


def openapi() -> dict[str, Any]:
    made: dict[str, Any] = json.loads((DOCS / "openapi.json").read_text())
    return made


def test_openapi_is_valid() -> None:
    assert [str(one) for one in OpenAPIV31SpecValidator(openapi()).iter_errors()] == []


def test_openapi_tells_every_operation() -> None:
    told = {(path, method) for path, methods in openapi()["paths"].items() for method in methods}
    assert told == {(one.path, "post" if one.acts else "get") for one in OPERATIONS} | {(f"{PREFIX}/session", "get")}
    assert {f"queue.{verb}" for verb in VERBS} <= {one.verb for one in OPERATIONS if one.acts}


def asyncapi() -> dict[str, Any]:
    made: dict[str, Any] = json.loads((DOCS / "asyncapi.json").read_text())
    return made


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for one in part.values():
            yield from references(one)
    elif isinstance(part, list):
        for one in part:
            yield from references(one)


def test_asyncapi_names_nothing_that_is_not_there() -> None:
    document = asyncapi()
    assert document["asyncapi"] == "3.0.0"
    assert set(document["channels"]) == set(document["operations"]) == {"live", "events", "trace"}
    for reference in references(document):
        found: Any = document
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
    for message in document["components"]["messages"].values():
        jsonschema.Draft202012Validator.check_schema(message["payload"])


def test_asyncapi_tells_every_condition_and_every_member() -> None:
    document = asyncapi()
    text = document["channels"]["events"]["description"]
    assert [one for one in CONDITIONS if f"`{one}`" not in text] == []
    schemas = document["components"]["schemas"]
    assert set(Picture.__struct_fields__) <= set(schemas["Snapshot"]["properties"])
    assert set(Picture.__struct_fields__) | {"kind", "tick", "sample"} == set(schemas["Delta"]["properties"])


def test_a_planted_fault_in_the_document_is_found() -> None:
    wrong = openapi()
    del wrong["paths"][f"{PREFIX}/status"]["get"]["responses"]["200"]["description"]
    assert list(OpenAPIV31SpecValidator(wrong).iter_errors())
