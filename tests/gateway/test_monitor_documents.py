"""the documents of the monitor's interfaces are what their standards ask for"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from tripost.gateway.control.action_verbs import VERBS
from tripost.gateway.monitor.api_table import OPERATIONS, PREFIX

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


def test_a_planted_fault_in_the_document_is_found() -> None:
    wrong = openapi()
    del wrong["paths"][f"{PREFIX}/status"]["get"]["responses"]["200"]["description"]
    assert list(OpenAPIV31SpecValidator(wrong).iter_errors())
