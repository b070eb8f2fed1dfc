"""who may log in

A passwd-file as Dovecot's: one line per user, `address:{ARGON2ID}$argon2id$…`;
what follows further colons is kept as it is. Read anew when the file changes.

Promise  the file is replaced atomically, synced; a password costs the same time
         whether the user exists or not; verified passwords are remembered for
         5 minutes as keyed digests, never as text.
Fails    OSError of the file; KeyError, ValueError with a text for people.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import argon2
import trio

from tripost.delivery.wire.addresses import AddressError, parse_address

SCHEME = "{ARGON2ID}"
REMEMBER = 300.0  # seconds
REMEMBER_MOST = 10_000
THREADS = 2  # argon2 takes 19 MiB and a core each time
COMMENT = "#"

_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


class Accounts:
    """The users of one file; a file that is missing has none."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._users: dict[str, str] = {}
        self._key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, float] = OrderedDict()
        self._limiter: trio.CapacityLimiter | None = None
        self._dummy = ""

    # --- looking ---

    def _load(self) -> dict[str, str]:
        """Address → the rest of its line. Raises OSError."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            self._stamp, self._users = None, {}
            return self._users
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != self._stamp:
            with open(self._path, encoding="utf-8") as lines:
                rows = [line.rstrip("\n").partition(":") for line in lines if not line.startswith(COMMENT)]
            self._users = {name: rest for name, _, rest in rows if name}
            self._stamp = stamp
            self._verified.clear()
        return self._users

    def exists(self, address: str) -> bool:
        return address in self._load()

    def list(self) -> Sequence[str]:
        return sorted(self._load())

    async def verify(self, address: str, password: str) -> bool:
        """Is it the user's password? Raises OSError when the file cannot be read."""
        line = self._load().get(address, "")
        stored = line.partition(":")[0]
        digest = hmac.new(self._key, f"{address}\0{stored}\0{password}".encode(), hashlib.sha256).digest()
        if stored and self._verified.get(digest, 0.0) > trio.current_time():
            await trio.lowlevel.checkpoint()
            return True
        if self._limiter is None:
            self._limiter = trio.CapacityLimiter(THREADS)
        good: bool = await trio.to_thread.run_sync(partial(self._check, stored, password), limiter=self._limiter)
        if good:
            self._verified[digest] = trio.current_time() + REMEMBER
            while len(self._verified) > REMEMBER_MOST:
                self._verified.popitem(last=False)
        return good

    def _check(self, stored: str, password: str) -> bool:
        if not self._dummy:
            self._dummy = _hasher.hash(secrets.token_hex(8))
        usable = stored.startswith(SCHEME)
        try:
            matches = _hasher.verify(stored.removeprefix(SCHEME) if usable else self._dummy, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
        return matches and usable

    # --- changing ---

    def add(self, address: str, password: str) -> None:
        """Raises ValueError for what is no address or a user already."""
        try:
            address = parse_address(address)
        except AddressError as wrong:
            raise ValueError(f"{address}: {wrong}") from wrong
        if ":" in address:
            raise ValueError(f"{address}: a colon cannot stand in an accounts file")
        users = dict(self._load())
        if address in users:
            raise ValueError(f"{address} is a user already; `tripost user passwd` changes the password")
        users[address] = _line(password)
        self._store(users)

    def set_password(self, address: str, password: str) -> None:
        users = self._having(address)
        rest = users[address].partition(":")
        users[address] = _line(password) + rest[1] + rest[2]
        self._store(users)

    def remove(self, address: str) -> None:
        users = self._having(address)
        del users[address]
        self._store(users)

    def _having(self, address: str) -> dict[str, str]:
        users = dict(self._load())
        if address not in users:
            raise KeyError(f"{address} is no user here; `tripost user list` shows them")
        return users

    def _store(self, users: dict[str, str]) -> None:
        new = f"{self._path}.new"
        folder = os.path.dirname(self._path) or "."
        os.makedirs(folder, mode=0o700, exist_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as out:
            out.writelines(f"{COMMENT}{line}\n" for line in self._comments())
            out.writelines(f"{address}:{rest}\n" for address, rest in users.items())
            out.flush()
            os.fsync(out.fileno())
        os.replace(new, self._path)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _comments(self) -> Sequence[str]:
        try:
            with open(self._path, encoding="utf-8") as lines:
                return [line[1:].rstrip("\n") for line in lines if line.startswith(COMMENT)]
        except FileNotFoundError:
            return []


def _line(password: str) -> str:
    return SCHEME + _hasher.hash(password)
