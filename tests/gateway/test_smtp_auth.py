"""logging in by SMTP, and what an account may do then"""

from __future__ import annotations

import base64
import hashlib
import hmac
import pathlib
import ssl

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from support.lab import Lab, lab
from support.logins import FakeAccounts, b64, logins, plain
from tripost.gateway.ingress.authenticating import DENIALS
from tripost.gateway.ingress.quotas import Quotas
from tripost.gateway.ingress.smtp_session import serve_smtp
from tripost.gateway.login import Logins
from tripost.gateway.peer import Peer, TlsFacts
from tripost.gateway.sasl import ScramKeys
from tripost.gateway.windows import Rate
from tripost.queue import events

FRED = "fred@truc.fr"
HELLO = "EHLO c\r\n"
IN = HELLO + f"AUTH PLAIN {plain(FRED, 'secret')}\r\n"
FAR = f"MAIL FROM:<{FRED}>\r\nRCPT TO:<a@far.example>\r\n"
LETTER = FAR + "DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"
TLS = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
INSIDE = Peer(client="192.0.2.1", service="submission", tls=TLS)
OUTSIDE = Peer(client="192.0.2.1", service="submission")


@pytest.fixture
async def one(autojump_clock: MockClock, tmp_path: pathlib.Path):  # type: ignore[no-untyped-def]
    async with lab(tmp_path) as made:
        made.dispatcher.stop()
        yield made


def _logins(one: Lab, scram: bool = False, **more: str) -> Logins:
    passwords = {FRED: "secret", "off@truc.fr": "secret", "x@truc.fr": "pass"}
    return logins(one.bus, one.clock, FakeAccounts(passwords, (FRED,) if scram else ()), **more)  # type: ignore[arg-type]


async def _talk(one: Lab, text: str, peer: Peer = INSIDE, **more: object) -> list[str]:
    return await one.talk(text.encode(), peer=peer, **({"logins": _logins(one)} | more))


async def test_auth_is_announced_exactly_where_it_works(autojump_clock: MockClock, one: Lab) -> None:
    with_scram = {"logins": _logins(one, scram=True)}
    cases: list[tuple[Peer, dict[str, object], list[str]]] = [
        (INSIDE, {}, ["AUTH PLAIN LOGIN"]),
        (INSIDE, with_scram, ["AUTH PLAIN LOGIN SCRAM-SHA-256"]),
        (OUTSIDE, {}, []),
        (OUTSIDE, with_scram, ["AUTH SCRAM-SHA-256"]),
        (OUTSIDE, {"logins": _logins(one, cleartext="always")}, ["AUTH PLAIN LOGIN"]),
        (OUTSIDE, {"logins": None}, []),
    ]
    for peer, more, found in cases:
        assert [row[4:] for row in await _talk(one, HELLO, peer, **more) if "AUTH" in row] == found
    after = await _talk(one, IN + HELLO)
    assert sum("AUTH" in row for row in after) == 1
    assert "250-MT-PRIORITY" in after


async def test_an_account_that_was_just_added_counts(autojump_clock: MockClock, one: Lab) -> None:
    accounts = FakeAccounts({FRED: "secret"})
    context = one.ingress(logins=logins(one.bus, one.clock, accounts))
    assert context.mechanisms(OUTSIDE) == ()
    accounts.keys = FakeAccounts({FRED: "secret"}, (FRED,)).keys
    assert context.mechanisms(OUTSIDE) == ("SCRAM-SHA-256",)


async def test_plain_then_mail(autojump_clock: MockClock, one: Lab) -> None:
    replies = await _talk(one, IN + "AUTH PLAIN\r\n" + LETTER + "QUIT\r\n")
    rest = replies[replies.index(f"235 2.7.0 welcome, {FRED}") :]
    assert [row[:9] for row in rest[1:4]] == ["503 5.5.1", "250 2.1.0", "250 2.1.5"]
    (lease,) = await one.queue.claim("mx:far.example", 1)
    assert (lease.envelope.account, lease.envelope.client) == (FRED, "192.0.2.1")
    content = await (await one.queue.open_body(lease)).read()
    assert b" with ESMTPSA id " in content
    # RFC 6409 §8: what the program left out
    assert b"\r\nDate: " in content
    assert f"\r\nMessage-ID: <{lease.envelope.id}@smtp.truc.fr>\r\n".encode() in content
    assert [two.account for two in one.events(events.LoggedIn)] == [FRED]


