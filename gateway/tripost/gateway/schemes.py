"""password verifiers: made, and compared with a password

Made here: {ARGON2ID} and {SCRAM-SHA-256}. Read besides, for files that come from
Dovecot: {ARGON2I}, {PBKDF2}, {SSHA…} and {SHA…} by hashlib, and the {…-CRYPT}
family (no prefix means {CRYPT}) where the system has libcrypt. {PLAIN} is not: a
file of passwords is what verifiers are there to avoid.

API      `make(scheme, password)` and `matches(verifier, password)` are slow on
         purpose: call them in a thread. `scheme_of(verifier)`; `usable(verifier)`;
         `scram_of(verifier)` where there is one.
Why      50,000 iterations: SCRAM's cost is the client's too, and one of the common
         client libraries takes no more than 65,536.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import hashlib
import hmac
import secrets
from functools import lru_cache
from typing import Any

import argon2

from tripost.delivery.saslprep import saslprep
from tripost.gateway.sasl import ScramKeys, scram_keys

ARGON2ID, SCRAM = "ARGON2ID", "SCRAM-SHA-256"
MADE = (ARGON2ID, SCRAM)
ITERATIONS = 50_000
SALT = 16
MOST_ITERATIONS = 10_000_000  # more than this is a slip of a hand, and a thread for a minute
_HASHES = {"SHA": "sha1", "SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512"}
_CRYPTS = ("CRYPT", "MD5-CRYPT", "SHA256-CRYPT", "SHA512-CRYPT", "BLF-CRYPT")

_hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def scheme_of(verifier: str) -> str:
    """Its name, in capitals; "" where there is no verifier."""
    if not verifier.startswith("{"):
        return "CRYPT" if verifier else ""
    return verifier[1:].partition("}")[0].upper()


def make(scheme: str, password: str) -> str:
    """A verifier. Raises ValueError for a password that RFC 4013 does not allow."""
    password = saslprep(password)  # as every client does, or should
    if scheme == ARGON2ID:
        return f"{{{scheme}}}{_hasher.hash(password)}"
    if scheme != SCRAM:
        raise ValueError(f"{scheme} is not one of {', '.join(MADE)}")
    keys = scram_keys(password, secrets.token_bytes(SALT), ITERATIONS)
    fields = (base64.b64encode(one).decode() for one in (keys.salt, keys.stored_key, keys.server_key))
    return f"{{{SCRAM}}}{keys.iterations},{','.join(fields)}"


def scram_of(verifier: str) -> ScramKeys | None:
    if scheme_of(verifier) != SCRAM:
        return None
    parts = _data(verifier).split(",")
    try:
        iterations = int(parts[0])
        salt, stored, server = (base64.b64decode(one, validate=True) for one in parts[1:])
    except ValueError:
        return None
    if not 0 < iterations <= MOST_ITERATIONS or not salt or (len(stored), len(server)) != (32, 32):
        return None
    return ScramKeys(iterations, salt, stored, server)


def usable(verifier: str) -> bool:
    """Can a password be compared with it here?"""
    scheme = scheme_of(verifier)
    if scheme == SCRAM:
        return scram_of(verifier) is not None
    if scheme in _CRYPTS:
        return _libcrypt() is not None
    if scheme in ("ARGON2ID", "ARGON2I"):
        return _data(verifier).startswith(f"${scheme.lower()}$")
    return scheme == "PBKDF2" or _hash_of(scheme) is not None


def matches(verifier: str, password: str) -> bool:
    scheme, data = scheme_of(verifier), _data(verifier)
    if scheme in ("ARGON2ID", "ARGON2I"):
        return _argon2(data, password)
    if scheme == SCRAM:
        return _scram(verifier, password)
    if scheme in _CRYPTS:
        return _crypt(data, password)
    if scheme == "PBKDF2":
        return _pbkdf2(data, password)
    return _digest(scheme, data, password)


@lru_cache(maxsize=1)
def nobody() -> str:
    """A verifier that nobody's password fits, to spend the time on."""
    return make(ARGON2ID, secrets.token_hex(16))


def _data(verifier: str) -> str:
    return verifier.partition("}")[2] if verifier.startswith("{") else verifier


def _argon2(data: str, password: str) -> bool:
    try:
        return bool(_hasher.verify(data, password))
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def _scram(verifier: str, password: str) -> bool:
    keys = scram_of(verifier)
    if keys is None:
        return False
    try:
        made = scram_keys(password, keys.salt, keys.iterations)
    except ValueError:
        return False
    return hmac.compare_digest(made.stored_key, keys.stored_key)


def _pbkdf2(data: str, password: str) -> bool:
    """Dovecot's: $1$salt$rounds$digest, by HMAC-SHA-1."""
    parts = data.split("$")
    if len(parts) != 5 or parts[1] != "1" or not parts[3].isdigit() or not 0 < int(parts[3]) <= MOST_ITERATIONS:
        return False
    made = hashlib.pbkdf2_hmac("sha1", password.encode(), parts[2].encode(), int(parts[3]))
    return hmac.compare_digest(made.hex().encode(), parts[4].lower().encode())


def _hash_of(scheme: str) -> str | None:
    """hashlib's name of {SSHA256}, {SHA512.HEX}, …"""
    name = scheme.partition(".")[0]
    return _HASHES.get(name[1:] if name.startswith("SS") else name)


def _digest(scheme: str, data: str, password: str) -> bool:
    name = _hash_of(scheme)
    if name is None:
        return False
    try:
        stored = bytes.fromhex(data) if scheme.endswith(".HEX") else base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error):
        return False
    size = hashlib.new(name).digest_size
    digest, salt = stored[:size], stored[size:]
    if bool(salt) != scheme.startswith("SS"):
        return False
    return hmac.compare_digest(hashlib.new(name, password.encode() + salt).digest(), digest)


@lru_cache(maxsize=1)
def _libcrypt() -> Any:
    for name in ("libcrypt.so.1", "libcrypt.so.2"):
        try:
            library = ctypes.CDLL(name)
            library.crypt_ra.restype = ctypes.c_char_p  # libxcrypt's, which threads may call
        except (OSError, AttributeError):
            continue
        return library
    return None


def _crypt(stored: str, password: str) -> bool:
    library = _libcrypt()
    if library is None or "\0" in password or len(stored) < 13:
        return False
    data, size = ctypes.c_void_p(None), ctypes.c_int(0)
    try:
        made: bytes | None = library.crypt_ra(
            password.encode(), stored.encode(), ctypes.byref(data), ctypes.byref(size)
        )
    finally:
        libc = ctypes.CDLL(None)
        libc.free.argtypes = [ctypes.c_void_p]
        libc.free(data)
    return made is not None and hmac.compare_digest(made, stored.encode())
