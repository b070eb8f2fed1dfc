"""the server's side of a SASL exchange, without I/O

API      `Exchange(mechanism, nonce)`; `begin(initial)` (None when the command had
         no initial response, "=" for an empty one) and then `reply(line)` for every
         line of the client give a step:
           Challenge(text)     send `334 text` or `+ text`, then `reply`
           CheckPassword(…)    ask somebody, then `password_checked(yes)`
           NeedKeys(account)   ask somebody, then `keys_found(ScramKeys)`
           Success(account)    over
           Failure(kind, text) over: "cancelled", "malformed" or "credentials"
         `tripost.gateway.login` drives it for SMTP and POP3.
States   begun → [challenge ⇄ reply]* → asked → success | failure
Promise  Everything that a client sends is bounded; whatever it is, the answer is a
         step. Whether an account exists shows nowhere.
Source   RFC 4422; PLAIN RFC 4616; LOGIN as clients speak it; SCRAM-SHA-256
         RFC 5802 and 7677, without channel binding; SASLprep RFC 4013.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Literal

import msgspec

from tripost.delivery.saslprep import saslprep

MECHANISMS = ("PLAIN", "LOGIN", "SCRAM-SHA-256")
LINE_LIMIT = 12_288  # octets of one line, RFC 4954 §4
NAME_LIMIT = 512
PASSWORD_LIMIT = 1024
NONCE_LIMIT = 256


class ScramKeys(msgspec.Struct, frozen=True):
    """A SCRAM-SHA-256 verifier; `real` is False for one made up for an account that has none."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes
    real: bool = True


class Challenge(msgspec.Struct, frozen=True):
    """To be sent; base64 already."""

    text: str


class CheckPassword(msgspec.Struct, frozen=True):
    """Is it the account's password?"""

    account: str
    password: str


class NeedKeys(msgspec.Struct, frozen=True):
    """The account's SCRAM keys, made up where it has none."""

    account: str


class Success(msgspec.Struct, frozen=True):
    account: str


class Failure(msgspec.Struct, frozen=True):
    """`account` as far as it is known; never the password."""

    kind: Literal["cancelled", "malformed", "credentials"]
    text: str
    account: str = ""


Step = Challenge | CheckPassword | NeedKeys | Success | Failure
WRONG = "wrong user or password"


class _Malformed(Exception):
    pass


