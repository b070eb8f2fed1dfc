"""PLAIN, LOGIN, SCRAM-SHA-256: by the book, and by nobody's book"""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.delivery.saslprep import saslprep
from tripost.gateway.sasl import (
    MECHANISMS,
    Challenge,
    CheckPassword,
    Exchange,
    Failure,
    NeedKeys,
    ScramKeys,
    Success,
    scram_keys,
)


def b64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def text(step: object) -> str:
    assert isinstance(step, Challenge), step
    return base64.b64decode(step.text).decode()


@pytest.mark.parametrize("initial", [True, False])
def test_plain(initial: bool) -> None:
    one, line = Exchange("plain", "n"), b64("\0marc@machin.com\0s3cret")
    if initial:
        step = one.begin(line)
    else:
        assert one.begin(None) == Challenge("")
        step = one.reply(line)
    assert step == CheckPassword("marc@machin.com", "s3cret")
    assert one.password_checked(True) == Success("marc@machin.com")
    assert one.password_checked(False) == Failure("credentials", "wrong user or password", "marc@machin.com")


def test_plain_for_oneself_and_for_nobody_else() -> None:
    assert Exchange("PLAIN", "n").begin(b64("a\0a\0p")) == CheckPassword("a", "p")
    step = Exchange("PLAIN", "n").begin(b64("b\0a\0p"))
    assert isinstance(step, Failure)
    assert step.kind == "credentials"


@pytest.mark.parametrize("initial", [True, False])
def test_login(initial: bool) -> None:
    one = Exchange("LOGIN", "n")
    if initial:
        step = one.begin(b64("marc"))
    else:
        assert text(one.begin(None)) == "Username:"
        step = one.reply(b64("marc"))
    assert text(step) == "Password:"
    assert one.reply(b64("pässword")) == CheckPassword("marc", "pässword")


def test_scram_by_rfc_7677() -> None:
    # RFC 7677 §3
    nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    one = Exchange("SCRAM-SHA-256", nonce)
    assert one.begin(b64("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")) == NeedKeys("user")
    keys = scram_keys("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    assert text(one.keys_found(keys)) == f"r=rOprNGfwEbeRWgbNEkqO{nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    final = f"c=biws,r=rOprNGfwEbeRWgbNEkqO{nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    assert text(one.reply(b64(final))) == "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert one.reply("") == Success("user")


def client_final(password: str, keys: ScramKeys, first: str, second: str, binding: str = "biws") -> str:
    nonce = second.split(",")[0][2:]
    without = f"c={binding},r={nonce}"
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), keys.salt, keys.iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    message = f"{first},{second},{without}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    return f"{without},p={b64(bytes(a ^ b for a, b in zip(client_key, signature, strict=True)))}"


@pytest.mark.parametrize(
    ("password", "real", "binding", "kind"),
    [("x", True, "biws", "credentials"), ("p", False, "biws", "credentials"), ("p", True, "eSws", "malformed")],
)
def test_scram_refusals(password: str, real: bool, binding: str, kind: str) -> None:
    keys = scram_keys("p", b"salt", 4096)
    keys = ScramKeys(keys.iterations, keys.salt, keys.stored_key, keys.server_key, real)
    one = Exchange("SCRAM-SHA-256", "srv")
    one.begin(b64("n,,n=a,r=cli"))
    second = text(one.keys_found(keys))
    step = one.reply(b64(client_final(password, keys, "n=a,r=cli", second, binding)))
    assert isinstance(step, Failure)
    assert step.kind == kind


def test_scram_replayed_elsewhere_fails() -> None:
    keys = scram_keys("p", b"salt", 4096)
    one, other = Exchange("SCRAM-SHA-256", "one"), Exchange("SCRAM-SHA-256", "other")
    for exchange in (one, other):
        exchange.begin(b64("n,,n=a,r=cli"))
    final = client_final("p", keys, "n=a,r=cli", text(one.keys_found(keys)))
    other.keys_found(keys)
    assert isinstance(one.reply(b64(final)), Challenge)
    assert isinstance(other.reply(b64(final)), Failure)


@pytest.mark.parametrize(
    "first",
    ["p=tls-unique,,n=a,r=x", "n,,m=ext,n=a,r=x", "n,,n=a", "n,,n=,r=x", "n,,n=a=b,r=x", "n,,n=a,r=", "n=a,r=x", ""],
)
def test_scram_malformed(first: str) -> None:
    step = Exchange("SCRAM-SHA-256", "n").begin(b64(first) or "=")
    assert isinstance(step, Failure), step
    assert step.kind == "malformed"


def test_scram_names_are_unescaped() -> None:
    assert Exchange("SCRAM-SHA-256", "n").begin(b64("y,,n=a=2Cb=3Dc,r=x")) == NeedKeys("a,b=c")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_cancelled_and_malformed(mechanism: str) -> None:
    for line, kind in [("*", "cancelled"), ("%%", "malformed"), ("é", "malformed"), ("A" * 13_000, "malformed")]:
        one = Exchange(mechanism, "n")
        assert isinstance(one.begin(None), Challenge)
        step = one.reply(line)
        assert isinstance(step, Failure)
        assert step.kind == kind
        assert isinstance(one.reply("AAAA"), Failure)  # nothing was asked
    assert isinstance(Exchange("CRAM-MD5", "n").begin(None), Failure)


@given(st.sampled_from(MECHANISMS), st.lists(st.one_of(st.text(max_size=40), st.binary(max_size=60).map(b64))))
def test_whatever_comes_there_is_a_step(mechanism: str, lines: list[str]) -> None:
    one = Exchange(mechanism, "n")
    step = one.begin(lines[0] if lines else None)
    for line in lines[1:]:
        if isinstance(step, NeedKeys):
            step = one.keys_found(ScramKeys(4096, b"s", b"k" * 32, b"k" * 32))
        step = one.reply(line)
        assert not isinstance(step, Success)


def test_saslprep_by_rfc_4013() -> None:
    assert saslprep("I\u00adX") == "IX"
    assert saslprep("user") == "user"
    assert saslprep("\u00aa") == "a"
    assert saslprep("\u2168") == "IX"
    assert saslprep("a\u00a0b") == "a b"
    for bad in ("\u0007", "\u06271"):
        with pytest.raises(ValueError, match="character"):
            saslprep(bad)
