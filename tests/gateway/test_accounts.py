"""the accounts' file, its verifiers, and those who check passwords instead"""

from __future__ import annotations

import os
import pathlib
import sys

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tripost.gateway import backend, passwd_file, schemes
from tripost.gateway.accounts import Accounts, AccountsError
from tripost.gateway.backend import Backend, backend_of, check_backend
from tripost.gateway.passwd_file import Entry

MARC = "marc@machin.com"


async def test_accounts(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deep" / "accounts"
    accounts = Accounts(str(path))
    assert accounts.list() == []
    accounts.add(MARC, "a")
    further = "::::::userdb_quota_rule=*:storage=1G other=x"
    path.write_text("# people\n" + path.read_text().rstrip("\n") + further)
    assert await accounts.verify(MARC, "a")
    assert await accounts.verify("Marc@MACHIN.com", "a")  # from memory
    assert accounts.find("MARC@machin.com") == MARC
    assert accounts.quota_rule(MARC) == "*:storage=1G"
    accounts.set_password(MARC, "b")
    assert "# people\n" in path.read_text()
    assert path.read_text().endswith(f"{further}\n")
    assert not await accounts.verify(MARC, "a")
    assert await accounts.verify(MARC, "b")
    with pytest.raises(ValueError, match="already"):
        accounts.add(MARC, "b")
    with pytest.raises(ValueError, match="no domain"):
        accounts.add("marc", "b")
    with pytest.raises(ValueError, match="colon"):
        accounts.add('"a:b"@machin.com', "b")
    with pytest.raises(KeyError, match="no user"):
        accounts.remove("fred@machin.com")
    accounts.set_disabled(MARC, True)
    assert accounts.disabled(MARC)
    accounts.set_disabled(MARC, False)
    assert not accounts.disabled(MARC)
    accounts.remove(MARC)
    assert not accounts.exists(MARC)
    assert not await accounts.verify(MARC, "b")
    assert path.read_text() == "# people\n"
    assert path.stat().st_mode & 0o777 == 0o600


async def test_what_was_read_stays_in_force(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "accounts"
    path.write_bytes(b"\xff\xff")
    fresh = Accounts(str(path))
    with pytest.raises(AccountsError, match="accounts"):
        fresh.exists(MARC)
    path.unlink()
    fresh.add(MARC, "a")
    assert fresh.exists(MARC)
    path.write_bytes(b"\xff\xff\xff")
    assert fresh.exists(MARC)
    assert await fresh.verify(MARC, "a")


async def test_scram_keys_for_everybody(tmp_path: pathlib.Path) -> None:
    accounts = Accounts(str(tmp_path / "accounts"))
    accounts.add(MARC, "a")
    assert not accounts.has_scram
    accounts.set_password(MARC, "a", schemes.SCRAM)
    assert accounts.has_scram
    keys = accounts.scram(MARC)
    assert keys.real
    assert accounts.scram("Marc@machin.com") == keys
    assert await accounts.verify(MARC, "a")
    assert not await accounts.verify(MARC, "b")
    made_up = accounts.scram("nobody@machin.com")
    assert not made_up.real
    assert (made_up.iterations, len(made_up.salt)) == (keys.iterations, len(keys.salt))
    again = Accounts(str(tmp_path / "accounts"))  # after a restart
    assert again.scram("Nobody@machin.com") == made_up
    assert again.scram("nobody2@machin.com") != made_up
    accounts.set_password(MARC, "c")  # stays SCRAM
    assert accounts.has_scram
    assert accounts.scram(MARC) != keys


@pytest.mark.parametrize("scheme", schemes.MADE)
@pytest.mark.parametrize("password", ["x", "pässwörd", "a" * 200, "with space : and {colon}"])
def test_what_is_made_fits(scheme: str, password: str) -> None:
    verifier = schemes.make(scheme, password)
    assert ":" not in verifier
    assert schemes.scheme_of(verifier) == scheme
    assert schemes.usable(verifier)
    assert schemes.matches(verifier, password)
    assert not schemes.matches(verifier, password + "x")
    assert schemes.make(scheme, password) != verifier


# made by `doveadm pw`, of Dovecot 2.3.19; the password is "s3cret Pässword"
DOVECOT = [
    "{SSHA}Geo8z08BjGnJLPsI8tbqMR8LbFs2g0+2",
    "{SSHA256}zDqy+RlMsM3bqAnlQXm/CAboOw0Hpgctd7KBxmAzvIOGRqkB",
    "{SSHA512}BxdN6qnuTM14JxXFMl636nTNEANCpuwH41sKa6B3YoAAz57SKHcHO9JQrLt+rDQz+KuuKDW/m/g1blERjbbyfUzu3TI=",
    "{SHA}xTEanhqp1+VIlRP9ndaXDsbc1Cs=",
    "{SHA256}uDSOyNXZNyvaty/oCqB+wrP0iHD8qDAd0lwOxPCuOag=",
    "{SHA512.HEX}04b93d1475779d4563fb124c1f81b064e3e321dbd3668ce0e7e21925cb347f95ed80457a602bada92fcc2079"
    "fa12575a2b6ca90ace8a359586999d546988250e",
    "{PBKDF2}$1$vAOkXQXbs.Q28TZs$5000$e8fc1844e079b6b377345afd34d53dc10e6bc30d",
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$AqtT8/hYkesnKzE6bfkZRw$E0ujZd7YLiPQ7WBZ+N9B1PJxs+Qw37L3crGC"
    "wqpIdG4",
    "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$NiIXLCkgHHeWZYHxDL0SVg$z4OpzTyT7R/X0tnrZUSUws716q/kENiw/ddUqV"
    "Gf26w",
    "{SHA512-CRYPT}$6$fO0oJ2B/4L7iDeY5$fwL7N.GGZtsTG6ov3m/9SADpmthFrgOnPZxGZ7Ebsw5GtXAL2n5QFZKzPp9Qho7.H1"
    "1gG5lKfHqiEgiJBkYR/1",
    "{BLF-CRYPT}$2y$05$YMBe4bW8e/C3GQufqaNTP.SvStI3GDEYXVK.kZtgOZkz4z4PZ5xeS",
    "$2y$05$dNf4nN.4QnWSsB90hkKTyOyEAl89aJreXDZxLw5AxwYC5nDh.jw06",
    "{SCRAM-SHA-256}4096,lRu6mF7temldCLqx2ZXrEg==,C6DwfbcQ2LBsQgSH0VTpY8mBl/u40T4TGCKHRyvV5IU=,w3/KZ+WQbp"
    "TI6wi8S2z3lTWLjybp4eiCnUx3bQUXHeI=",
]


@pytest.mark.parametrize("verifier", DOVECOT, ids=schemes.scheme_of)
def test_verifiers_that_dovecot_made(verifier: str) -> None:
    assert schemes.usable(verifier)
    assert schemes.matches(verifier, "s3cret Pässword")
    assert not schemes.matches(verifier, "s3cret Passwort")
    assert not schemes.matches(verifier[:-4] + "AAAA", "s3cret Pässword")


def test_schemes_that_are_none() -> None:
    scram = ("{SCRAM-SHA-256}1,2", "{SCRAM-SHA-256}0,YQ==,YQ==,YQ==")
    for verifier in ("", "{PLAIN}a", "{MD5}a", "{", "{}", *scram, "{ARGON2ID}x"):
        assert not schemes.usable(verifier), verifier
        assert not schemes.matches(verifier, "a"), verifier
    with pytest.raises(ValueError, match="PLAIN"):
        schemes.make("PLAIN", "a")


@given(st.text(max_size=60), st.text(max_size=10))
def test_no_verifier_surprises(data: str, password: str) -> None:
    for scheme in ("SSHA256", "SHA", "SHA512.HEX", "PBKDF2", "SCRAM-SHA-256", "XYZ"):
        assert not schemes.matches(f"{{{scheme}}}{data}", password)


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=30)))
def test_edits_change_one_line(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines if not line.startswith(f"{MARC}:"))
    with_marc = passwd_file.append(text, Entry(MARC, "{X}y"))
    assert passwd_file.read(with_marc)[MARC] == Entry(MARC, "{X}y")
    changed = passwd_file.edit(with_marc, MARC, lambda one: one.having("nologin", "nologin"))
    assert passwd_file.read(changed)[MARC].disabled
    assert passwd_file.edit(changed, MARC, lambda one: None) == text


