"""who gets in, by which way, and what a failure costs"""

from __future__ import annotations

import base64
import pathlib
from typing import Any

import pytest
import trio
import trio.testing

from tripost.gateway import accounts as accounts_module
from tripost.gateway.accounts import Accounts, AccountsError
from tripost.gateway.guard import Guard
from tripost.gateway.login import Denied, Logins
from tripost.gateway.peer import Peer, TlsFacts
from tripost.gateway.sasl import Challenge, ScramKeys, Success
from tripost.gateway.windows import Rate
from tripost.queue import events
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import Event

MARC = "marc@machin.com"
TLS = TlsFacts("TLSv1.3", "x", 256)
INSIDE = Peer(service="pop3", client="192.0.2.1", tls=TLS)


class FakeAccounts(Accounts):
    """No threads, so that the clock may be a fake one."""

    def __init__(self) -> None:
        super().__init__("/nowhere/accounts")
        self.passwords = {MARC: "secret", "off@machin.com": "secret"}
        self.broken = False
        self.asked = 0

    def find(self, name: str) -> str:
        return name.lower() if name.lower() in self.passwords else ""

    def disabled(self, address: str) -> bool:
        return address.startswith("off@")

    @property
    def has_scram(self) -> bool:
        return False

    def scram(self, name: str) -> ScramKeys:
        raise AccountsError("broken")

    async def verify(self, name: str, password: str, service: str = "", client: str = "") -> bool:
        self.asked += 1
        await trio.sleep(0.01 if name else 0.2)
        if self.broken:
            raise AccountsError("the file is broken")
        return self.passwords.get(self.find(name)) == password


class House:
    def __init__(self, accounts: Accounts, **more: Any) -> None:
        self.seen: list[Event] = []
        self.bus = Bus()
        self.bus.add_sink(self.seen.append)
        self.guard = Guard(Rate(10, 600.0), 900.0)
        self.logins = Logins(accounts, self.guard, self.bus, Clock(), **more)

    @property
    def entered(self) -> list[str]:
        return [one.account for one in self.seen if isinstance(one, events.LoggedIn)]

    def failed(self) -> list[tuple[str, str]]:
        return [(one.account, one.reason) for one in self.seen if isinstance(one, events.LoginFailed)]


@pytest.fixture
def accounts() -> FakeAccounts:
    return FakeAccounts()


def plain(name: str, password: str) -> str:
    return base64.b64encode(f"\0{name}\0{password}".encode()).decode()


async def test_right_and_wrong(accounts: FakeAccounts, autojump_clock: trio.testing.MockClock) -> None:
    house = House(accounts)
    assert await house.logins.password(INSIDE, "Marc@Machin.com", "secret") == Success(MARC)
    assert house.entered == [MARC]
    began = trio.current_time()
    for name in (MARC, "nobody@machin.com", ""):
        out = await house.logins.password(INSIDE, name, "wrong")
        assert out == Denied("credentials", "wrong user or password")
    # 0.5, 1, 2 s; how long the check took does not show
    assert trio.current_time() - began == pytest.approx(3.5)
    assert house.failed() == [(MARC, "credentials"), ("", "credentials"), ("", "credentials")]


async def test_plain_and_login(accounts: FakeAccounts, autojump_clock: trio.testing.MockClock) -> None:
    house = House(accounts)
    assert house.logins.mechanisms(INSIDE) == ("PLAIN", "LOGIN")
    assert await house.logins.attempt(INSIDE, "plain").begin(plain(MARC, "secret")) == Success(MARC)
    one = house.logins.attempt(INSIDE, "LOGIN")
    assert isinstance(await one.begin(None), Challenge)
    assert isinstance(await one.reply(base64.b64encode(b"MARC@machin.com").decode()), Challenge)
    assert await one.reply(base64.b64encode(b"secret").decode()) == Success(MARC)
    out = await house.logins.attempt(INSIDE, "PLAIN").begin(plain(MARC, "wrong"))
    assert isinstance(out, Denied)
    assert out.kind == "credentials"


