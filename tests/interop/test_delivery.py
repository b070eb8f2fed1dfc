"""our mail to the servers of other people: Postfix and Exim, byte for byte

tripost → the other server (TLS, BDAT where it is offered, SMTPUTF8, DSN) → a sink.
"""

from __future__ import annotations

import pathlib
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from conftest import needs
from support.gateways import Running, free_port, running, wait_for
from support.relays import exim, postfix
from support.sinks import Sink
from tripost.gateway.tls import self_signed

ROUTES = """
[[route]]
domain = "far.example"
to = "smtp://127.0.0.1:{port}"
tls = "{tls}"
"""
BODY = (
    b"Subject: exact\r\nDKIM-Signature: v=1; a=none;\r\n\tb=untouched  \r\nFrom: f@truc.fr\r\nTo: a@far.example\r\n"
    b"Date: Wed, 25 Nov 2026 10:00:00 +0000\r\nMessage-ID: <exact@truc.fr>\r\n\r\n"
    b".dot\r\n..dots\r\n\ttab and sp  \r\n" + (b"0123456789abcdef" * 4 + b"\r\n") * 3000 + b"\xc3\xa9\xff\r\n\r\n"
)
KEYWORDS = ("8BITMIME", "DSN", "SMTPUTF8")


@contextmanager
def _from_us(folder: pathlib.Path, port: int, tls: str) -> Iterator[Running]:
    with running(folder, ROUTES.format(port=port, tls=tls)) as one:
        yield one


def _send(gateway: Running, recipient: str, *mail: str, rcpt: tuple[str, ...] = ()) -> None:
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        client.ehlo()
        assert client.sendmail("f@truc.fr", [recipient], BODY, ["BODY=8BITMIME", *mail], list(rcpt)) == {}


@pytest.fixture
def sink() -> Iterator[Sink]:
    one = Sink(free_port(), *KEYWORDS)
    yield one
    one.close()


def test_to_postfix(tmp_path: pathlib.Path, sink: Sink) -> None:
    """Under TLS, in chunks, with what the sender asked for reports and an address that is not ASCII."""
    needs("postfix")
    pair = self_signed(str(tmp_path / "tls"), "relay.test")
    pathlib.Path(pair.key).chmod(0o600)
    port = sink.server_address[1]
    route = (
        f"relayhost = [127.0.0.1]:{port}\nsmtp_tls_security_level = none\nsmtp_send_xforward_command = no\n"
        f"smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {pair.certificate}\nsmtpd_tls_key_file = {pair.key}\n"
    )
    with (
        postfix(route) as postfix_port,
        _from_us(tmp_path, postfix_port, "encrypt") as gateway,
    ):
        _send(gateway, "a@far.example", "RET=HDRS", "ENVID=q1", rcpt=("NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;o@x.y"))
        _send(gateway, "zoë@far.example", "SMTPUTF8")
        assert wait_for(lambda: len(sink.messages) == 2, 30), gateway.events()[-8:]
        opened = gateway.events("opened")
        assert opened[0]["tls"] == "TLSv1.3"
        relayed = gateway.events("relayed")
        assert all("queued as" in row["reply"] for row in relayed)
        assert all("bytes" in row["reply"] or "Ok" in row["reply"] for row in relayed)
    for content in sink.messages:
        assert content.endswith(BODY)
    assert any("RET=HDRS" in line and "ENVID=q1" in line for line in sink.commands)
    (rcpt,) = [line for line in sink.commands if "ORCPT=rfc822;o@x.y" in line]
    assert "SUCCESS" in rcpt
    assert "FAILURE" in rcpt
    assert any("zo" in line and line.startswith("RCPT") for line in sink.commands)


def test_to_exim(tmp_path: pathlib.Path, sink: Sink) -> None:
    needs("exim4", "exim4-daemon-light")
    port = sink.server_address[1]
    with (
        exim(port, takes_chunks=True) as (exim_port, log),
        _from_us(tmp_path, exim_port, "may") as gateway,
    ):
        _send(gateway, "a@far.example", "RET=FULL", "ENVID=q2")
        assert wait_for(lambda: sink.messages, 30), log() + str(gateway.events()[-8:])
        assert " K " in log()  # that is how Exim notes BDAT
    assert sink.messages[0].endswith(BODY)
    assert any("ENVID=q2" in line for line in sink.commands)