def test_further_fields() -> None:
    entry = passwd_file.read_line("a@b:{X}y:100:100::/home/a::nologin=y userdb_quota_rule=*:storage=1G\r\n")
    assert entry is not None
    assert entry.disabled
    assert entry.quota_rule == "*:storage=1G"
    assert entry.line() == "a@b:{X}y:100:100::/home/a::nologin=y userdb_quota_rule=*:storage=1G"
    assert entry.having("nologin", "").line() == "a@b:{X}y:100:100::/home/a::userdb_quota_rule=*:storage=1G"
    assert passwd_file.read_line("# a:b") is None
    assert passwd_file.read_line("nothing") is None
    assert passwd_file.read("a:1\na:2\n")["a"].verifier == "1"


# --- backends ---

SCRIPT = """#!{python}
import json, sys, time
asked = json.load(sys.stdin)
assert len(sys.argv) == 1
if asked["password"] == "slow": time.sleep(60)
if asked["password"] == "broken": sys.exit(111)
sys.exit(0 if (asked["account"], asked["password"], asked["service"]) == ("{user}", "good", "pop3") else 1)
"""


def script(folder: pathlib.Path) -> str:
    path = folder / "check"
    path.write_text(SCRIPT.format(python=sys.executable, user=MARC))
    path.chmod(0o700)
    return f"command:{path}"


