"""`tripost session` plays a dialogue, explains it, and keeps nothing"""

from __future__ import annotations

import pathlib
import subprocess

import pytest

from support.gateways import Running
from tripost.gateway.cli.session import client_of

LETTER = "MAIL FROM:<fred@truc.fr>\nRCPT TO:<{to}>\nDATA\nSubject: x\n\n{text}\n.\nQUIT\n"


@pytest.fixture
def gateway(tmp_path: pathlib.Path) -> Running:
    return Running(tmp_path, '[local.aliases]\n"sales@machin.com" = ["marc@machin.com", "x@far.example"]\n')


def _play(gateway: Running, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    return gateway.command("session", *words, input=text)


def test_a_stranger(gateway: Running) -> None:
    done = _play(gateway, "EHLO c\n" + LETTER.format(to="a@far.example", text="hi"))
    assert done.returncode == 1
    assert ">>> connect: [192.0.2.1] is a stranger: for our own domains only" in done.stdout
    assert "550 5.7.1" in done.stdout
    assert ">>> rcpt: <a@far.example>: refused, 550 5.7.1" in done.stdout
    done = _play(
        gateway, "EHLO c\n" + LETTER.format(to="sales@machin.com", text="x" * 50_000), "--client", "192.0.2.7:99"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ">>> rcpt: <sales@machin.com> goes to local as <marc@machin.com>" in done.stdout
    assert ">>> rcpt: <sales@machin.com> goes to mx:far.example as <x@far.example>" in done.stdout
    assert ">>> REHEARSAL1 would be queued: 50" in done.stdout
    assert "250 2.0.0 queued as REHEARSAL1" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].startswith("221 2.0.0")
    assert not (gateway.folder / "state" / "spool").exists()


def test_a_relay_client_and_an_account(gateway: Running) -> None:
    text = "EHLO c\n" + LETTER.format(to="a@far.example", text="hi")
    assert _play(gateway, text, "--client", "127.0.0.1").returncode == 0
    words = ("--service", "submission", "--tls", "--auth", "marc@machin.com")
    refused = _play(gateway, text, *words)
    assert refused.returncode == 1
    assert ">>> mail: <fred@truc.fr>, as marc@machin.com: refused, 550 5.7.1" in refused.stdout
    taken = _play(gateway, text.replace("fred@truc.fr", "marc@machin.com"), *words)
    assert taken.returncode == 0
    assert "250-REQUIRETLS" in taken.stdout
    wrong = _play(gateway, "EHLO c\nAUTH PLAIN AG1hcmNAbWFjaGluLmNvbQB3cm9uZw==\n", "--service", "submission", "--tls")
    assert "535 5.7.8" in wrong.stdout
    assert ">>> login failed: credentials" in wrong.stdout


def test_what_cannot_be_played(gateway: Running) -> None:
    assert _play(gateway, "", "--client", "somebody").returncode == 2
    assert _play(gateway, "", "--auth", "nobody@machin.com").returncode == 2


@pytest.mark.parametrize(
    ("text", "client"),
    [
        ("192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:25", ("192.0.2.1", 25)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("[2001:db8::1]:25", ("2001:db8::1", 25)),
    ],
)
def test_clients(text: str, client: tuple[str, int]) -> None:
    assert client_of(text) == client
