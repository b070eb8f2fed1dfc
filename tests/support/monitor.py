"""the monitor's port, asked as scripts and browsers ask it"""

from __future__ import annotations

import http.client
import json
import pathlib
from typing import Any, NamedTuple

from support.gateways import Running

ACT, LOOK = "acting-token-of-these-tests", "looking-token-of-these-tests"
TOKENS = '[monitor]\ntoken_file = "act.token"\nread_token_file = "look.token"\n'


def write_tokens(folder: pathlib.Path) -> str:
    """What to add to a gateway's configuration, for tokens in its folder."""
    for name, token in (("act", ACT), ("look", LOOK)):
        (folder / f"{name}.token").write_text(f"{token}\n")
        (folder / f"{name}.token").chmod(0o600)
    return TOKENS


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """`token` "" for none; `host` as the Host header has it."""

    def __init__(self, gateway: Running, token: str = "", *, address: str = "127.0.0.1", **headers: str) -> None:
        self.address = address
        self.port = gateway.monitor
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection(self.address, self.port, timeout=30)
        try:
            more = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, self.headers | more)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, **headers)

    def post(self, path: str, **arguments: Any) -> Reply:
        return self.ask("POST", path, json.dumps(arguments).encode(), Content_Type="application/json")
