"""one TOML file, and everything that can be wrong with it"""

from __future__ import annotations

import pathlib
import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripost.gateway import units
from tripost.gateway.config import ConfigError, load
from tripost.gateway.config_positions import positions
from tripost.gateway.windows import Rate
from tripost.gateway.wiring_listen import tls_mode

GOOD = """\
hostname = "Smtp.Machin.com"
state = "state"
[[listen]]
service = "smtp"
address = "127.0.0.1:2525"
"""


def _load(tmp_path: pathlib.Path, text: str) -> list[str]:
    """The errors of GOOD + text."""
    path = tmp_path / "t.toml"
    path.write_text(GOOD + text)
    try:
        load(str(path))
    except ConfigError as wrong:
        return [one.removeprefix(f"{path}:") for one in wrong.errors]
    return []


def test_values(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(GOOD + '[retry]\nfirst = "90s"\nschedule = ["1m", "2h"]\nfactor = 3\n[spool]\ninline = "1KiB"\n')
    config = load(str(path))
    assert config.hostname == "smtp.machin.com"
    assert config.state == str(tmp_path / "state")
    assert config.accounts_file == str(tmp_path / "state" / "accounts")
    assert config.local.domains == ["smtp.machin.com"]
    assert (config.retry.first, config.retry.schedule, config.retry.factor) == (90.0, [60.0, 7200.0], 3.0)
    assert config.spool.inline == 1024
    assert config.limits.command_timeout == 300.0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[limtis]\nerrors = 3\n", '6:2: limtis: unknown key; did you mean "limits"?'),
        ("[limits]\nerors = 3\n", '7:1: limits.erors: unknown key; did you mean "errors"?'),
        ("[limits]\nerrors = 'x'\n", '7:1: limits.errors: must be a whole number, not "x"'),
        ("[limits]\nerrors = true\n", "7:1: limits.errors: must be a whole number, not true"),
        ("[limits]\nerrors = -1\n", "7:1: limits.errors: must not be negative"),
        ("[limits]\nerrors = 0\n", "7:1: limits.errors: must be more than 0"),
        ("[limits]\ncommand_timeout = 5\n", '7:1: limits.command_timeout: must be a duration such as "5m", not 5'),
        ("[limits]\nmessage_size = '5 apples'\n", '7:1: limits.message_size: "5 apples" is no size; write one as'),
        ("[relay]\nnetworks = ['1.2.3.4/33']\n", "7:13: relay.networks[1]: '1.2.3.4/33' does not appear"),
        ("[relay]\nnetworks = 'x'\n", '7:1: relay.networks: must be a list, not "x"'),
        ("[events]\nformat = 'xml'\n", '7:1: events.format: must be one of auto, text, json, off, not "xml"'),
        ("[delivery]\nport = 70000\n", "7:1: delivery.port: must be between 1 and 65535"),
        ("[delivery.default]\nprobe_first = '0s'\n", "7:1: delivery.default.probe_first: must be more than 0"),
        ("[delivery.destination.'x.y']\nprobe_first = '1h'\n", "7:1: delivery.destination.x.y.probe_first: 3600"),
        ("[retry]\njitter = 1\n", "7:1: retry.jitter: must be at least 0 and less than 1"),
        ("[[route]]\ndomain = 'x'\n", '6:3: route[1]: "to" is missing'),
        ("[[route]]\ndomain = 'x'\nto = 'lmpt://x'\n", '8:1: route[1].to: "lmpt://x": must be mx'),
        ("[[route]]\ndomain = '*'\nto = 'mx'\nsender = 'x'\n", '9:1: route[1].sender: "x": the address has no domain'),
        ("[[route]]\ndomain = '*.x..y'\nto = 'mx'\n", '7:1: route[1].domain: "*.x..y": the domain is malformed'),
        ("[dns]\nnameservers = ['ns.x:53']\n", "7:16: dns.nameservers[1]:"),
        ("[local]\npostmaster = 'marc'\n", '7:1: local.postmaster: "marc": the address has no domain'),
        ("[[listen]]\nservice = 'ftp'\naddress = '[::1]:1'\n", "7:1: listen[2].service: must be one of smtp, "),
        ("[[listen]]\nservice = 'smtp'\naddress = 'x'\n", "8:1: listen[2].address:"),
        ("[local]\ndomains = ['m.x']\naliases = { 'a@y.x' = ['b@z'] }\n", "8:"),
        ("[local]\ndomains = ['m.x']\naliases = { 'a@m.x' = [] }\n", "8:"),
        ("[local]\ndomains = ['m.x']\naliases = { 'a@m.x' = ['b'] }\n", "8:"),
        ("[local]\naliases = 3\n", "7:1: local.aliases: must be a table, not 3"),
        ("[local]\ndomains = ['m.x']\ncatch_all = { 'y.x' = 'a@m.x' }\n", "8:"),
        ("[local]\nquota = '5'\n", '7:1: local.quota: "5" is no size'),
        ("[local]\nquota_over = 'drop'\n", "7:1: local.quota_over: must be one of defer, reject"),
        ("[local]\ndomains = ['m.x']\n[local.mailbox.'b@m.x']\nquota = 5\n", "9:1: local.mailbox.b@m.x.quota:"),
        ("[local]\ndomains = ['m.x']\n[local.mailbox.'b@m.x']\nquotas = 5\n", "9:1: local.mailbox.b@m.x.quotas:"),
        ("[local]\ndomains = ['m.x']\n[local.mailbox.'b@z.x']\nmax_messages = 5\n", "8:"),
        (
            "[[listen]]\nservice = 'smtp'\naddress = '1.2.3.4:70000'\n",
            '8:1: listen[2].address: "1.2.3.4:70000": the port',
        ),
        ("[[listen]]\nservice = 'smtp'\naddress = 'unix:x'\n", '8:1: listen[2].address: "unix:x": a Unix socket'),
        ("tls = 'starttls'\n", "6:1: listen[1].tls: needs a [tls] certificate"),
        ("require_tls = true\n", "6:1: listen[1].require_tls: needs TLS on this listener"),
        ("proxy_protocol = true\n", "6:1: listen[1].proxy_protocol: needs [proxy] networks"),
        ("xclient = ['x']\n", "6:12: listen[1].xclient[1]: 'x' does not appear"),
        ("[tls]\ncertificate = 'c'\n", "7:1: tls.certificate: certificate and key come together"),
        ("[[tls.sni]]\nnames = ['a.x']\ncertificate = 'c'\nkey = 'k'\n", "6:3: tls.sni[1]: needs a certificate"),
        ("[limits]\nclient_rate = '5'\n", '7:1: limits.client_rate: "5" is no rate'),
        ("[limits]\nminimum_rate = '5/h'\n", '7:1: limits.minimum_rate: "5/h" is no rate of octets'),
        ("[history]\nsize = '1MiB'\n", "7:1: history.size: must be at least 16MiB"),
        ("[limits]\nmemory = '1KiB'\n", "7:1: limits.memory: must be at least 1MiB"),
        ("[limits]\nclient_rate = 5\n", '7:1: limits.client_rate: must be a rate such as "100/min", not 5'),
        ("relay = 3\n", "6:1: listen[1].relay: unknown key"),
        ("x = \n", "6:5: Invalid value"),
    ],
)
def test_errors(tmp_path: pathlib.Path, text: str, error: str) -> None:
    (found,) = _load(tmp_path, text)
    assert found.startswith(error), found


