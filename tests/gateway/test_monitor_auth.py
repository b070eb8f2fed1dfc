"""who may look and who may act on the monitor's port: the rules, one by one"""

from __future__ import annotations

import pytest

from tripost.gateway.monitor.auth import SESSION, Asker, Doorman, Tokens

ACT, LOOK = "a" * 32, "l" * 32
HERE = Asker(client="127.0.0.1", loopback=True, secure=False)
FAR = Asker(client="192.0.2.7", loopback=False, secure=False)
HOST = {"host": "localhost:8025"}
NOW = 1_800_000_000.0


def doorman(act: str = ACT, look: str = LOOK, origins: tuple[str, ...] = ("https://mon.example.com",)) -> Doorman:
    return Doorman(Tokens(act, look), list(origins), lambda n: b"\x07" * n)


def bearer(token: str) -> dict[str, str]:
    return HOST | {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("host", ["localhost", "localhost:8025", "127.0.0.1:1", "127.9.9.9", "[::1]:8025", "[::1]"])
def test_loopback_looks_by_its_names(host: str) -> None:
    assert doorman().judge(HERE, {"host": host}, NOW).may == "look"


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "10.0.0.1:8025", "127.0.0.1.evil.example"]
)
def test_a_name_that_was_pointed_at_us_reads_nothing(host: str) -> None:
    verdict = doorman().judge(HERE, {"host": host}, NOW)
    assert (verdict.may, verdict.status) == ("nothing", 403)


@pytest.mark.parametrize(
    "header", ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-anything", "x-real-ip", "via"]
)
def test_who_asks_through_somebody_is_not_here(header: str) -> None:
    verdict = doorman().judge(HERE, HOST | {header: "127.0.0.1"}, NOW)
    assert (verdict.may, verdict.status) == ("nothing", 401)
    assert doorman().judge(HERE, bearer(ACT) | {header: "192.0.2.1"}, NOW).may == "act"


def test_tokens_open_what_they_are_for_from_anywhere() -> None:
    assert doorman().judge(FAR, bearer(ACT), NOW).may == "act"
    assert doorman().judge(FAR, bearer(LOOK), NOW).may == "look"
    assert doorman().judge(FAR, bearer(ACT) | {"host": "mon.example.com"}, NOW).may == "act"
    assert doorman().judge(FAR, bearer(ACT) | {"host": "tripost:8025"}, NOW).may == "act"  # Prometheus
    assert doorman().judge(FAR, HOST, NOW).status == 401


@pytest.mark.parametrize("value", ["Bearer x", "Bearer ", "Bearer", "Basic YTpi", f"Bearer {ACT}x", "Bearer \xff"])
def test_a_wrong_token_is_told_even_here(value: str) -> None:
    assert doorman().judge(HERE, HOST | {"authorization": value}, NOW).status == 401


def test_without_token_files_no_token_is_right() -> None:
    none = doorman("", "")
    for token in ("", "x" * 32):
        assert none.judge(FAR, bearer(token), NOW).status == 401
    assert not none.login
    forged = doorman("", "").session("act", NOW)
    assert none.judge(FAR, HOST | {"cookie": f"tripost={forged}"}, NOW).status == 401


def test_wrong_tokens_are_not_looked_at_for_ever() -> None:
    one = doorman()
    found = [one.judge(FAR, bearer("x" * 32), NOW).status for _ in range(15)]
    assert found == [401] * 10 + [429] * 5
    barred = one.judge(FAR, bearer(ACT), NOW)
    assert (barred.status, barred.may) == (429, "nothing")
    assert 0 < barred.wait <= 120
    other = Asker(client="192.0.2.8", loopback=False, secure=False)
    assert one.judge(other, bearer(ACT), NOW).may == "act"
    assert one.judge(FAR, bearer(ACT), NOW + 121).may == "act"


def test_a_session_holds_no_token_and_outlives_a_restart() -> None:
    cookie = doorman().session("act", NOW)
    assert ACT not in cookie
    headers = HOST | {"cookie": f"a=b; tripost={cookie}"}
    assert doorman().judge(FAR, headers, NOW + 60).may == "act"  # another doorman, the same token
    assert doorman().judge(FAR, headers | {"host": "other.example.com"}, NOW).status == 403
    assert doorman("b" * 32).judge(FAR, headers, NOW + 60).status == 401  # the token was changed
    assert doorman().judge(FAR, headers, NOW + SESSION + 1).status == 401
    assert doorman().judge(FAR, HOST | {"cookie": f"tripost={cookie.replace('act', 'look')}"}, NOW).status == 401


@pytest.mark.parametrize(
    "value", ["", ".", "...", "act", "act.x.y.z", "act.9999999999.00.\xff", "look.9999999999.00.00"]
)
def test_what_is_no_session_opens_nothing(value: str) -> None:
    assert doorman().judge(FAR, HOST | {"cookie": f"tripost={value}"}, NOW).status == 401


def test_logging_out_ends_a_session() -> None:
    one = doorman()
    headers = HOST | {"cookie": f"tripost={one.session('look', NOW)}"}
    assert one.judge(FAR, headers, NOW).may == "look"
    one.revoke(headers, NOW, secure=False)
    assert one.judge(FAR, headers, NOW).status == 401


def test_cookies_are_for_browsers_that_keep_rules() -> None:
    plain, secure = Doorman.set_cookie("v", secure=False), Doorman.set_cookie("v", secure=True)
    assert plain == "tripost=v; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"
    assert secure.startswith("__Host-tripost=v; ")
    assert secure.endswith("; Secure")


@pytest.mark.parametrize(
    ("headers", "good"),
    [
        ({}, True),
        ({"origin": "http://localhost:8025"}, True),
        ({"origin": "https://mon.example.com"}, True),
        ({"origin": "http://localhost:9999"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"cookie": "tripost=x"}, False),
        ({"cookie": "tripost=x", "origin": "http://localhost:8025"}, True),
        ({"cookie": "tripost=x", "authorization": "Bearer x"}, True),
    ],
)
def test_foreign_pages_are_refused(headers: dict[str, str], good: bool) -> None:
    assert (doorman().foreign(HERE, HOST | headers) == "") is good
