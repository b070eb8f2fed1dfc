"""the way of a browser through the monitor's door: asked, let in, kept from foreign pages, let out"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from support.gateways import Running, running
from support.monitor import ACT, LOOK, Caller, write_tokens

FAR = {"X_Forwarded_For": "192.0.2.7"}  # as a proxy on this machine has it
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: pathlib.Path = tmp_path_factory.mktemp("login")
    with running(folder, write_tokens(folder) + 'origins = ["https://mon.example.com"]\n') as one:
        yield one


def test_a_browser_from_elsewhere_logs_in_and_out(gateway: Running) -> None:
    far = Caller(gateway, "", **FAR, Host="mon.example.com")
    asked = far.get("/", Accept="text/html")
    assert (asked.status, b"<form" in asked.body) == (401, True)
    wrong = far.ask("POST", "/login", b"token=wrong-wrong-wrong", Content_Type=FORM)
    assert wrong.status == 401
    let_in = far.ask("POST", "/login", b"token=" + ACT.encode(), Content_Type=FORM, Origin="https://mon.example.com")
    assert (let_in.status, let_in.headers["location"]) == (303, "/")
    cookie = let_in.headers["set-cookie"]
    assert cookie.startswith("__Host-tripost=act.")  # the proxy speaks TLS for an origin that is configured
    assert cookie.endswith("; HttpOnly; SameSite=Strict; Secure")
    assert ACT not in cookie
    far.headers["Cookie"] = cookie.partition(";")[0]
    assert far.get("/").status == 200
    assert far.get("/api/v1/session").json["may"] == "act"
    hold = "/api/v1/queue/hold"
    assert far.ask("POST", hold, b'{"id":"x"}').status == 403  # a browser tells its Origin
    assert far.ask("POST", hold, b'{"id":"x"}', Origin="https://evil.example").status == 403
    assert far.ask("POST", hold, b'{"id":"x"}', Origin="https://mon.example.com").status == 409  # there is no x
    out = far.ask("POST", "/logout", Origin="https://mon.example.com")
    assert (out.status, "Max-Age=0" in out.headers["set-cookie"]) == (204, True)
    assert far.get("/").status == 401  # though the browser kept it


def test_a_script_logs_in(gateway: Running) -> None:
    here = Caller(gateway)
    let_in = here.post("/login", token=LOOK)
    assert let_in.status == 204
    assert let_in.headers["set-cookie"].startswith("tripost=look.")
    here.headers["Cookie"] = let_in.headers["set-cookie"].partition(";")[0]
    assert here.get("/api/v1/session").json["may"] == "look"
    for body in (b"", b"{}", b"[]", b'{"token":7}', b"nonsense", b'{"token":""}'):
        assert Caller(gateway).ask("POST", "/login", body).status == 400
    assert Caller(gateway).get("/login").status == 405


def test_the_page_is_kept_by_browsers_until_it_changes(gateway: Running) -> None:
    here = Caller(gateway)
    page = here.get("/")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    again = here.get("/", If_None_Match=page.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert here.ask("HEAD", "/").headers["content-length"] == str(len(page.body))


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0o600, "No such file"),
        (b"", 0o600, "is empty"),
        (b"\n", 0o600, "is empty"),
        (b"short\n", 0o600, "at least 16"),
        (b"\xff" * 20, 0o600, "ASCII"),
        (b"x" * 20 + b"\n", 0o644, "open to every user"),
        (b"x" * 20 + b"\n", 0o640, ""),
    ],
)
def test_check_tells_of_a_token_that_cannot_be_used(
    tmp_path: pathlib.Path, content: bytes | None, mode: int, says: str
) -> None:
    token = tmp_path / "act.token"
    if content is not None:
        token.write_bytes(content)
        token.chmod(mode)
    gateway = Running(tmp_path, '[monitor]\ntoken_file = "act.token"\n')
    done = gateway.command("check")
    assert (done.returncode, says in done.stderr) == (2 if says else 0, True), done.stderr
    assert "xxxx" not in done.stderr
    if says:
        assert "monitor.token_file" in done.stderr
        start = gateway.command("serve")
        assert (start.returncode != 0, says in start.stderr) == (True, True)