def test_all_errors_at_once(tmp_path: pathlib.Path) -> None:
    found = _load(tmp_path, "[limits]\nerrors = 'x'\nfoo = 1\n[retry]\nfirst = 3\n")
    assert [one.split(": ")[1] for one in found] == ["limits.errors", "limits.foo", "retry.first"]


def test_unreadable(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(str(tmp_path / "none.toml"))
    (tmp_path / "t.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8 at octet 0"):
        load(str(tmp_path / "t.toml"))
    with pytest.raises(ConfigError, match="Is a directory"):
        load(str(tmp_path))
    (tmp_path / "e.toml").write_text("")
    with pytest.raises(ConfigError, match=r"at least one \[\[listen\]\]"):
        load(str(tmp_path / "e.toml"))


def test_built_in(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    config = load()
    assert config.state == str(tmp_path / "tripost")
    assert [one.address for one in config.listen] == [f"127.0.0.1:{port}" for port in (2525, 2587, 2110, 2143, 8025)]
    assert config.relay.networks == ["127.0.0.0/8", "::1/128"]
    (tmp_path / "tripost.toml").write_text(GOOD)
    assert load().hostname == "smtp.machin.com"
    monkeypatch.setenv("STATE_DIRECTORY", "/a:/b")
    (tmp_path / "tripost.toml").unlink()
    assert load().state == "/a"


def test_units() -> None:
    assert [units.duration(one) for one in ("90s", "5m", "4h", "5d", "200ms", "1.5h", "0")] == [
        90,
        300,
        14400,
        432000,
        0.2,
        5400,
        0,
    ]
    assert [units.size(one) for one in ("0", "100B", "32KiB", "1.5MiB", "1GiB")] == [0, 100, 32768, 1572864, 1 << 30]
    for text in ("5", "5 weeks", "", "-5s", "s"):
        with pytest.raises(ValueError, match="duration"):
            units.duration(text)
    for text in ("5", "5MB", "", "-1B"):
        with pytest.raises(ValueError, match="size"):
            units.size(text)


def test_rates() -> None:
    found = [units.rate(one) for one in ("", "5/s", "100/min", "10/10min", "3 / d", "7/2h")]
    assert found == [Rate(0, 1), Rate(5, 1), Rate(100, 60), Rate(10, 600), Rate(3, 86_400), Rate(7, 7200)]
    for text in ("0/s", "5", "5/", "5/0s", "5/week", "-5/s", "x/s"):
        with pytest.raises(ValueError, match="rate"):
            units.rate(text)


def test_units_as_they_are_written() -> None:
    assert [units.duration_text(one) for one in (0, 0.2, 90, 300, 86_400, 0.0001)] == [
        *("0", "200ms", "90s", "5m", "1d", "0.0001s"),
    ]
    assert [units.size_text(one) for one in (0, 100, 1536, 1 << 30)] == ["0", "100B", "1536B", "1GiB"]
    assert [units.byte_rate_text(one) for one in (0, 100, 1024)] == ["0", "100B/s", "1KiB/s"]
    for text in ("", "5/s", "100/min", "10/10min", "3/d", "7/2h"):
        assert units.rate_text(units.rate(text)) == text


def test_octets_a_second() -> None:
    assert [units.byte_rate(one) for one in ("0", "100B/s", "1KiB / s")] == [0, 100, 1024]
    for text in ("", "5", "5/s", "100B", "100B/min", "x/s"):
        with pytest.raises(ValueError, match="is no "):
            units.byte_rate(text)


def test_tls_paths_count_from_the_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(GOOD + "[tls]\ncertificate = 'c.pem'\nkey = '/k.pem'\n")
    config = load(str(path))
    assert (config.tls.certificate, config.tls.key) == (str(tmp_path / "c.pem"), "/k.pem")
    assert tls_mode(config, config.listen[0]) == "starttls"


def test_positions_step_over_what_spans_lines() -> None:
    text = 'a = """\nb = 1\n"""\nc = [\n  "x", # ]\n  "y"]\n[t]\nd.e = 1\n"q w" = 2\n[[l]]\nf = 1\n[[l]]\nf = 2\n'
    assert positions(text) == {
        ("a",): (1, 1),
        ("c",): (4, 1),
        ("c", 0): (5, 3),
        ("c", 1): (6, 3),
        ("t",): (7, 2),
        ("t", "d"): (8, 1),
        ("t", "d", "e"): (8, 1),
        ("t", "q w"): (9, 1),
        ("l", 0): (10, 3),
        ("l", 0, "f"): (11, 1),
        ("l", 1): (12, 3),
        ("l", 1, "f"): (13, 1),
    }


@given(st.text(alphabet="ab=[]\"'#\n. {}", max_size=60))
def test_no_text_surprises_the_scan(text: str) -> None:
    positions(text)


HARD = r'''# c [x]
a.b."c d" = """x [
 y = 1 \""" """
e = ['#', "]", {x = 1, y = [1,
 2, # z ]
 {q="}"}]}]
'quo.ted' = 1979-05-27T07:32:00Z
[t . "u.v"]
k = {a = {b = 1}, c.d = 2}
[[l]]
x=1
[l.m]
y=2
[[l.n]]
z=3
[[l.n]]
z=4
[[l]]
[[l.n]]
z = QQQ
[[no]]
QQQ
w = true
'''.replace("QQQ", "'''")


def test_every_value_has_its_place() -> None:
    """As tomllib reads it."""
    found = positions(HARD)
    assert {path: found[path] for path in _leaves(tomllib.loads(HARD))} == {
        ("a", "b", "c d"): (2, 1),
        ("e", 0): (4, 6),
        ("e", 1): (4, 11),
        ("e", 2, "x"): (4, 17),
        ("e", 2, "y", 0): (4, 29),
        ("e", 2, "y", 1): (5, 2),
        ("e", 2, "y", 2, "q"): (6, 3),
        ("quo.ted",): (7, 1),
        ("t", "u.v", "k", "a", "b"): (9, 11),
        ("t", "u.v", "k", "c", "d"): (9, 19),
        ("l", 0, "x"): (11, 1),
        ("l", 0, "m", "y"): (13, 1),
        ("l", 0, "n", 0, "z"): (15, 1),
        ("l", 0, "n", 1, "z"): (17, 1),
        ("l", 1, "n", 0, "z"): (20, 1),
        ("l", 1, "n", 0, "w"): (23, 1),
    }


def _leaves(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _leaves(one, (*path, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _leaves(one, (*path, number))
    else:
        yield path
