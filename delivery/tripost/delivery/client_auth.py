"""SASL as a client, without I/O

PLAIN (RFC 4616), LOGIN (as everybody does it) and SCRAM-SHA-256 (RFC 7677,
RFC 5802 without channel binding, names and passwords by SASLprep) for smart hosts that want a password.

States   `first` is the initial response; then `answer` to each 334 challenge;
         `proven` says at the end whether the server has shown that it knows the
         password too (SCRAM only; true for the others).
Fails    `AuthError` for a challenge that makes no sense, and for a password that SCRAM cannot carry.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable

from tripost.delivery.saslprep import saslprep

LEAST_ITERATIONS = 4096  # RFC 7677 §4
MOST_ITERATIONS = 1_000_000  # a hostile server would have us count for hours


class AuthError(Exception):
    """The server's part of the exchange is wrong."""


class Plain:
    name = "PLAIN"
    proven = True

    def __init__(self, user: str, password: str, nonce: str = "") -> None:
        self.first: bytes | None = b"\0" + user.encode() + b"\0" + password.encode()

    def answer(self, challenge: bytes) -> bytes:
        raise AuthError("the server asks for more than PLAIN has")


class Login:
    """No initial response: the server asks for both, in this order, by whatever words."""

    name = "LOGIN"
    proven = True

    def __init__(self, user: str, password: str, nonce: str = "") -> None:
        self.first: bytes | None = None
        self._answers = [password.encode(), user.encode()]

    def answer(self, challenge: bytes) -> bytes:
        if not self._answers:
            raise AuthError("the server asks for more than LOGIN has")
        return self._answers.pop()


class Scram:
    name = "SCRAM-SHA-256"

    def __init__(self, user: str, password: str, nonce: str) -> None:
        user, self._password = _prepared(user), _prepared(password).encode()
        self._nonce = nonce
        self._bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
        self._signature = b""
        self.first: bytes | None = f"n,,{self._bare}".encode()
        self.proven = False

    def answer(self, challenge: bytes) -> bytes:
        if self._signature:
            return self._last(challenge)
        text = _text(challenge)
        parts = _parts(text)
        nonce, iterations = parts.get("r", ""), parts.get("i", "")
        if not nonce.startswith(self._nonce) or nonce == self._nonce or not iterations.isdigit():
            raise AuthError("the server's SCRAM nonce is wrong")
        if not LEAST_ITERATIONS <= int(iterations) <= MOST_ITERATIONS:
            raise AuthError(f"the server wants {iterations} iterations")
        try:
            salt = base64.b64decode(parts.get("s", ""), validate=True)
        except ValueError:
            raise AuthError("the server's SCRAM salt is wrong") from None
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, int(iterations))
        without_proof = f"c=biws,r={nonce}"
        message = f"{self._bare},{text},{without_proof}".encode()
        client_key = _mac(salted, b"Client Key")
        stored = hashlib.sha256(client_key).digest()
        proof = bytes(a ^ b for a, b in zip(client_key, _mac(stored, message), strict=True))
        self._signature = _mac(_mac(salted, b"Server Key"), message)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def _last(self, challenge: bytes) -> bytes:
        """The server's own proof (RFC 5802 §5.1); without it the server may be anybody."""
        given = _parts(_text(challenge)).get("v", "")
        if not hmac.compare_digest(given.encode(), base64.b64encode(self._signature)):
            raise AuthError("the server does not know the password")
        self.proven = True
        return b""


def _prepared(text: str) -> str:
    try:
        return saslprep(text)
    except ValueError as wrong:
        raise AuthError(f"the user or the password holds {wrong}") from wrong


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise AuthError("the server's challenge is no text") from None


def _parts(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (one.partition("=") for one in text.split(","))}


Mechanism = Plain | Login | Scram


def choose(offered: Iterable[str], *, private: bool) -> type[Mechanism] | None:
    """The best of what both can; passwords as they are only where nobody listens."""
    names = {one.upper() for one in offered}
    order: tuple[type[Mechanism], ...] = (Scram, Plain, Login) if private else (Scram,)
    return next((one for one in order if one.name in names), None)


def parse_credentials(text: str) -> tuple[str, str]:
    """The content of an auth_file: a line user:password; empty lines and # comments are not read. Raises ValueError."""
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            user, found, password = line.partition(":")
            if found and user and password:
                return user, password
            break
    raise ValueError("must hold a line user:password")


def challenge(text: str) -> bytes:
    """What a server asks behind 334. Raises AuthError."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise AuthError("the server's challenge is not base64") from None