async def test_a_command_checks(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = Accounts(str(tmp_path / "accounts"), backend_of(script(tmp_path)))
    accounts.add(MARC, None)
    assert not accounts.has_scram
    assert await accounts.verify("Marc@machin.com", "good", "pop3", "192.0.2.1")
    assert not await accounts.verify(MARC, "bad", "pop3")
    assert not await accounts.verify("fred@machin.com", "good", "pop3")
    with pytest.raises(AccountsError, match="exit code 111"):
        await accounts.verify(MARC, "broken", "pop3")
    monkeypatch.setattr(backend, "PATIENCE", 0.2)
    with pytest.raises(AccountsError, match="no answer"):
        await accounts.verify(MARC, "slow", "pop3")
    gone = Accounts(str(tmp_path / "accounts"), Backend(f"command:{tmp_path}/gone"))
    with pytest.raises(AccountsError, match="gone"):
        await gone.verify(MARC, "x")


async def test_a_service_checks(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")

    async def answer(stream: trio.SocketStream) -> None:
        asked = bytes(await stream.receive_some(4096))
        words = {b"good": b'{"ok": true}\n', b"bad": b'{"ok": false}\n', b"odd": b"what?\n", b"none": b""}
        await stream.send_all(next(reply for word, reply in words.items() if word in asked))
        await stream.aclose()

    accounts = Accounts(str(tmp_path / "accounts"), Backend(f"unix:{path}"))
    accounts.add(MARC, None)
    with pytest.raises(AccountsError):
        await accounts.verify(MARC, "good")
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(path)
    listening.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [trio.SocketListener(listening)])
        assert await accounts.verify(MARC, "good")
        assert not await accounts.verify(MARC, "bad")
        for password in ("odd", "none"):
            with pytest.raises(AccountsError):
                await accounts.verify(MARC, password)
        nursery.cancel_scope.cancel()


def test_backends_in_the_configuration() -> None:
    for good in ("file", "command:/x", "unix:/y"):
        check_backend(good)
    assert backend_of("file") is None
    for bad in ("", "files", "command:x", "unix:", "/x"):
        with pytest.raises(ValueError, match="must be"):
            check_backend(bad)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for others")
def test_what_root_writes_belongs_to_the_gateway(tmp_path: pathlib.Path) -> None:
    """An operator adds users as root; the gateway, which is not, has to read them."""
    os.chown(tmp_path, 4711, 4712)
    path = tmp_path / "accounts"
    accounts = Accounts(str(path))
    accounts.add(MARC, "a")
    assert {(one.stat().st_uid, one.stat().st_gid) for one in tmp_path.iterdir()} == {(4711, 4712)}
    os.chown(path, 4713, 4714)
    accounts.set_password(MARC, "b")
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (4713, 4714, 0o600)