async def test_fix_ups_are_for_submission_only(autojump_clock: MockClock, one: Lab) -> None:
    complete = LETTER.replace("Subject: x", "Date: d\r\nMessage-Id: <m@x>")
    for peer, text in ((INSIDE, IN + complete), (Peer(client="127.0.0.1"), HELLO + LETTER)):
        await _talk(one, text, peer)
        (lease,) = await one.queue.claim("mx:far.example", 1)
        content = await (await one.queue.open_body(lease)).read()
        assert content.lower().count(b"\r\nmessage-id:") == (b"Message-Id: <m@x>" in content)
        assert b"\r\nDate: " not in content.replace(b"Date: d\r\n", b"")


async def test_login_line_by_line(autojump_clock: MockClock, one: Lab) -> None:
    text = HELLO + f"AUTH LOGIN\r\n{b64(FRED)}\r\n{b64('secret')}\r\n"
    replies = await _talk(one, text)
    assert replies[-3:-1] == [f"334 {b64('Username:')}", f"334 {b64('Password:')}"]
    assert replies[-1].startswith("235")
    assert (await _talk(one, HELLO + f"AUTH PLAIN\r\n{plain(FRED, 'secret')}\r\n"))[-2:][0] == "334 "
    assert (await _talk(one, HELLO + f"AUTH LOGIN {b64(FRED)}\r\n{b64('secret')}\r\n"))[-1].startswith("235")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (f"AUTH PLAIN {plain(FRED, 'wrong')}", "535 5.7.8 wrong user or password"),
        (f"AUTH PLAIN {plain('no@truc.fr', 'x')}", "535 5.7.8 wrong user or password"),
        (f"AUTH PLAIN {plain(FRED, 'secret', 'x@truc.fr')}", "535 5.7.8 wrong user or password"),
        (f"AUTH PLAIN {plain('off@truc.fr', 'secret')}", "525 5.7.13"),
        (f"AUTH PLAIN {plain('off@truc.fr', 'wrong')}", "535 5.7.8"),
        ("AUTH PLAIN ====", "501 5.5.2"),
        ("AUTH PLAIN =", "501 5.5.2"),
        ("AUTH LOGIN\r\n*", "501 5.7.0"),
        ("AUTH LOGIN\r\n" + "x" * 12_400, "500 5.5.6"),
        ("AUTH CRAM-MD5", "504 5.5.4"),
        ("AUTH SCRAM-SHA-256 biwsbj1hLHI9YQ==", "504 5.5.4"),
        ("AUTH", "501 5.5.4"),
    ],
)
async def test_who_is_not_let_in(autojump_clock: MockClock, one: Lab, line: str, code: str) -> None:
    replies = await _talk(one, HELLO + line + "\r\n" + FAR)
    assert replies[-3].startswith(code)
    assert [row[:9] for row in replies[-2:]] == ["530 5.7.0", "503 5.5.1"]
    assert one.events(events.Refused)[-3].phase == "auth"


