"""/api/v1: what tripost queue does, over HTTP; looking and acting are told apart"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from support.gateways import Running, running, wait_for
from support.monitor import ACT, LOOK, Caller, write_tokens
from support.steering import send
from tripost.gateway.cli.rows import schema
from tripost.gateway.monitor.api_table import OPERATIONS

SLOW = '[[route]]\ndomain = "far.example"\nto = "smtp://127.0.0.1:1"\n'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: pathlib.Path = tmp_path_factory.mktemp("api")
    with running(folder, SLOW + write_tokens(folder)) as one:
        yield one


@pytest.fixture
def queued(gateway: Running) -> Iterator[list[str]]:
    """Three messages that wait."""
    ids = send(gateway, "u@far.example", count=3)
    yield ids
    act = Caller(gateway, ACT)
    assert act.post("/api/v1/queue/delete", id="*", now=True).status == 200
    assert wait_for(lambda: act.get("/api/v1/queue/count").json["sum"]["messages"] == 0)


def rows(reply: Any) -> list[dict[str, Any]]:
    assert reply.status == 200, reply.body
    found: list[dict[str, Any]] = reply.json["rows"]
    return found


def test_who_looks_is_told(gateway: Running, queued: list[str]) -> None:
    look = Caller(gateway)
    assert sorted(one["id"] for one in rows(look.get("/api/v1/queue/list"))) == sorted(queued)
    assert look.get("/api/v1/queue/list?limit=2").json["sum"] == {"messages": 2, "more": True}
    assert len(rows(look.get(f"/api/v1/queue/list?id={queued[0]}&states=deferred,down,ready,active"))) == 1
    (hop,) = rows(look.get("/api/v1/queue/summary"))
    assert hop["deliveries"] == 3
    assert rows(look.get("/api/v1/queue/summary?next_hop=*nowhere*")) == []
    assert [one["deliveries"] for one in rows(look.get("/api/v1/queue/summary?next_hop=*127.0.0.1*"))] == [3]
    assert rows(look.get(f"/api/v1/queue/explain?about={queued[0]}"))[0]["recipient"] == "u@far.example"
    assert rows(look.get("/api/v1/route?address=marc@machin.com")) == [
        {"address": "marc@machin.com", "next_hop": "local", "recipient": "marc@machin.com"}
    ]
    assert "refused" in rows(look.get("/api/v1/route?address=nobody@machin.com"))[0]
    assert look.get("/api/v1/status").json["sum"]["accepting"] is True
    (past,) = wait_for(lambda: look.get(f"/api/v1/history?about={queued[0]}").json.get("rows"))  # once it is stored
    assert past["id"] == queued[0]
    assert look.get("/api/v1/session").json["may"] == "look"
    assert Caller(gateway, ACT).get("/api/v1/session").json["may"] == "act"


def test_content_is_for_the_acting_token(gateway: Running, queued: list[str]) -> None:
    path = f"/api/v1/queue/show?id={queued[0]}"
    for caller in (Caller(gateway), Caller(gateway, LOOK)):
        reply = caller.get(path)
        assert rows(reply)[0]["sender"] == "fred@truc.fr"
        assert b"Subject" not in reply.body
        assert caller.get(f"{path}&content=true").status == 403
        for verb in ("list", "count"):  # nor is it told which message holds a text
            assert caller.get(f"/api/v1/queue/{verb}?header=Subject:%20x").status == 403
    act = Caller(gateway, ACT)
    assert "Subject: x" in rows(act.get(path))[0]["header"]
    whole = act.get(f"{path}&content=true")
    assert whole.headers["content-type"] == "message/rfc822"
    assert whole.body.endswith(b"Subject: x\r\n\r\nhi\r\n")
    assert len(rows(act.get("/api/v1/queue/list?header=Subject:%20x"))) == 3


def test_only_the_acting_token_acts(gateway: Running, queued: list[str]) -> None:
    for operation in OPERATIONS:
        if operation.acts:
            assert Caller(gateway).post(operation.path, id="*").status == 401, operation.path
            assert Caller(gateway, LOOK).post(operation.path, id="*").status == 403, operation.path
    assert Caller(gateway).post("/api/v1/queue/list").status == 401
    assert rows(Caller(gateway).get("/api/v1/queue/audit"))[:0] == []
    assert Caller(gateway).get("/api/v1/queue/count?states=held").json["sum"]["messages"] == 0


def test_acting_and_taking_back(gateway: Running, queued: list[str]) -> None:
    act = Caller(gateway, ACT)
    dry = act.post("/api/v1/queue/hold", sender="fred@*", dry_run=True).json["sum"]
    assert (dry["fit"], dry["changed"], dry["dry_run"]) == (3, 0, True)
    done = act.post("/api/v1/queue/hold", id=queued[0], reason="let me see").json["sum"]
    assert done["changed"] == 1
    assert act.get("/api/v1/queue/count?states=held").json["sum"]["messages"] == 1
    (mine,) = [one for one in rows(act.get("/api/v1/queue/audit")) if one["action"] == done["action"]]
    assert (mine["who"], mine["reason"]) == ("monitor token, from 127.0.0.1", "let me see")
    assert act.post("/api/v1/queue/undo", action=done["action"]).json["sum"]["undone"] == done["action"]
    assert act.get("/api/v1/queue/count?states=held").json["sum"]["messages"] == 0
    hop = rows(act.get("/api/v1/queue/summary"))[0]["next_hop"]
    assert act.post("/api/v1/queue/suspend", what=hop, seconds=60, reason="they move").status == 200
    assert rows(act.get("/api/v1/queue/suspensions"))[0]["reason"] == "they move"
    assert act.post("/api/v1/queue/resume", what=hop).status == 200
    assert act.post("/api/v1/queue/limit", site=hop, connections=3).status == 200
    assert rows(act.get("/api/v1/queue/limits"))[0]["connections"] == 3
    assert act.post("/api/v1/queue/limit", site=hop).json["sum"]["as_configured"] is True


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/v1/nothing", b"", 404),
        ("GET", "/api/v1/queue/hold", b"", 405),
        ("POST", "/api/v1/queue/list", b"{}", 405),
        ("PUT", "/api/v1/queue/hold", b"{}", 405),
        ("GET", "/api/v1/queue/list?unknown=1", b"", 400),
        ("GET", "/api/v1/queue/list?limit=many", b"", 400),
        ("GET", "/api/v1/queue/list?states=lost", b"", 400),
        ("GET", "/api/v1/queue/show", b"", 400),
        ("GET", "/api/v1/queue/show?id=none", b"", 404),
        ("GET", "/api/v1/history", b"", 400),
        ("POST", "/api/v1/queue/hold", b"", 400),
        ("POST", "/api/v1/queue/hold", b"[]", 400),
        ("POST", "/api/v1/queue/hold", b"{", 400),
        ("POST", "/api/v1/queue/hold", b'{"id": 7}', 400),
        ("POST", "/api/v1/queue/hold", b'{"id": "none"}', 409),
        ("POST", "/api/v1/queue/undo", b'{"action": "99999"}', 409),
        ("POST", "/api/v1/queue/suspend", b'{"kind": "moon", "what": "x"}', 400),
        ("POST", "/api/v1/queue/hold", b'{"id": "' + b"x" * 70_000 + b'"}', 413),
    ],
)
def test_what_is_wrong_is_told(gateway: Running, method: str, path: str, body: bytes, status: int) -> None:
    reply = Caller(gateway, ACT).ask(method, path, body or None)
    assert reply.status == status, reply.body
    assert reply.json["error"]


def test_answers_are_as_documented(gateway: Running, queued: list[str]) -> None:
    act = Caller(gateway, ACT)
    document = act.get("/api/v1/openapi.json").json
    paths = {
        "summary": "summary",
        "list": "list",
        "show": f"show?id={queued[0]}",
        "explain": f"explain?about={queued[0]}",
        "audit": "audit",
        "count": "count",
    }
    for name, path in paths.items():
        shape = document["paths"][f"/api/v1/queue/{name}"]["get"]["responses"]["200"]
        whole = shape["content"]["application/json"]["schema"] | {"components": document["components"]}
        jsonschema.validate(act.get(f"/api/v1/queue/{path}").json, whole)
    for row in rows(act.get("/api/v1/queue/list")):
        jsonschema.validate(row, schema("queue list"))  # as the command's --json
    assert json.dumps(document)
