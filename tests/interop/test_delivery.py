"""our mail to the servers of other people: Postfix, Exim and OpenSMTPD, byte for byte

tripost → the other server (TLS, BDAT where it is offered, SMTPUTF8 and DSN likewise) → a sink.
"""

from __future__ import annotations

import pathlib
import smtplib
from collections.abc import Iterator

import pytest

from conftest import needs
from support.gateways import Running, free_port, running, wait_for
from support.opensmtpd import opensmtpd
from support.relays import exim, postfix
from support.sinks import Sink
from tripost.gateway.tls import Pair, self_signed

ROUTES = """
[[route]]
domain = "far.example"
to = "smtp://127.0.0.1:{port}"
tls = "{tls}"
"""
HEAD = (
    b"Subject: exact\r\nDKIM-Signature: v=1; a=none;\r\n\tb=untouched  \r\nFrom: f@truc.fr\r\nTo: a@far.example\r\n"
    b"Date: Wed, 25 Nov 2026 10:00:00 +0000\r\nMessage-ID: <exact@truc.fr>\r\n\r\n"
)
LARGE = (
    HEAD
    + b".dot\r\n..dots\r\n\ttab and sp  \r\n"
    + (b"0123456789abcdef" * 4 + b"\r\n") * 3000
    + b"\xc3\xa9\xff\r\n\r\n"
)
SMALL = HEAD + b".\r\n..\r\n.a \r\n" + b"y" * 990 + b"\r\n\xe9\r\n.\r\n"
ASKED = ("RET=HDRS", "ENVID=q1"), ("NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;o@x.y")


def _send(
    gateway: Running, content: bytes, recipient: str = "a@far.example", *mail: str, rcpt: tuple[str, ...] = ()
) -> None:
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        client.ehlo()
        assert client.sendmail("f@truc.fr", [recipient], content, ["BODY=8BITMIME", *mail], list(rcpt)) == {}


@pytest.fixture
def sink() -> Iterator[Sink]:
    one = Sink(free_port(), "8BITMIME", "DSN", "SMTPUTF8")
    yield one
    one.close()


@pytest.fixture
def pair(tmp_path: pathlib.Path) -> Pair:
    made = self_signed(str(tmp_path / "tls"), "relay.test")
    pathlib.Path(made.key).chmod(0o600)
    return made


def _two(gateway: Running, sink: Sink) -> None:
    """A large and a small message arrive as they were sent, and so does what was asked for reports."""
    _send(gateway, LARGE, "a@far.example", *ASKED[0], rcpt=ASKED[1])
    _send(gateway, SMALL, "b@far.example")
    assert wait_for(lambda: len(sink.messages) == 2, 30), gateway.events()[-8:]
    contents = sorted(sink.messages, key=len)
    assert [contents[0].endswith(SMALL), contents[1].endswith(LARGE)] == [True, True]
    assert any("RET=HDRS" in line and "ENVID=q1" in line for line in sink.commands)
    (rcpt,) = [line for line in sink.commands if "ORCPT=rfc822;o@x.y" in line]
    assert "SUCCESS" in rcpt
    assert "FAILURE" in rcpt


def _not_ascii(gateway: Running, sink: Sink) -> None:
    _send(gateway, SMALL, "zoë@far.example", "SMTPUTF8")
    assert wait_for(lambda: len(sink.messages) == 3, 30), gateway.events()[-8:]
    assert sink.messages[2].endswith(SMALL)
    assert any(line.startswith("RCPT TO:<zoë@") for line in sink.commands)


def test_to_postfix(tmp_path: pathlib.Path, sink: Sink, pair: Pair) -> None:
    needs("postfix")
    route = (
        f"relayhost = [127.0.0.1]:{sink.server_address[1]}\nsmtp_tls_security_level = none\n"
        "smtp_send_xforward_command = no\nsmtpd_tls_security_level = may\n"
        f"smtpd_tls_cert_file = {pair.certificate}\nsmtpd_tls_key_file = {pair.key}\n"
    )
    with postfix(route) as port, running(tmp_path, ROUTES.format(port=port, tls="encrypt")) as gateway:
        _two(gateway, sink)
        _not_ascii(gateway, sink)
        assert {row["tls"] for row in gateway.events("opened")} == {"TLSv1.3"}
        replies = [row["reply"] for row in gateway.events("relayed")]
        assert all("bytes queued as" in one for one in replies)  # that is what Postfix says to BDAT only


def test_to_exim(tmp_path: pathlib.Path, sink: Sink, pair: Pair) -> None:
    needs("exim4", "exim4-daemon-light")
    with (
        exim(sink.server_address[1], takes=(pair.certificate, pair.key)) as (port, log),
        running(tmp_path, ROUTES.format(port=port, tls="encrypt")) as gateway,
    ):
        _two(gateway, sink)
        _not_ascii(gateway, sink)
        assert {row["tls"] for row in gateway.events("opened")} == {"TLSv1.3"}
        taken = [line for line in log().splitlines() if " <= f@truc.fr " in line]
        assert len(taken) == 3
        assert all(" K " in line and " X=TLS1.3:" in line for line in taken)  # K is how Exim notes BDAT


def test_to_opensmtpd(tmp_path: pathlib.Path, sink: Sink, pair: Pair) -> None:
    """It offers neither CHUNKING nor SMTPUTF8: an address that is not ASCII comes back as a report. As a TLS server the
    one in Debian 12 fails with its OpenSSL (OpenSMTPD's issue 1171): the mail must come through all the same."""
    needs("smtpd", "opensmtpd")
    with (
        opensmtpd(sink.server_address[1], pair.certificate, pair.key) as (port, log),
        running(tmp_path, ROUTES.format(port=port, tls="may")) as gateway,
    ):
        _two(gateway, sink)
        broken = log().count("SSL routines")
        assert broken <= 2  # the two may have gone at once
        assert {row["tls"] for row in gateway.events("opened")} == {"" if broken else "TLSv1.3"}
        _send(gateway, SMALL, "zoë@far.example", "SMTPUTF8")
        assert wait_for(lambda: gateway.events("failed"), 30), gateway.events()[-8:]
        assert gateway.events("failed")[0]["reply"].startswith("553 5.6.7 ")
        assert log().count("SSL routines") == broken  # what is broken is remembered
