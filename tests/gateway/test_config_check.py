"""tripost check on broken configurations, each with what it is to say in its first lines; and what check warns of

tests/fixtures/config: "# expect: LINE:COLUMN: …" is the beginning of a line that check prints, of that file unless it
names another. HERE stands for the folder.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import pty
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import trustme

from tripost.gateway.cli.main import main
from tripost.gateway.config import load
from tripost.gateway.config_help import HELP, TABLES, help_of
from tripost.gateway.config_schema import schema

FOLDER = pathlib.Path(__file__).parents[1] / "fixtures" / "config"
BROKEN = sorted(FOLDER.glob("*.toml"))
LISTEN = '[[listen]]\nservice = "smtp"\naddress = "127.0.0.1:2525"\n'


def expected(path: pathlib.Path) -> list[str]:
    found: list[str] = []
    for text in re.findall(r"^# expect: (.*)$", path.read_text(), re.MULTILINE):
        where = str(path) + ":" if text[:1].isdigit() else f"{FOLDER}/"
        found.append(f"tripost: {where}{text.replace('HERE', str(FOLDER))}")
    return found


def test_there_are_enough_of_them() -> None:
    assert len(BROKEN) >= 30


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_broken(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = expected(path)
    assert main(["check", str(path)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(wanted), told
    for line, beginning in zip(told, wanted, strict=True):
        assert line.startswith(beginning)
    assert main(["check", str(path), "--json"]) == 2
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["level"] for row in rows] == ["error"] * len(wanted)
    for row, beginning in zip(rows, wanted, strict=True):
        place = re.match(r"tripost: (/[^:]*)(?::(\d+):(\d+))?: ", beginning)
        assert place is not None
        assert (row["file"], row["line"], row["column"]) == (place[1], int(place[2] or 0), int(place[3] or 0))


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_the_schema_sees_what_types_can_say(path: pathlib.Path) -> None:
    """What is no TOML, and what only the rules know, it cannot see."""
    whole = "".join(expected(path))
    if not re.search(r"unknown key|must be (a |true|one of)|is missing|is no (size|rate)", whole) or "conf.d" in whole:
        return
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema()).validate(tomllib.loads(path.read_text()))


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    made: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert made == schema()
    jsonschema.Draft7Validator.check_schema(made)
    good = LISTEN + '[limits]\nmessage_size = "1.5MiB"\nclient_rate = "10/10min"\nminimum_rate = "1KiB/s"\n'
    jsonschema.Draft7Validator(made).validate(tomllib.loads(good + '[delivery.destination."x.y"]\nidle = "90s"\n'))
    assert made["properties"]["limits"]["properties"]["auth_ban"]["default"] == "15m"


# --- files that are put together ---


def _write(folder: pathlib.Path, **files: str) -> str:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return str(folder / "main.toml")


def test_include(tmp_path: pathlib.Path) -> None:
    more = tmp_path / "conf.d"
    more.mkdir()
    path = _write(
        tmp_path,
        main=f'include = ["conf.d/*.toml"]\nhostname = "a.example"\n{LISTEN}[limits]\nerrors = 3\nrecipients = 5\n'
        '[relay]\nnetworks = ["192.0.2.0/24"]\n[[route]]\ndomain = "a.x"\nto = "mx"\n',
    )
    _write(
        more,
        b=f'hostname = "c.example"\n{LISTEN.replace("2525", "2526")}[tls]\ncertificate = "c.pem"\nkey = "/k.pem"\n',
    )
    _write(
        more,
        a='hostname = "b.example"\n[limits]\nerrors = 4\n[relay]\nnetworks = []\n'
        '[[route]]\ndomain = "b.x"\nto = "mx"\n',
    )
    config = load(path)
    assert config.hostname == "c.example"
    assert [one.address for one in config.listen] == ["127.0.0.1:2525", "127.0.0.1:2526"]
    assert (config.limits.errors, config.limits.recipients, config.relay.networks) == (4, 5, [])
    assert [one.domain for one in config.route] == ["a.x", "b.x"]
    assert (config.tls.certificate, config.tls.key) == (str(more / "c.pem"), "/k.pem")


def test_where_values_come_from(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "conf.d").mkdir()
    path = _write(tmp_path, main=f'include = ["conf.d/*.toml"]\n{LISTEN}[limits]\nerrors = 3\n')
    included = tmp_path / "conf.d" / "x.toml"
    included.write_text(f'\n[limits]\nerrors = 4\n{LISTEN}tls = "none"\n')
    assert main(["config", "show", "--json", "--config", path]) == 0
    rows = {row["key"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (rows["limits.errors"]["value"], rows["limits.errors"]["source"]) == ("4", f"{included}:3")
    assert rows["listen[1].service"]["source"] == f"{path}:3"
    assert rows["listen[2].tls"]["source"] == f"{included}:7"
    assert (rows["limits.auth_failures"]["value"], rows["limits.auth_failures"]["source"]) == ('"10/10min"', "default")
    assert rows["hostname"]["source"] == "the machine's name"
    assert main(["config", "show", "--written", "limits", "--config", path]) == 0
    assert capsys.readouterr().out == f"limits.errors = 4  # {included}:3\n"
    assert main(["config", "show", "limit", "--config", path]) == 1


def test_every_value_shown_can_be_written(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path, main=LISTEN)
    assert main(["config", "show", "--config", path]) == 0
    lines = [line.partition("  #")[0] for line in capsys.readouterr().out.splitlines()]
    plain = [line for line in lines if "[" not in line.partition("=")[0] and not line.startswith("include")]
    path = _write(tmp_path, main="\n".join(plain) + "\n" + LISTEN)
    assert main(["check", path]) == 0, capsys.readouterr().err


def test_variables(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(
        tmp_path,
        main=LISTEN + '[tls]\ncertificate = "${CREDENTIALS_DIRECTORY}/c"\nkey = "${CREDENTIALS_DIRECTORY}/k"\n',
    )
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert load(path).tls.key == "${CREDENTIALS_DIRECTORY}/k"
    assert main(["check", path]) == 0  # an operator's shell does not have it
    assert "CREDENTIALS_DIRECTORY is set for the service only" in capsys.readouterr().err
    assert load(path, {"CREDENTIALS_DIRECTORY": "/run/c"}).tls.key == "/run/c/k"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert main(["check", path]) == 2
    assert f"{path}:5:1: tls.certificate: {tmp_path}/c: No such file" in capsys.readouterr().err


# --- what to look at ---


def _warnings(path: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["check", path]) == 0, capsys.readouterr().err
    return [line.removeprefix(f"tripost: warning: {path}:") for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ('[relay]\nnetworks = [\n"10.0.0.0/8",\n"0.0.0.0/0"]\n', "7:1: relay.networks[2]: OPEN RELAY: everybody in 0."),
        ('[relay]\nnetworks = ["2000::/3"]\n', "5:13: relay.networks[1]: OPEN RELAY: everybody in 2000::/3"),
        ('xclient = ["0.0.0.0/0"]\n', "4:12: listen[1].xclient[1]: OPEN RELAY: everybody in 0.0.0.0/0 may claim"),
        ('[[listen]]\nservice = "smtp"\naddress = "0.0.0.0:25"\n', "5:1: listen[2].service: smtp without TLS"),
        ('[[listen]]\nservice = "imap"\naddress = "[::]:143"\n', "5:1: listen[2].service: imap without TLS: only"),
        ('[[listen]]\nservice = "submission"\naddress = "127.0.0.1:587"\n', "5:1: listen[2].service: submission"),
        ('[auth]\ncleartext = "always"\n', "5:1: auth.cleartext: passwords are taken over the network in plain"),
        ('[auth]\nfile = "open"\n', "5:1: auth.file: "),
        ('[[route]]\ndomain = "*"\nto = "smtp://h.x"\nauth_file = "open"\n', "7:1: route[1].auth_file: "),
    ],
)
def test_warnings(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], text: str, warning: str) -> None:
    (tmp_path / "open").write_text("a:b\n")
    (tmp_path / "open").chmod(0o644)
    (found,) = _warnings(_write(tmp_path, main=LISTEN + text), capsys)
    assert found.startswith(warning), found
    assert "open" not in text or found.endswith("can be read by every user of this machine; chmod o-r it")


def test_behind_a_proxy(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second listener takes no header: who comes through the proxy to it is taken for the proxy."""
    text = LISTEN + "proxy_protocol = true\n" + LISTEN.replace("2525", "2526")
    path = _write(tmp_path, main=text + '[proxy]\nnetworks = ["127.0.0.1"]\n')
    (found,) = _warnings(path, capsys)
    assert found.startswith("7:1: listen[2].address: takes no PROXY header")


