"""docs/smtp.md says what the code does: every row of its tables is played or looked up"""

from __future__ import annotations

import inspect
import pathlib
import re

import msgspec
import pytest
from trio.testing import MockClock

from support.lab import Lab, lab
from support.logins import FakeAccounts, logins, plain
from tripost.delivery.null_mx import NullMx
from tripost.gateway.config import Config
from tripost.gateway.ingress.policy import Policy
from tripost.gateway.ingress.terms import Terms, offers
from tripost.gateway.peer import Peer, TlsFacts
from tripost.gateway.wiring_ingress import SMTP

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "smtp.md"
TLS = TlsFacts("TLSv1.3", "x", 256)
FRED = "fred@truc.fr"


def table(title: str) -> list[list[str]]:
    """The rows of the table under a heading."""
    section = DOCUMENT.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 2, title
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


REFUSALS = table("Refusals")


def octets(sent: str, *, lmtp: bool) -> bytes:
    """What the notation of the table stands for."""
    text = sent.strip("`")
    text = text.replace("{data}", "{rcpt}DATA⏎").replace("{rcpt}", "{mail}RCPT TO:<fred@truc.fr>⏎")
    text = text.replace("{mail}", "{hello}MAIL FROM:<fred@truc.fr>⏎").replace(
        "{hello}", f"{'L' if lmtp else 'E'}HLO c⏎"
    )
    text = re.sub(r"\{([^{}]+)\*([0-9]+)\}", lambda match: match[1] * int(match[2]), text)
    found = text.encode().replace("⏎".encode(), b"\r\n").replace(b"\\r", b"\r").replace(b"\\n", b"\n")
    return found.replace(b"\\0", b"\0").replace(b"\\xff", b"\xff")


async def played(one: Lab, where: str, text: bytes) -> list[str]:
    """All replies of a session at a place of the table's first column."""
    peers = {
        "smtp": Peer(client="127.0.0.1"),
        "stranger": Peer(client="192.0.2.1"),
        "lmtp": Peer(service="lmtp"),
        "tls first": Peer(client="192.0.2.1", require_tls=True),
        "submission": Peer(client="192.0.2.1", service="submission", tls=TLS),
        "account": Peer(client="192.0.2.1", service="submission", tls=TLS),
        "early talker": Peer(client="192.0.2.1"),
    }

    async def null_mx(domain: str) -> tuple[bool, float]:
        return domain == "null.example", 60.0

    policy = Policy(one.router, NullMx(null_mx, one.clock.now))
    more = {"logins": logins(one.bus, one.clock, FakeAccounts({FRED: "secret"})), "policy": policy}
    if where == "account":
        text = text.replace(b"EHLO c\r\n", f"EHLO c\r\nAUTH PLAIN {plain(FRED, 'secret')}\r\n".encode(), 1)
    if where == "early talker":
        more["greet_delay"] = 5.0  # type: ignore[assignment]
    return await one.talk(text, peer=peers[where], **more)


@pytest.mark.parametrize(("where", "what", "sent", "reply", "kept", "connection"), REFUSALS)
async def test_refusals(
    autojump_clock: MockClock,
    tmp_path: pathlib.Path,
    where: str,
    what: str,
    sent: str,
    reply: str,
    kept: str,
    connection: str,
) -> None:
    data = octets(sent, lmtp=where == "lmtp")
    async with lab(tmp_path) as one:
        one.dispatcher.stop()
        replies = await played(one, where, data)
        assert replies[-1].startswith(reply), (what, replies)
        assert all(len(row) <= 510 for row in replies)
        afterwards = await played(one, where, data + b"NOOP\r\nMAIL FROM:<>\r\n")
        if connection == "closed":
            assert kept == "nothing"
            assert afterwards == replies, what
            return
        assert afterwards[-2].startswith("250 2.0.0 nothing done"), (what, afterwards)
        # a transaction that is kept refuses a second MAIL, a session without takes it, and where nothing is kept it is
        # refused for want of a greeting, of TLS or of a login
        expected = {"all": ("503 5.5.1 ",), "session": ("250 2.1.0",), "nothing": ("503 5.5.1 say", "530 5.7.0")}[kept]
        assert afterwards[-1].startswith(expected), (what, afterwards[-1])
        assert ("say" in afterwards[-1]) <= (kept == "nothing")


@pytest.mark.parametrize(("where", "what", "sent", "reply"), table("Taken"))
async def test_taken(
    autojump_clock: MockClock, tmp_path: pathlib.Path, where: str, what: str, sent: str, reply: str
) -> None:
    async with lab(tmp_path) as one:
        one.dispatcher.stop()
        replies = await played(one, where, octets(sent, lmtp=False))
        assert replies[-1].startswith(reply), (what, replies)


def test_no_row_is_there_twice() -> None:
    assert len({(row[0], row[2]) for row in REFUSALS}) == len(REFUSALS) > 60


def test_extensions() -> None:
    rows = {row[0].strip("`"): row for row in table("Extensions")}
    base = Terms(hostname="h", message_size=1, recipients=1)
    everything = msgspec.structs.replace(
        base, starttls=True, mechanisms=("PLAIN",), trusted=True, xclient=True, hold_most=1, hold_until="x"
    )
    assert set(rows) == set(offers(everything)) | set(offers(msgspec.structs.replace(everything, secured=True)))
    assert {name for name, row in rows.items() if row[2] == "always"} == set(offers(base))


def test_decision_points() -> None:
    points = [name for name, found in vars(Policy).items() if inspect.iscoroutinefunction(found)]
    assert [row[0].strip("`") for row in table("Decision points")] == points


def test_profiles() -> None:
    assert tuple(row[0].strip("`") for row in table("Profiles")) == SMTP


NOT_OF_SMTP = {"login_delay"}


def test_limits() -> None:
    config = Config()
    keys = [row[0].strip("`") for row in table("Limits")]
    for key in keys:
        place, _, name = key.partition(".")
        assert hasattr(getattr(config, place), name), key
    limits = {
        f"limits.{one.name}" for one in msgspec.structs.fields(type(config.limits)) if one.name not in NOT_OF_SMTP
    }
    assert limits <= set(keys)
    assert {f"smtp.{one.name}" for one in msgspec.structs.fields(type(config.smtp))} <= set(keys)
    assert len(keys) == len(set(keys))


def test_modules_that_are_named_exist() -> None:
    folder = DOCUMENT.parent.parent / "gateway/tripost/gateway/ingress"
    named = set(re.findall(r"`([a-z_]+)`", DOCUMENT.read_text().partition("\n## Profiles")[0]))
    assert named
    assert all((folder / f"{name}.py").is_file() for name in named)
