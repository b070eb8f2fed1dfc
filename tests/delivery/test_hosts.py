"""which host, which address, TLS or not, logged in or not: against a peer in memory"""

from __future__ import annotations

import pathlib
import ssl
from collections.abc import Callable

import pytest
import trio
import trustme
from msgspec.structs import replace
from trio.testing import MockClock

from support.lab import Lab, lab
from support.queues import letter
from tripost.delivery.client_auth import AuthError, Scram, choose, parse_credentials
from tripost.delivery.client_tls import ClientTls
from tripost.delivery.dialling import order
from tripost.delivery.links import Unroutable
from tripost.delivery.rules import RouteRule
from tripost.delivery.settings import DeliverySettings, Destination
from tripost.gateway.sasl import CheckPassword, Exchange, Failure, NeedKeys, Step, Success, scram_keys
from tripost.queue import events

pytestmark = pytest.mark.usefixtures("processes")

CA = trustme.CA()
OFFERS = "250-peer\r\n250-PIPELINING\r\n250 STARTTLS"


def _server(*names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert(*names).configure_cert(context)
    return context


def _trusting() -> ClientTls:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return ClientTls(trio.current_time, context)


def _level(level: str) -> DeliverySettings:
    return DeliverySettings(hostname="smtp.truc.fr", default=Destination(tls=level))


async def _settled(one: Lab, patience: float = 5.0) -> None:
    end = trio.current_time() + patience
    while one.queue.statistics().queued and trio.current_time() < end:  # noqa: ASYNC110 - asks from outside
        await trio.sleep(0.01)


@pytest.mark.parametrize("level", ["may", "encrypt", "verify", "none"])
async def test_starttls_where_it_is_offered(autojump_clock: MockClock, tmp_path: pathlib.Path, level: str) -> None:
    async with lab(tmp_path, delivery=_level(level), tls=_trusting(), answers={"EHLO": OFFERS}) as one:
        one.peer.tls = _server("mx.machin.com")
        await one.send("a@machin.com")
        await _settled(one)
        assert len(one.peer.messages) == 1
        assert one.peer.secured == (level != "none")
        assert one.peer.lines.count("EHLO smtp.truc.fr") == 1 + (level != "none")  # what was said before does not count


@pytest.mark.parametrize(
    ("level", "offers", "certificate", "delivered", "reason"),
    [
        ("encrypt", False, "mx.machin.com", False, "4.7.4"),
        ("verify", False, "mx.machin.com", False, "4.7.4"),
        ("encrypt", True, "other.example", True, ""),
        ("may", True, "other.example", True, ""),
        ("verify", True, "other.example", False, "4.7.5"),
    ],
)
async def test_levels_are_kept(
    autojump_clock: MockClock,
    tmp_path: pathlib.Path,
    level: str,
    offers: bool,
    certificate: str,
    delivered: bool,
    reason: str,
) -> None:
    answers = {"EHLO": OFFERS if offers else "250 peer"}
    async with lab(tmp_path, delivery=_level(level), tls=_trusting(), answers=answers) as one:
        one.peer.tls = _server(certificate)
        await one.send("a@machin.com")
        await _settled(one)
        assert len(one.peer.messages) == delivered
        assert not any(line.startswith("MAIL") for line in one.peer.lines) or delivered
        if reason:
            assert reason in one.events(events.BackedOff)[0].reply


@pytest.mark.parametrize("how", ["refused", "garbage", "injected"])
async def test_broken_tls_is_remembered_and_gone_round(
    autojump_clock: MockClock, tmp_path: pathlib.Path, how: str
) -> None:
    go = {"refused": "454 not now", "garbage": "220 go\r\nwhatever", "injected": "220 go\r\n250 nice"}[how]
    async with lab(tmp_path, delivery=_level("may"), answers={"EHLO": OFFERS, "STARTTLS": go}) as one:
        await one.send("a@machin.com")
        await _settled(one)
        assert len(one.peer.messages) == 1
        assert one.peer.connections == 2
        await trio.sleep(10)
        await one.send("b@machin.com")  # in plain text at once
        await _settled(one)
        assert one.peer.connections == 3
        assert one.peer.lines.count("STARTTLS") == 1
        await trio.sleep(3600)
        await one.send("c@machin.com")
        await _settled(one)
        assert one.peer.lines.count("STARTTLS") == 2


async def test_sessions_are_used_again(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    context = _server("mx.machin.com")
    async with lab(tmp_path, delivery=_level("verify"), tls=_trusting(), answers={"EHLO": OFFERS}) as one:
        one.peer.tls = context
        for n in range(3):
            await one.send(f"u{n}@machin.com")
            await _settled(one)
            await trio.sleep(60)
        assert one.peer.secured == 3
        assert context.session_stats()["hits"] == 2


async def test_requiretls_goes_over_a_verified_connection_only(
    autojump_clock: MockClock, tmp_path: pathlib.Path
) -> None:
    answers = {"EHLO": "250-peer\r\n250-STARTTLS\r\n250 REQUIRETLS"}
    async with lab(tmp_path, delivery=_level("may"), tls=_trusting(), answers=answers) as one:
        one.peer.tls = _server("mx.machin.com")
        await one.send("plain@machin.com")
        await _settled(one)
        body = one.queue.new_body()
        await body.write(b"Subject: x\r\n\r\nhi\r\n")
        envelope = letter(one.queue.new_id(), "mx:machin.com", accepted=one.clock.now(), size=20)
        await one.queue.accept(replace(envelope, require_tls=True), body)
        await _settled(one)
        assert len(one.peer.messages) == 2
        assert one.peer.connections == 2  # the first one was not verified
        mails = [line for line in one.peer.lines if line.startswith("MAIL")]
        assert [line.endswith("REQUIRETLS") for line in mails] == [False, True]


# --- AUTH ---

KEYS = scram_keys("secret", b"salt-salt", 4096)


def _auth_server() -> tuple[Callable[[str], str], Callable[[str], str]]:
    """Answers to AUTH and to what follows a 334, by the server's side of the gateway."""
    state: list[Exchange] = []

    def told(step: Step) -> str:
        while True:
            if isinstance(step, CheckPassword):
                step = state[0].password_checked((step.account, step.password) == ("fred", "secret"))
            elif isinstance(step, NeedKeys):
                step = state[0].keys_found(KEYS)
            elif isinstance(step, Success):
                return "235 2.7.0 welcome"
            elif isinstance(step, Failure):
                return "535 5.7.8 no"
            else:
                return f"334 {step.text}"

    def auth(line: str) -> str:
        _, mechanism, *initial = line.split(" ")
        state[:] = [Exchange(mechanism, "servernonce")]
        return told(state[0].begin(initial[0] if initial else None))

    return auth, lambda line: told(state[0].reply(line))


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("password", ["secret", "wrong"])
async def test_a_smart_host_that_wants_a_password(tmp_path: pathlib.Path, mechanism: str, password: str) -> None:
    (tmp_path / "auth").write_text(f"# smart host\nfred:{password}\n")
    rule = RouteRule("*", "smtp://smart.example:587", (("tls", "verify"), ("auth", str(tmp_path / "auth"))))
    auth, more = _auth_server()
    ehlo = f"250-peer\r\n250-STARTTLS\r\n250 AUTH {mechanism}"
    async with lab(tmp_path, rules=[rule], tls=_trusting(), answers={"EHLO": ehlo, "AUTH": auth}) as one:
        one.peer.tls = _server("smart.example")
        one.peer.challenged = more
        await one.send("a@far.example")
        await _settled(one, 1.0)
        assert len(one.peer.messages) == (password == "secret")
        if password == "wrong":
            assert "smart.example [192.0.2.1]:587: 535" in one.events(events.BackedOff)[0].reply
        assert not any("secret" in line or "wrong" in line for line in one.peer.lines)


async def test_no_password_in_plain_text(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    (tmp_path / "auth").write_text("fred:secret\n")
    rule = RouteRule("*", "smtp://smart.example", (("auth", str(tmp_path / "auth")),))
    async with lab(tmp_path, rules=[rule], answers={"EHLO": "250-peer\r\n250 AUTH PLAIN LOGIN"}) as one:
        await one.send("a@far.example")
        await trio.sleep(1)
        assert "offers no way to log in" in one.events(events.BackedOff)[0].reply
        assert not any(line.startswith("AUTH") for line in one.peer.lines)


async def test_without_its_auth_file_a_route_waits(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    rule = RouteRule("*", "smtp://smart.example", (("auth", str(tmp_path / "gone")),))
    async with lab(tmp_path, rules=[rule]) as one:
        await one.send("a@far.example")
        await trio.sleep(1)
        assert "No such file" in one.events(events.BackedOff)[0].reply
        assert one.peer.connections == 0


def test_scram_says_the_same_however_it_was_typed() -> None:
    """RFC 5802 §5.1: SASLprep. The Roman numeral and the ligature are those of RFC 4013's examples and Unicode's."""
    typed, plain = Scram("\u2168 fred", "\ufb01sh\u00ad", "n1"), Scram("IX fred", "fish", "n1")
    challenge = b"r=n1more,s=c2FsdA==,i=4096"
    assert typed.first == plain.first == b"n,,n=IX fred,r=n1"
    assert typed.answer(challenge) == plain.answer(challenge)
    with pytest.raises(AuthError, match="prohibits"):
        Scram("fred", "bell\u0007", "n1")


def test_a_server_that_does_not_know_the_password_is_not_believed() -> None:
    client = Scram("fred", "secret", "clientnonce")
    client.answer(b"r=clientnoncemore,s=c2FsdA==,i=4096")
    with pytest.raises(AuthError, match="does not know"):
        client.answer(b"v=AAAA")
    assert not client.proven
    for challenge in [b"r=other,s=c2FsdA==,i=4096", b"r=clientnonce,s=c2FsdA==,i=4096", b"r=clientnoncex,s=!,i=4096"]:
        with pytest.raises(AuthError):
            Scram("fred", "secret", "clientnonce").answer(challenge)
    for iterations in [b"1", b"99999999", b"x"]:
        with pytest.raises(AuthError):
            Scram("fred", "secret", "n").answer(b"r=nx,s=c2FsdA==,i=" + iterations)


def test_the_best_mechanism_that_keeps_the_password() -> None:
    assert choose(["plain", "LOGIN"], private=False) is None
    assert choose(["PLAIN", "SCRAM-SHA-256"], private=False) is Scram
    assert [choose([one], private=True).__name__ for one in ("LOGIN", "PLAIN")] == ["Login", "Plain"]  # type: ignore[union-attr]
    assert parse_credentials("# x\n\nfred:a:b\n") == ("fred", "a:b")
    for text in ["", "fred", ":x", "fred:"]:
        with pytest.raises(ValueError, match="user:password"):
            parse_credentials(text)


# --- which address ---


@pytest.mark.parametrize(
    ("family", "first", "expected"),
    [
        ("any", 0, ["::1", "192.0.2.1", "::2", "192.0.2.2", "192.0.2.3"]),
        ("any", 4, ["192.0.2.1", "::1", "192.0.2.2", "::2", "192.0.2.3"]),
        ("prefer4", 6, ["192.0.2.1", "::1", "192.0.2.2", "::2", "192.0.2.3"]),
        ("4", 6, ["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        ("6", 0, ["::1", "::2"]),
    ],
)
def test_families_take_turns(family: str, first: int, expected: list[str]) -> None:
    assert order(["::1", "::2", "192.0.2.1", "192.0.2.2", "192.0.2.3"], family, first) == expected


async def test_a_silent_address_costs_a_quarter_second(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path) as one:
        one.names.found["mx.machin.com"] = ["2001:db8::1", "192.0.2.1"]
        one.peer.silent = {"2001:db8::1"}
        start = trio.current_time()
        await one.send("a@machin.com")
        await _settled(one)
        assert trio.current_time() - start < 0.5
        assert one.peer.addresses == ["2001:db8::1", "192.0.2.1"]
        await trio.sleep(10)
        await one.send("b@machin.com")
        await _settled(one)
        assert one.peer.addresses[2:] == ["192.0.2.1"]  # the family that answered goes first now


async def test_a_refused_address_costs_nothing(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path) as one:
        one.names.found["mx.machin.com"] = ["2001:db8::1", "192.0.2.1"]
        one.peer.refused = {"2001:db8::1"}
        start = trio.current_time()
        await one.send("a@machin.com")
        await _settled(one)
        assert trio.current_time() - start < 0.1


# --- routes ---


async def test_the_next_smart_host_when_one_is_down(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    async with lab(tmp_path, rules=[RouteRule("*", "smtp://one.example:25,two.example:26")]) as one:
        one.names.wrong["one.example"] = Unroutable("5.1.2", "no such host")
        await one.send("a@far.example")
        await _settled(one)
        assert one.events(events.Relayed)[0].host == "two.example"


async def test_lmtp_has_a_verdict_for_each(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    replies = iter(["250 2.0.0 one", "452 4.2.2 full", "550 5.2.0 three"])
    answers = {"LHLO": "250-peer\r\n250 PIPELINING", ".": lambda line: next(replies)}
    async with lab(tmp_path, rules=[RouteRule("*", "lmtp:///run/lmtp.sock")], answers=answers) as one:
        one.peer.each = True
        rcpts = "".join(f"RCPT TO:<{n}@far.example>\r\n" for n in range(3))
        await one.talk(f"EHLO x\r\nMAIL FROM:<fred@truc.fr>\r\n{rcpts}DATA\r\nhi\r\n.\r\nQUIT\r\n".encode())
        await trio.sleep(1)
        assert one.peer.addresses[0] == "/run/lmtp.sock"
        assert [row.recipient for row in one.events(events.Relayed)] == ["0@far.example"]
        assert [row.recipient for row in one.events(events.DeferredUntil)] == ["1@far.example"]
        assert [row.recipient for row in one.events(events.Bounced)] == ["2@far.example"]
        assert "LHLO smtp.truc.fr" in one.peer.lines


async def test_lmtp_that_ends_in_between(autojump_clock: MockClock, tmp_path: pathlib.Path) -> None:
    replies = iter(["250 2.0.0 one", ""])
    answers = {"LHLO": "250 peer", ".": lambda line: next(replies)}
    async with lab(tmp_path, rules=[RouteRule("*", "lmtp://box.example:24")], answers=answers) as one:
        one.peer.each = True
        rcpts = "".join(f"RCPT TO:<{n}@far.example>\r\n" for n in range(2))
        await one.talk(f"EHLO x\r\nMAIL FROM:<fred@truc.fr>\r\n{rcpts}DATA\r\nhi\r\n.\r\nQUIT\r\n".encode())
        await trio.sleep(1)
        assert [row.recipient for row in one.events(events.Relayed)] == ["0@far.example"]
        assert "connection lost" in one.events(events.DeferredUntil)[0].reply