def test_certificates(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime.datetime.now(datetime.UTC)
    authority = trustme.CA()
    text = LISTEN + '[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n'
    path = _write(tmp_path, main='hostname = "mail.example"\n' + text)

    def keep(name: str, days: float, mode: int = 0o600) -> None:
        made = authority.issue_cert(
            name, not_before=now - datetime.timedelta(90), not_after=now + datetime.timedelta(days)
        )
        made.private_key_pem.write_to_path(tmp_path / "k.pem")
        (tmp_path / "k.pem").chmod(mode)
        (tmp_path / "c.pem").write_bytes(b"".join(one.bytes() for one in made.cert_chain_pems))

    keep("mail.example", 90)
    assert _warnings(path, capsys) == []
    keep("mail.example", 3, 0o644)
    first, second = _warnings(path, capsys)
    assert "c.pem expires on 20" in first
    assert second.startswith("7:1: tls.key: ")
    keep("mail.example", -1)
    assert "c.pem has expired on 20" in _warnings(path, capsys)[0]
    keep("other.example", 90)
    assert _warnings(path, capsys)[0].endswith("c.pem is for other.example, not for mail.example")
    (tmp_path / "k.pem").write_text("x")
    assert main(["check", path]) == 2
    assert f"{path}:6:1: tls.certificate: {tmp_path}/c.pem with {tmp_path}/k.pem: " in capsys.readouterr().err


# --- words for every key, and a file to start from ---


def test_every_key_has_its_words() -> None:
    known = set(keys(schema()))
    assert sorted(key for key in known if help_of(key) is None and not any(key in one for one in TABLES)) == []
    assert [key for key in HELP if not any(one == key or one.startswith(f"{key}.") for one in known)] == []


def keys(part: dict[str, Any], at: str = "") -> Iterator[str]:
    for name, one in part.get("properties", {}).items():
        key = f"{at}.{name}" if at else name
        if not one.get("items", one).get("properties"):
            yield key
        yield from keys(one.get("items", one), key)
        more = one.get("additionalProperties")
        if isinstance(more, dict):
            yield from keys(more, f"{key}.NAME")


def test_init(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["init", "--hostname", "mx.machin.com", "--relay-network", "192.0.2.0/24", "--listen", "127.0.0.1:2525"]
    path = tmp_path / "t.toml"
    more = ["--local-domain", "machin.com", "--postmaster", "marc@machin.com", "--smart-host", "relay.example:587"]
    assert main([*words, *more, "--yes", "-o", str(path)]) == 0
    assert main(["check", str(path)]) == 0
    assert "warning" not in capsys.readouterr().err
    config = load(str(path))
    assert (config.hostname, config.relay.networks, config.local.domains) == (
        *("mx.machin.com", ["192.0.2.0/24"], ["machin.com"]),
    )
    assert [(one.domain, one.to) for one in config.route] == [("*", "smtp://relay.example:587")]
    before = path.read_text()
    assert main([*words, "--yes", "-o", str(path)]) == 1  # never over a file
    assert path.read_text() == before
    capsys.readouterr()
    assert main([*words, "--yes"]) == 0
    text = capsys.readouterr().out
    for line in text.splitlines():  # what is commented out can be taken as it stands
        if line.startswith("# ") and (" = " in line or line.startswith("# [")):
            text = text.replace(line, line[2:])
    (tmp_path / "conf.d").mkdir()
    authority = trustme.CA().issue_cert("mx.machin.com")
    authority.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    path.write_text(text)
    assert main(["check", str(path)]) == 0, capsys.readouterr().err


def test_init_refuses(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.toml"
    assert main(["init", "-o", str(path)]) == 2  # there is no terminal
    assert "--yes" in capsys.readouterr().err
    assert main(["init", "--yes", "--hostname", "mx machin", "--relay-network", "x", "-o", str(path)]) == 2
    told = capsys.readouterr().err
    assert "hostname: " in told
    assert "relay.networks[1]: " in told
    assert main(["init", "--yes", "--certificate", "x", "-o", str(path)]) == 2
    assert main(["init", "--yes", "-o", str(tmp_path / "none" / "t.toml")]) == 2
    assert list(tmp_path.iterdir()) == []


def test_init_asks(tmp_path: pathlib.Path) -> None:
    """On a real terminal; an empty answer takes what is offered."""
    answers = ["mx.machin.com", "127.0.0.1:2525", "10.0.0.0/8, ::1", "machin.com", "marc@machin.com", "", ""]
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tripost", "init", "-o", "t.toml"], cwd=tmp_path, stdin=slave, stderr=slave
    ) as child:
        os.write(master, "".join(f"{one}\n" for one in answers).encode())
        assert child.wait(30) == 0
    os.close(slave)
    os.close(master)
    config = load(str(tmp_path / "t.toml"))
    assert (config.hostname, config.relay.networks, config.local.postmaster, config.route) == (
        *("mx.machin.com", ["10.0.0.0/8", "::1"], "marc@machin.com", []),
    )
