"""logging in, for SMTP and POP3 alike

Drives a SASL exchange (`sasl`), asks the accounts and the guard, and tells the
bus. The session says the words of its protocol.

API      `Logins(…)`, one per gateway: `mechanisms(peer)` to be announced now;
         `passwords(peer)`: may a password be said here in plain text;
         `await password(peer, name, text)` for POP3's USER and PASS;
         `attempt(peer, mechanism)`, then `await begin(initial)` and `await
         reply(line)` until it is over:
           Challenge(text)           send `334 text` or `+ text`, then `reply`
           Success(account)          the account's own name; the session is its
           Denied(kind, text, …)     cancelled, malformed, credentials, disabled,
                                     barred, cleartext, unknown or temporary
Promise  What a failure costs is waited for before it is told, counted from the
         beginning of the attempt: how long hashing took does not show. Nothing
         tells whether an account exists, nor that it is disabled to those who do
         not know its password. Events name accounts that exist, no others: people
         mistake the fields of name and password.
Fails    never: what the accounts cannot tell is `temporary`, and an event.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable
from typing import Literal

import msgspec
import trio

from tripost.delivery.saslprep import saslprep
from tripost.gateway.accounts import Accounts, AccountsError
from tripost.gateway.guard import Guard
from tripost.gateway.peer import Peer
from tripost.gateway.sasl import (
    MECHANISMS,
    PASSWORD_LIMIT,
    Challenge,
    CheckPassword,
    Exchange,
    Failure,
    NeedKeys,
    Step,
    Success,
)
from tripost.queue.bus import Bus
from tripost.queue.clock import Clock
from tripost.queue.events import LoggedIn, LoginFailed, Trouble

PATIENCE = 30.0  # seconds for one look at the accounts
SCRAM = "SCRAM-SHA-256"
Cleartext = Literal["never", "loopback", "always"]
Kind = Literal[
    "cancelled", "malformed", "credentials", "disabled", "barred", "cleartext", "unknown", "temporary"
]
WRONG = "wrong user or password"


class Denied(msgspec.Struct, frozen=True):
    """Not logged in. `seconds` after which a try is taken again, where it is `barred`."""

    kind: Kind
    text: str
    seconds: float = 0.0


class Logins:
    """For all services of a gateway."""

    def __init__(
        self,
        accounts: Accounts,
        guard: Guard,
        bus: Bus,
        clock: Clock,
        *,
        mechanisms: tuple[str, ...] = MECHANISMS,
        cleartext: Cleartext = "never",
        pop3_imap_cleartext: Cleartext = "loopback",
    ) -> None:
        self.accounts = accounts
        self.guard = guard
        self._bus = bus
        self._clock = clock
        self._mechanisms = mechanisms
        self._cleartext = cleartext
        self._pop3_imap_cleartext = pop3_imap_cleartext

    def allow(self, mechanisms: tuple[str, ...], cleartext: Cleartext, pop3_imap_cleartext: Cleartext) -> None:
        """From now on."""
        self._mechanisms = mechanisms
        self._cleartext = cleartext
        self._pop3_imap_cleartext = pop3_imap_cleartext

    def passwords(self, peer: Peer) -> bool:
        """Inside of TLS, or where the configuration says so."""
        rule = self._pop3_imap_cleartext if peer.service in ("pop3", "imap") else self._cleartext
        return peer.tls is not None or rule == "always" or (rule == "loopback" and peer.loopback)

    def mechanisms(self, peer: Peer) -> tuple[str, ...]:
        """What works now, in the configured order. SCRAM shows no password, and needs an account that can."""
        passwords, scram = self.passwords(peer), False
        try:
            scram = self.accounts.has_scram
        except AccountsError as wrong:
            self._trouble(wrong)
        return tuple(one for one in self._mechanisms if (scram if one == SCRAM else passwords))

    def attempt(self, peer: Peer, mechanism: str) -> Attempt:
        return Attempt(self, peer, mechanism)

    async def password(self, peer: Peer, name: str, text: str) -> Success | Denied:
        """Is it the password of that account?"""
        began = trio.current_time()
        if not self.passwords(peer):
            return await self.denied(peer, name, _cleartext(), began)
        barred = self.barred(peer, name)
        if barred is not None:
            return await self.denied(peer, name, barred, began)
        try:
            text = saslprep(text) if len(text.encode()) <= PASSWORD_LIMIT else ""
            good = bool(text) and await self.check(peer, name, text)
        except ValueError:
            good = False
        except AccountsError as wrong:
            return await self.unavailable(peer, name, wrong, began)
        return await (self.admitted(peer, name, began) if good else self.denied(peer, name, _wrong(), began))

    # --- what an attempt needs ---

    async def check(self, peer: Peer, name: str, text: str) -> bool:
        """Raises AccountsError."""
        with trio.move_on_after(PATIENCE):
            return await self.accounts.verify(name, text, peer.service, peer.client)
        raise AccountsError("too many logins at once")

    def barred(self, peer: Peer, name: str) -> Denied | None:
        seconds = self.guard.barred(peer.client, name, trio.current_time())
        if not seconds:
            return None
        return Denied("barred", f"too many failed logins, try again in {seconds:.0f} s", seconds)

    async def admitted(self, peer: Peer, name: str, began: float) -> Success | Denied:
        """The password is right. Failures that came at the same time, or the account, may still say no."""
        barred = self.barred(peer, name)
        if barred is not None:
            return await self.denied(peer, name, barred, began)
        try:
            account, disabled = self.accounts.find(name), self.accounts.disabled(self.accounts.find(name))
        except AccountsError as wrong:
            return await self.unavailable(peer, name, wrong, began)
        self.guard.succeeded(peer.client, name)
        if disabled or not account:
            return await self.denied(peer, name, Denied("disabled", "this account is disabled"), began)
        self._bus.emit(
            LoggedIn(time=self._clock.now(), service=peer.service, account=account, client=peer.client)
        )
        return Success(account)

    async def denied(self, peer: Peer, name: str, why: Denied, began: float) -> Denied:
        """Counts wrong passwords, and waits for what they cost."""
        if why.kind == "credentials":
            delay = self.guard.failed(peer.client, name, trio.current_time())
            await trio.sleep_until(max(began + delay, trio.current_time()))
        try:
            account = self.accounts.find(name) if name else ""
        except AccountsError:
            account = ""
        now = self._clock.now()
        self._bus.emit(
            LoginFailed(time=now, service=peer.service, client=peer.client, account=account, reason=why.kind)
        )
        return why

    async def unavailable(self, peer: Peer, name: str, wrong: AccountsError, began: float) -> Denied:
        self._trouble(wrong)
        return await self.denied(peer, name, Denied("temporary", "nobody can tell now whether that is right"), began)

    def _trouble(self, wrong: AccountsError) -> None:
        self._bus.emit(Trouble(time=self._clock.now(), where="accounts", reason=str(wrong)))


class Attempt:
    """One AUTH command."""

    def __init__(self, logins: Logins, peer: Peer, mechanism: str) -> None:
        self._logins = logins
        self._peer = peer
        self._exchange = Exchange(mechanism, secrets.token_urlsafe(24))
        self._name = ""
        self._began = 0.0

    async def begin(self, initial: str | None) -> Challenge | Success | Denied:
        """`initial` None: there was no initial response; "=" for an empty one."""
        mechanism = self._exchange.mechanism
        self._began = trio.current_time()
        if mechanism not in self._logins.mechanisms(self._peer):
            hidden = mechanism in ("PLAIN", "LOGIN") and not self._logins.passwords(self._peer)
            why = _cleartext() if hidden else Denied("unknown", "that mechanism is not offered here")
            return await self._logins.denied(self._peer, "", why, self._began)
        return await self._follow(self._exchange.begin(initial))

    async def reply(self, line: str) -> Challenge | Success | Denied:
        """The client's next line, without its CRLF."""
        self._began = trio.current_time()
        return await self._follow(self._exchange.reply(line))

    async def _follow(self, step: Step) -> Challenge | Success | Denied:
        logins, peer, began = self._logins, self._peer, self._began
        try:
            while isinstance(step, CheckPassword | NeedKeys):
                self._name = step.account
                barred = logins.barred(peer, self._name)
                if barred is not None:
                    return await logins.denied(peer, self._name, barred, began)
                if isinstance(step, NeedKeys):
                    step = self._exchange.keys_found(logins.accounts.scram(step.account))
                else:
                    step = self._exchange.password_checked(await logins.check(peer, step.account, step.password))
        except AccountsError as wrong:
            return await logins.unavailable(peer, self._name, wrong, began)
        if isinstance(step, Challenge):
            return step
        over: Awaitable[Success | Denied]
        if isinstance(step, Success):
            over = logins.admitted(peer, step.account, began)
        else:
            over = logins.denied(peer, step.account, _denied(step), began)
        return await over


def _denied(failure: Failure) -> Denied:
    return Denied(failure.kind, failure.text)


def _wrong() -> Denied:
    return Denied("credentials", WRONG)


def _cleartext() -> Denied:
    return Denied("cleartext", "passwords are not taken here without TLS")
