"""logins without threads and files, so that the clock may be a fake one"""

from __future__ import annotations

import base64

from tripost.gateway.accounts import Accounts
from tripost.gateway.guard import Guard
from tripost.gateway.login import Cleartext, Logins
from tripost.gateway.sasl import ScramKeys, scram_keys
from tripost.gateway.windows import Rate
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock


class FakeAccounts(Accounts):
    """`passwords`: account → password; those in `scram_for` have SCRAM keys too; who begins with off@ is disabled."""

    def __init__(self, passwords: dict[str, str], scram_for: tuple[str, ...] = ()) -> None:
        super().__init__("/nowhere/accounts")
        self.passwords = passwords
        self.keys = {name: scram_keys(passwords[name], b"0123456789abcdef", 4096) for name in scram_for}

    def find(self, name: str) -> str:
        return name.lower() if name.lower() in self.passwords else ""

    def disabled(self, address: str) -> bool:
        return address.startswith("off@")

    @property
    def has_scram(self) -> bool:
        return bool(self.keys)

    def scram(self, name: str) -> ScramKeys:
        return self.keys.get(self.find(name)) or ScramKeys(4096, b"0" * 16, b"0" * 32, b"0" * 32, real=False)

    async def verify(self, name: str, password: str, service: str = "", client: str = "") -> bool:
        return self.passwords.get(self.find(name)) == password


def logins(bus: Bus, clock: Clock, accounts: Accounts, cleartext: Cleartext = "never") -> Logins:
    return Logins(accounts, Guard(Rate(10, 600.0), 900.0), bus, clock, cleartext=cleartext)


def plain(name: str, password: str, authorization: str = "") -> str:
    return base64.b64encode(f"{authorization}\0{name}\0{password}".encode()).decode()


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
