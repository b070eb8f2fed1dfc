"""who may log in

The users are those of a passwd-file (`passwd_file`, `schemes`), read anew when it
changes. Their passwords are checked against its verifiers, or by a program or
service of the site's (`backend`): then the file only says who there is.

API      `find(name)`: the account that somebody who writes that means; `exists`,
         `quota_rule`, `disabled`; `await verify(account, password, …)`;
         `scram(name)`, keys also for nobody; `has_scram`: does any account have
         some? `tripost.gateway.login` puts this together for SMTP and POP3.
Promise  The file is replaced atomically, synced, one writer at a time. A password
         costs the work of a hash whether the user exists or not; verified ones
         are remembered for 5 minutes as keyed digests, never as text.
Fails    `AccountsError` with a text for the operator: the file was never readable,
         or the backend does not answer. Once it was read, what was read stays in
         force while it cannot be read.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import trio

from tripost.delivery.mailbox.places import replace_file
from tripost.delivery.wire.addresses import AddressError, parse_address
from tripost.gateway import passwd_file, schemes
from tripost.gateway.backend import AccountsError, Backend
from tripost.gateway.passwd_file import NO_LOGIN, QUOTA_RULE, Entry
from tripost.gateway.sasl import ScramKeys

__all__ = ["Accounts", "AccountsError"]

REMEMBER = 300.0  # seconds
REMEMBER_MOST = 10_000
THREADS = 2  # argon2 takes 19 MiB and a core each time


class Accounts:
    """The users of one file; a file that is missing has none. `backend` checks their passwords, if given."""

    def __init__(self, path: str, backend: Backend | None = None) -> None:
        self._path = path
        self._backend = backend
        self._stamp: tuple[int, int, int] | None = None
        self._users: dict[str, Entry] | None = None
        self._key = secrets.token_bytes(32)
        self._salts = b""
        self._verified: OrderedDict[bytes, float] = OrderedDict()
        self._limiter: trio.CapacityLimiter | None = None
        self._scram = False

    # --- looking ---

    def _load(self) -> dict[str, Entry]:
        try:
            found = os.stat(self._path)
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if self._users is not None and stamp == self._stamp:
                return self._users
            with open(self._path, encoding="utf-8") as file:
                users = passwd_file.read(file.read())
        except FileNotFoundError:
            stamp, users = None, {}
        except (OSError, UnicodeDecodeError) as wrong:
            if self._users is not None:
                return self._users
            raise AccountsError(f"{self._path}: {getattr(wrong, 'strerror', '') or wrong}") from wrong
        self._stamp, self._users = stamp, users
        self._scram = any(schemes.scram_of(one.verifier) is not None for one in users.values())
        self._verified.clear()
        return users

    def find(self, name: str) -> str:
        """The account of that name, in whatever case it was written; "" for none. Raises AccountsError."""
        users = self._load()
        return name if name in users else name.lower() if name.lower() in users else ""

    def exists(self, address: str) -> bool:
        return address in self._load()

    def list(self) -> Sequence[Entry]:
        users = self._load()
        return [users[address] for address in sorted(users)]

    def quota_rule(self, address: str) -> str:
        entry = self._load().get(address)
        return entry.quota_rule if entry is not None else ""

    def disabled(self, address: str) -> bool:
        entry = self._load().get(address)
        return entry is not None and entry.disabled

    @property
    def has_scram(self) -> bool:
        self._load()
        return self._scram and self._backend is None

    def scram(self, name: str) -> ScramKeys:
        """Its SCRAM keys; made up, the same every time, where there are none. Raises AccountsError."""
        entry = self._load().get(self.find(name))
        keys = schemes.scram_of(entry.verifier) if entry is not None else None
        if keys is not None:
            return keys
        salt = hmac.digest(self._salt_key(), name.lower().encode(), "sha256")
        return ScramKeys(schemes.ITERATIONS, salt[: schemes.SALT], salt, salt, real=False)

    def _salt_key(self) -> bytes:
        """Kept beside the file, so that a salt which changes at a restart does not tell that it is made up."""
        path = f"{self._path}.salts"
        if not self._salts:
            try:
                with open(path, "rb") as file:
                    self._salts = file.read(32)
            except OSError:
                self._salts = self._key
                with suppress(OSError):  # a folder that is not ours to write in
                    replace_file(path, self._salts)
        return self._salts or self._key

    async def verify(self, name: str, password: str, service: str = "", client: str = "") -> bool:
        """Is it the password of the account that `name` means? Raises AccountsError."""
        account = self.find(name)
        entry = self._load().get(account)
        stored = entry.verifier if entry is not None else ""
        digest = hmac.new(self._key, f"{account}\0{stored}\0{password}".encode(), hashlib.sha256).digest()
        if entry is not None and self._verified.get(digest, 0.0) > trio.current_time():
            await trio.lowlevel.checkpoint()
            return True
        if self._backend is not None:
            good = await self._backend.verify(account or name, password, service, client) and entry is not None
        else:
            if self._limiter is None:
                self._limiter = trio.CapacityLimiter(THREADS)
            good = await trio.to_thread.run_sync(partial(_matches, stored, password), limiter=self._limiter)
        if good:
            self._verified[digest] = trio.current_time() + REMEMBER
            while len(self._verified) > REMEMBER_MOST:
                self._verified.popitem(last=False)
        return good

    # --- changing ---

    def add(self, address: str, password: str | None, scheme: str = schemes.ARGON2ID) -> None:
        """`password` None: a backend has it. Raises ValueError for what is no address or a user already."""
        try:
            address = parse_address(address)
        except AddressError as wrong:
            raise ValueError(f"{address}: {wrong}") from wrong
        if ":" in address:
            raise ValueError(f"{address}: a colon cannot stand in an accounts file")
        verifier = "" if password is None else schemes.make(scheme, password)
        with self._writing() as write:
            if address in self._load():
                raise ValueError(f"{address} is a user already; `tripost user passwd` changes the password")
            write(lambda text: passwd_file.append(text, Entry(address, verifier)))

    def set_password(self, address: str, password: str, scheme: str = "") -> None:
        """`scheme` "": as before where we make such, else the default."""
        entry = self._having(address)
        old = schemes.scheme_of(entry.verifier)
        verifier = schemes.make(scheme or (old if old in schemes.MADE else schemes.ARGON2ID), password)
        self._change(address, lambda one: Entry(one.address, verifier, one.middle, one.further))

    def set_quota_rule(self, address: str, rule: str) -> None:
        """"" for none of its own."""
        self._change(address, lambda one: one.having(QUOTA_RULE, f"{QUOTA_RULE}={rule}" if rule else ""))

    def set_disabled(self, address: str, disabled: bool) -> None:
        self._change(address, lambda one: one.having(NO_LOGIN, NO_LOGIN if disabled else ""))

    def remove(self, address: str) -> None:
        self._change(address, lambda one: None)

    def _having(self, address: str) -> Entry:
        entry = self._load().get(address)
        if entry is None:
            raise KeyError(f"{address} is no user here; `tripost user list` shows them")
        return entry

    def _change(self, address: str, change: Callable[[Entry], Entry | None]) -> None:
        with self._writing() as write:
            self._having(address)
            write(lambda text: passwd_file.edit(text, address, change))

    @contextmanager
    def _writing(self) -> Generator[Callable[[Callable[[str], str]], None]]:
        """Alone among those who change the file. Raises OSError."""
        os.makedirs(os.path.dirname(self._path) or ".", mode=0o700, exist_ok=True)
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _give_back(lock, self._path)
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._write
        finally:
            os.close(lock)

    def _write(self, change: Callable[[str], str]) -> None:
        try:
            with open(self._path, encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            text = ""
        replace_file(self._path, change(text).encode(), lambda fd: _give_back(fd, self._path))


def _give_back(fd: int, path: str) -> None:
    """What root writes belongs to whom the file, or else its folder, belongs: the gateway is not root, and reads it."""
    if os.geteuid() == 0:
        try:
            owner = os.stat(path)
        except FileNotFoundError:
            owner = os.stat(os.path.dirname(path))
        os.fchown(fd, owner.st_uid, owner.st_gid)


def _matches(stored: str, password: str) -> bool:
    if not schemes.usable(stored):
        schemes.matches(schemes.nobody(), password)
        return False
    return schemes.matches(stored, password)