class Exchange:
    """One AUTH command. `nonce`: printable ASCII without a comma, new for every exchange."""

    def __init__(self, mechanism: str, nonce: str) -> None:
        self.mechanism = mechanism.upper()
        self._nonce = nonce
        self._expects = ""
        self._account = ""
        self._gs2 = b""
        self._first = b""  # client-first-message-bare
        self._second = b""  # server-first-message
        self._keys: ScramKeys | None = None

    def begin(self, initial: str | None) -> Step:
        if self.mechanism not in MECHANISMS:
            return Failure("malformed", "unknown mechanism")
        self._expects = {"PLAIN": "plain", "LOGIN": "name", "SCRAM-SHA-256": "first"}[self.mechanism]
        if initial is None:
            return Challenge(_encode(b"Username:") if self._expects == "name" else "")
        return self.reply("" if initial == "=" else initial)

    def reply(self, line: str) -> Step:
        """The client's next line, without its CRLF."""
        expects, self._expects = self._expects, ""
        if line == "*":
            return Failure("cancelled", "cancelled", self._account)
        try:
            data = _decode(line)
            if expects == "plain":
                return self._plain(data)
            if expects == "name":
                return self._name(data)
            if expects == "password":
                return CheckPassword(self._account, _prepared(_text(data, PASSWORD_LIMIT)))
            if expects == "first":
                return self._client_first(data)
            if expects == "final":
                return self._client_final(data)
            if expects == "empty" and not data:
                return Success(self._account)
        except _Malformed as wrong:
            return Failure("malformed", str(wrong), self._account)
        return Failure("malformed", "nothing was asked", self._account)

    def password_checked(self, good: bool) -> Step:
        return Success(self._account) if good else Failure("credentials", WRONG, self._account)

    # --- PLAIN and LOGIN ---

    def _plain(self, data: bytes) -> Step:
        parts = data.split(b"\0")
        if len(parts) != 3:
            raise _Malformed("PLAIN is [authorization]NUL account NUL password")
        authorization, account = _text(parts[0], NAME_LIMIT), _text(parts[1], NAME_LIMIT)
        password = _prepared(_text(parts[2], PASSWORD_LIMIT))
        self._account = account
        if not account or not password:
            raise _Malformed("account and password must not be empty")
        if authorization not in ("", account):  # nobody acts for somebody else here
            return Failure("credentials", WRONG, account)
        return CheckPassword(account, password)

    def _name(self, data: bytes) -> Step:
        self._account = _text(data, NAME_LIMIT)
        if not self._account or "\0" in self._account:
            raise _Malformed("an account name is needed")
        self._expects = "password"
        return Challenge(_encode(b"Password:"))

    # --- SCRAM-SHA-256 ---

    def _client_first(self, data: bytes) -> Step:
        flag, comma, rest = data.partition(b",")
        authorization, comma2, bare = rest.partition(b",")
        if not comma or not comma2 or flag not in (b"n", b"y"):
            raise _Malformed("no channel binding is offered; begin with n,,")
        fields = bare.split(b",")
        if len(fields) < 2 or not fields[0].startswith(b"n=") or not fields[1].startswith(b"r="):
            raise _Malformed("expected n=name,r=nonce")  # m= must fail too, RFC 5802 §5.1
        account = _name_of(fields[0][2:])
        nonce = fields[1][2:]
        if not nonce or len(nonce) > NONCE_LIMIT or not all(33 <= one <= 126 for one in nonce):
            raise _Malformed("the nonce must be 1 to 256 printable characters")
        if authorization and (not authorization.startswith(b"a=") or _name_of(authorization[2:]) != account):
            return Failure("credentials", WRONG, account)
        self._account, self._first = account, bare
        self._gs2 = flag + b"," + authorization + b","
        self._nonce = nonce.decode("ascii") + self._nonce
        return NeedKeys(account)

    def keys_found(self, keys: ScramKeys) -> Step:
        self._keys, self._expects = keys, "final"
        salt = _encode(keys.salt)
        self._second = f"r={self._nonce},s={salt},i={keys.iterations}".encode()
        return Challenge(_encode(self._second))

    def _client_final(self, data: bytes) -> Step:
        without, found, proof64 = data.rpartition(b",p=")
        fields = without.split(b",")
        if not found or len(fields) < 2 or not fields[0].startswith(b"c=") or not fields[1].startswith(b"r="):
            raise _Malformed("expected c=binding,r=nonce,p=proof")
        if _decode(_text(fields[0][2:], LINE_LIMIT)) != self._gs2:
            raise _Malformed("the channel binding differs from what was begun with")
        if not hmac.compare_digest(fields[1][2:], self._nonce.encode()):
            raise _Malformed("the nonce is not the one of this exchange")
        proof, keys = _decode(_text(proof64, LINE_LIMIT)), self._keys
        assert keys is not None
        message = self._first + b"," + self._second + b"," + without
        signature = hmac.digest(keys.stored_key, message, "sha256")
        if len(proof) != len(signature):
            raise _Malformed("the proof has the wrong length")
        client_key = bytes(one ^ two for one, two in zip(proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key) or not keys.real:
            return Failure("credentials", WRONG, self._account)
        self._expects = "empty"
        return Challenge(_encode(b"v=" + base64.b64encode(hmac.digest(keys.server_key, message, "sha256"))))


def scram_keys(password: str, salt: bytes, iterations: int) -> ScramKeys:
    """The verifier of a password (RFC 5802 §3). Slow on purpose: call it in a thread. Raises ValueError."""
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return ScramKeys(
        iterations, salt, hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256")
    )


def _prepared(password: str) -> str:
    try:
        return saslprep(password)
    except ValueError as wrong:
        raise _Malformed(f"the password holds {wrong}") from wrong


def _text(data: bytes, limit: int) -> str:
    if len(data) > limit:
        raise _Malformed("too long")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as wrong:
        raise _Malformed("not UTF-8") from wrong


def _name_of(data: bytes) -> str:
    """A SCRAM name with its =2C and =3D (RFC 5802 §5.1)."""
    text = _text(data, NAME_LIMIT)
    if "=" in text.replace("=2C", "").replace("=3D", "") or not text or "\0" in text:
        raise _Malformed("the name is malformed")
    return text.replace("=2C", ",").replace("=3D", "=")


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(line: str) -> bytes:
    if len(line) > LINE_LIMIT:
        raise _Malformed("too long")
    try:
        return base64.b64decode(line.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as wrong:
        raise _Malformed("not base64") from wrong