@pytest.mark.parametrize(
    ("peer", "pop3", "smtp"),
    [
        (Peer(client="127.0.0.1"), True, False),
        (Peer(client=""), True, False),
        (Peer(client="192.0.2.1"), False, False),
        (Peer(client="192.0.2.1", tls=TLS), True, True),
    ],
)
async def test_passwords_in_plain_text(accounts: FakeAccounts, peer: Peer, pop3: bool, smtp: bool) -> None:
    house = House(accounts)
    for service, wanted in (("pop3", pop3), ("submission", smtp)):
        one = Peer(service=service, client=peer.client, tls=peer.tls)
        assert house.logins.passwords(one) is wanted
        assert bool(house.logins.mechanisms(one)) is wanted
        if not wanted:
            out = await house.logins.attempt(one, "PLAIN").begin(plain(MARC, "secret"))
            assert isinstance(out, Denied)
            assert out.kind == "cleartext"
            out = await house.logins.password(one, MARC, "secret")
            assert isinstance(out, Denied)
    assert not accounts.asked
    assert House(accounts, cleartext="always").logins.passwords(Peer(client="192.0.2.1"))
    assert not House(accounts, pop3_imap_cleartext="never").logins.passwords(Peer(service="pop3", client="::1"))


async def test_guessing_ends(accounts: FakeAccounts, autojump_clock: trio.testing.MockClock) -> None:
    house = House(accounts)
    for _ in range(10):
        await house.logins.password(INSIDE, MARC, "wrong")
    asked = accounts.asked
    out = await house.logins.password(INSIDE, MARC, "secret")
    assert isinstance(out, Denied)
    assert out.kind == "barred"
    assert out.seconds > 800
    other = Peer(service="submission", client="198.51.100.1", tls=TLS)  # the account, from elsewhere, by SMTP
    out = await house.logins.attempt(other, "PLAIN").begin(plain(MARC, "secret"))
    assert isinstance(out, Denied)
    assert out.kind == "barred"
    assert accounts.asked == asked
    await trio.sleep(901)
    assert await house.logins.password(INSIDE, MARC, "secret") == Success(MARC)


async def test_guesses_at_the_same_time_end_too(
    accounts: FakeAccounts, autojump_clock: trio.testing.MockClock
) -> None:
    house = House(accounts)
    found: list[Success | Denied] = []

    async def guess(password: str) -> None:
        found.append(await house.logins.password(INSIDE, MARC, password))

    async with trio.open_nursery() as nursery:
        for n in range(30):
            nursery.start_soon(guess, f"wrong{n}")
    # all had begun before the tenth was counted; nobody gets more out of them than that
    assert {one.kind for one in found if isinstance(one, Denied)} <= {"credentials", "barred"}
    assert house.guard.barred("192.0.2.1", MARC, trio.current_time()) > 0


async def test_a_disabled_account(accounts: FakeAccounts, autojump_clock: trio.testing.MockClock) -> None:
    house = House(accounts)
    out = await house.logins.password(INSIDE, "off@machin.com", "secret")
    assert out == Denied("disabled", "this account is disabled")
    out = await house.logins.password(INSIDE, "off@machin.com", "wrong")
    assert isinstance(out, Denied)
    assert out.kind == "credentials"
    assert house.failed() == [("off@machin.com", "disabled"), ("off@machin.com", "credentials")]
    assert house.entered == []


async def test_nobody_can_tell(accounts: FakeAccounts, autojump_clock: trio.testing.MockClock) -> None:
    house = House(accounts)
    accounts.broken = True
    out = await house.logins.password(INSIDE, MARC, "secret")
    assert isinstance(out, Denied)
    assert out.kind == "temporary"
    assert [one.reason for one in house.seen if isinstance(one, events.Trouble)] == ["the file is broken"]
    assert house.guard.barred("192.0.2.1", MARC, trio.current_time()) == 0
    out = await house.logins.attempt(INSIDE, "SCRAM-SHA-256").begin(None)
    assert isinstance(out, Denied)
    assert out.kind == "unknown"


async def test_what_is_no_exchange(accounts: FakeAccounts) -> None:
    house = House(accounts)
    for line, kind in (("*", "cancelled"), ("%", "malformed")):
        one = house.logins.attempt(INSIDE, "PLAIN")
        assert await one.begin(None) == Challenge("")
        out = await one.reply(line)
        assert isinstance(out, Denied)
        assert out.kind == kind
    assert not accounts.asked


async def test_threads_and_memory_of_the_real_ones(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Accounts(str(tmp_path / "accounts"))
    one.add(MARC, "secret", "SCRAM-SHA-256")
    house = House(one)
    assert house.logins.mechanisms(INSIDE) == ("PLAIN", "LOGIN", "SCRAM-SHA-256")
    plain_text = Peer(service="pop3", client="192.0.2.1")
    assert house.logins.mechanisms(plain_text) == ("SCRAM-SHA-256",)
    monkeypatch.setattr(accounts_module, "REMEMBER_MOST", 1)
    assert await house.logins.password(INSIDE, MARC, "secret") == Success(MARC)
    assert await house.logins.password(INSIDE, MARC, "secret") == Success(MARC)
