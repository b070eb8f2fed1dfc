"""the commands beside serve: check, route, user, demo's Ctrl-C"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import smtplib
import subprocess
import sys
import time

import pytest

from support.gateways import Running
from tripost.gateway.cli.main import main


@pytest.fixture
def gateway(tmp_path: pathlib.Path) -> Running:
    return Running(tmp_path, user="")


def test_check(gateway: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(gateway.file)]) == 0
    assert capsys.readouterr().out == "ok\n"
    text = gateway.file.read_text()
    gateway.file.write_text(f'{text}[[listen]]\nservice = "submission"\naddress = "127.0.0.1:0"\n')
    assert main(["check", str(gateway.file)]) == 0
    assert "28:1: listen[5].service: submission without TLS: only accounts with a SCRAM" in capsys.readouterr().err
    gateway.file.write_text("[limtis]\n")
    assert main(["check", "--config", str(gateway.file)]) == 2
    assert "limtis: unknown key" in capsys.readouterr().err


def test_route(gateway: Running, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--config", str(gateway.file)]
    assert main(["route", "a@far.example", "postmaster", *where]) == 0
    assert capsys.readouterr().out == "a@far.example: mx:far.example\npostmaster: local as marc@machin.com\n"
    assert main(["route", "--json", "nobody@machin.com", *where]) == 1
    row = json.loads(capsys.readouterr().out)
    assert row == {"address": "nobody@machin.com", "refused": "550 5.1.1 no such user here"}


def test_users(gateway: Running) -> None:
    assert gateway.command("user", "add", "marc@machin.com", "--password-stdin", input="one\n").returncode == 0
    again = gateway.command("user", "add", "marc@machin.com", "--password-stdin", input="one\n")
    assert (again.returncode, "a user already" in again.stderr) == (1, True)
    assert gateway.command("user", "passwd", "marc@machin.com", "--password-stdin", input="two\n").returncode == 0
    empty = gateway.command("user", "passwd", "marc@machin.com", "--password-stdin", input="\n")
    assert (empty.returncode, "empty password" in empty.stderr) == (1, True)
    assert gateway.command("user", "list").stdout == "marc@machin.com  ARGON2ID\n"
    scram = ("--scheme", "SCRAM-SHA-256", "--password-stdin")
    assert gateway.command("user", "passwd", "marc@machin.com", *scram, input="two\n").returncode == 0
    assert gateway.command("user", "quota", "marc@machin.com", "1MiB", "--messages", "20").returncode == 0
    assert gateway.command("user", "quota", "marc@machin.com", "2MiB").returncode == 0
    shown = gateway.command("user", "quota", "marc@machin.com").stdout
    assert shown == "0 of 2097152 octets, 0 of 20 messages\n"
    assert gateway.command("user", "disable", "marc@machin.com").returncode == 0
    row = json.loads(gateway.command("user", "list", "--json").stdout)
    assert row == {
        "address": "marc@machin.com",
        "scheme": "SCRAM-SHA-256",
        "usable": True,
        "disabled": True,
        "quota_rule": "*:bytes=2097152:messages=20",
    }
    assert gateway.command("user", "enable", "marc@machin.com").returncode == 0
    assert gateway.command("user", "quota", "marc@machin.com", "none").returncode == 0
    assert gateway.command("user", "list").stdout == "marc@machin.com  SCRAM-SHA-256\n"
    assert gateway.command("user", "quota", "nobody@machin.com").returncode == 1
    assert gateway.command("user", "quota", "marc@machin.com", "much").returncode == 1
    assert gateway.command("user", "remove", "marc@machin.com").returncode == 0
    gone = gateway.command("user", "remove", "marc@machin.com")
    assert (gone.returncode, gone.stderr.count("\n")) == (1, 1)


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        main(["serve", "--wrong-flag"])
    assert info.value.code == 2
    with pytest.raises(SystemExit) as info:
        main(["--version"])
    assert info.value.code == 0
    assert capsys.readouterr().out.startswith("tripost ")


def test_demo_keep_and_ctrl_c() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "tripost", "demo", "--keep"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    lines: list[str] = []
    for line in child.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C ends"):
            break
    child.send_signal(signal.SIGINT)
    start = time.monotonic()
    out, err = child.communicate(timeout=30)
    assert child.returncode == 0, (out, err)
    assert time.monotonic() - start < 10
    assert err == ""
    assert any("live ws://127.0.0.1:" in line for line in lines)


def test_queue_verify(tmp_path: pathlib.Path) -> None:
    gateway = Running(tmp_path)
    none = gateway.command("queue", "verify")
    assert (none.returncode, "there is no spool" in none.stderr) == (2, True)
    gateway.start()
    try:
        with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
            client.sendmail("fred@truc.fr", ["marc@machin.com"], "Subject: x\r\n\r\nhi\r\n")
        assert gateway.command("queue", "verify").returncode == 0
        locked = gateway.command("queue", "verify", "--offline")
        assert (locked.returncode, "a gateway runs" in locked.stderr) == (2, True)
    finally:
        gateway.stop()
    found = json.loads(gateway.command("queue", "verify", "--offline", "--json").stdout)
    assert found["damage"] == []
    (segment,) = (gateway.folder / "state" / "spool" / "log").glob("*.seg")
    content = bytearray(segment.read_bytes())
    content[-30] ^= 1
    segment.write_bytes(content)
    bad = gateway.command("queue", "verify")
    assert (bad.returncode, "1 damaged places" in bad.stdout) == (1, True)