async def test_in_plain_text(autojump_clock: MockClock, one: Lab) -> None:
    assert (await _talk(one, IN, OUTSIDE))[-1].startswith("502 5.5.1")
    starting = Peer(client="192.0.2.1", service="submission", context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    replies = await _talk(one, IN + FAR, starting)
    assert [row[:9] for row in replies[-3:]] == ["538 5.7.11"[:9], "530 5.7.0", "503 5.5.1"]


async def test_scram(autojump_clock: MockClock, one: Lab) -> None:
    ours, theirs = memory_stream_pair()
    keys: ScramKeys = FakeAccounts({FRED: "secret"}, (FRED,)).keys[FRED]

    async def ask(text: str) -> str:
        await ours.send_all(text.encode() + b"\r\n")
        return (await ours.receive_some()).decode()

    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_smtp(theirs, peer=OUTSIDE, context=one.ingress(logins=_logins(one, scram=True)))

        nursery.start_soon(serve)
        await ours.receive_some()
        await ask("EHLO c")
        first = f"n={FRED},r=abcdef"
        server_first = base64.b64decode((await ask(f"AUTH SCRAM-SHA-256 {b64('n,,' + first)}"))[4:]).decode()
        final = f"c=biws,{server_first.split(',')[0]}"
        message = f"{first},{server_first},{final}".encode()
        salted = hashlib.pbkdf2_hmac("sha256", b"secret", keys.salt, keys.iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(keys.stored_key, message, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
        answer = base64.b64decode((await ask(b64(f"{final},p={proof}")))[4:])
        assert answer == b"v=" + base64.b64encode(hmac.digest(keys.server_key, message, "sha256"))
        assert (await ask("")).startswith("235 2.7.0")
        assert (await ask(f"MAIL FROM:<{FRED}>")).startswith("250 2.1.0")
        await ours.aclose()


async def test_guessing_is_slow_and_soon_over(autojump_clock: MockClock, one: Lab) -> None:
    both = _logins(one)
    began = trio.current_time()
    wrong = f"AUTH PLAIN {plain(FRED, 'wrong')}\r\n"
    replies = await _talk(one, HELLO + wrong * 10 + IN, logins=both)
    assert trio.current_time() - began > 50  # 0.5, 1, 2, 4, 8, 8 … s
    assert [row[:9] for row in replies if row.startswith("535")] == ["535 5.7.8"] * 10
    assert replies[-1].startswith("454 4.7.0 too many failed logins, try again in ")
    other = Peer(client="198.51.100.1", service="submission", tls=TLS)
    assert (await _talk(one, IN, other, logins=both))[-1].startswith("454 4.7.0")  # the account is barred too
    await trio.sleep(901)
    assert (await _talk(one, IN, logins=both))[-1].startswith("235")


# --- what an account may do ---


@pytest.mark.parametrize(
    ("sender", "code"),
    [
        (FRED, "250 2.1.0"),
        ("Fred@TRUC.fr", "250 2.1.0"),
        ("fred+list@truc.fr", "250 2.1.0"),
        ("", "250 2.1.0"),
        ("sales@truc.fr", "250 2.1.0"),
        ("post@truc.fr", "550 5.7.1"),
        ("postmaster@truc.fr", "550 5.7.1"),
        ("fred@far.example", "550 5.7.1"),
        ("both@truc.fr", "550 5.7.1"),
        ("nobody@truc.fr", "550 5.7.1"),
    ],
)
async def test_submission_is_in_ones_own_name(
    autojump_clock: MockClock, tmp_path: pathlib.Path, sender: str, code: str
) -> None:
    aliases = {"sales@truc.fr": [FRED], "both@truc.fr": ["post@truc.fr", "x@far.example"]}
    async with lab(tmp_path, aliases=aliases) as one:
        one.dispatcher.stop()
        assert (await _talk(one, IN + f"MAIL FROM:<{sender}>\r\n"))[-1].startswith(code)
        # by port 25 an account relays, as whoever it says, as relay networks do
        smtp = Peer(client="192.0.2.1", tls=TLS)
        replies = await _talk(one, IN + f"MAIL FROM:<{sender}>\r\nRCPT TO:<a@far.example>\r\n", smtp)
        assert [row[:9] for row in replies[-2:]] == ["250 2.1.0", "250 2.1.5"]


async def test_an_accounts_rates(autojump_clock: MockClock, one: Lab) -> None:
    many = Quotas(account_messages=Rate(2, 3600), account_recipients=Rate(3, 86_400))
    both = _logins(one)
    assert sum("queued as" in row for row in await _talk(one, IN + LETTER * 2, quotas=many, logins=both)) == 2
    other = Peer(client="198.51.100.1", service="submission", tls=TLS)
    refused = (await _talk(one, IN + FAR, other, quotas=many, logins=both))[-2]
    assert refused.startswith("450 4.7.1 limit of 2 messages per hour for your account; again in ")
    few = Quotas(account_recipients=Rate(3, 86_400))
    text = IN + FAR + "RCPT TO:<b@far.example>\r\nRCPT TO:<c@far.example>\r\nRCPT TO:<d@far.example>\r\n"
    last = (await _talk(one, text, quotas=few, logins=both))[-1]
    assert last.startswith("450 4.7.1 limit of 3 recipients per day for your account; again in ")


async def test_a_proxy_may_say_who_has_logged_in(autojump_clock: MockClock, one: Lab) -> None:
    proxy = Peer(client="192.0.2.9", service="submission", xclient=True)
    text = f"EHLO p\r\nXCLIENT ADDR=198.51.100.7 LOGIN={FRED.replace('@', '+40')}\r\nEHLO q\r\n"
    replies = await _talk(one, text + LETTER, proxy)
    assert "queued as" in replies[-1]
    (lease,) = await one.queue.claim("mx:far.example", 1)
    assert (lease.envelope.account, lease.envelope.client) == (FRED, "198.51.100.7")


def test_every_denial_is_a_refusal() -> None:
    assert all(400 <= code < 600 and str(code)[0] == enhanced[0] for code, enhanced in DENIALS.values())
