"""mail servers of other people send us mail: Postfix and Exim"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator

import pytest

from conftest import needs
from support.gateways import common_folder, wait_for
from support.relays import exim, postfix
from support.submitting import MARC, House, house
from support.taps import tap

TEXT = b"Subject: x\r\n\r\n.dot\r\n" + (b"0123456789abcdef" * 4 + b"\r\n") * 1000 + b"\xc3\xa9\r\n"


@pytest.fixture(scope="module")
def place() -> Iterator[House]:
    with common_folder() as folder, house(folder) as one:
        yield one


def _sent(port: int, recipients: list[str], sender: str = "f@far.example", **more: list[str]) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo()
        options = ["BODY=8BITMIME", *more.get("mail", [])]
        assert client.sendmail(sender, recipients, TEXT, options, more.get("rcpt", [])) == {}


def _accepted(place: House, count: int) -> dict[str, object]:
    assert wait_for(lambda: len(place.gateway.events("accepted")) >= count), place.gateway.events()[-9:]
    return place.gateway.events("accepted")[-1]


def test_postfix_by_smtp(place: House) -> None:
    needs("postfix")
    before = len(place.gateway.events("accepted"))
    with postfix(f"relayhost = [127.0.0.1]:{place.proxied}") as port:
        asked = {"mail": ["RET=HDRS", "ENVID=q1"], "rcpt": ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;o@x.y"]}
        _sent(port, ["a@far.example", "b@far.example"], **asked)
        one = _accepted(place, before + 1)
        assert one["recipients"] == ["a@far.example", "b@far.example"]
        assert wait_for(lambda: place.far.messages)
        content = place.far.messages.pop()
        assert b"from relay.test ([127.0.0.1])\r\n\t(TLSv1.3 " in content
        assert b" with ESMTPS id " in content
        assert content.endswith(b"\r\n" + TEXT.partition(b"\r\n\r\n")[2])
        assert any("RET=HDRS" in line and "ENVID=q1" in line for line in place.far.commands)
        assert any("NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o@x.y" in line for line in place.far.commands)
        _sent(port, ["zoë@far.example"], "frédéric@truc.fr", mail=["SMTPUTF8"])
        assert _accepted(place, before + 2)["sender"] == "frédéric@truc.fr"
        _sent(port, [MARC])
        _accepted(place, before + 3)
    assert not place.gateway.events("trouble")


def test_postfix_on_the_wire(place: House) -> None:
    """What Postfix's client makes of what is announced, and what becomes of it here."""
    needs("postfix")
    before = len(place.gateway.events("accepted"))
    lines = [
        "smtp_tls_security_level = none",
        "smtpd_authorized_xclient_hosts = 127.0.0.0/8",
        "mynetworks = 127.0.0.0/8 198.51.100.0/24",
    ]
    with tap(place.proxied) as wire, postfix("\n".join([f"relayhost = [127.0.0.1]:{wire.port}", *lines])) as port:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            client.ehlo()
            behind = "ADDR=198.51.100.7 PORT=4711 NAME=behind.example HELO=inner.example PROTO=ESMTP"
            assert client.docmd("XCLIENT", behind)[0] == 220
            client.ehlo("inner.example")
            options = ["BODY=8BITMIME", "SMTPUTF8", "RET=HDRS", "ENVID=q1"]
            asked = ["NOTIFY=SUCCESS,FAILURE"]
            client.sendmail("frédéric@truc.fr", ["a@far.example", "zoë@far.example"], TEXT, options, asked)
        one = _accepted(place, before + 1)
    offered = b"".join(wire.heard)
    for keyword in (b"PIPELINING", b"CHUNKING", b"DSN", b"SMTPUTF8", b"XCLIENT", b"XFORWARD"):
        assert keyword in offered
    # PIPELINING: the whole envelope in one piece
    (piece,) = [piece for piece in wire.said if b"MAIL FROM" in piece]
    envelope = [line for line in piece.decode().split("\r\n") if not line.startswith("XFORWARD ")]
    assert [line.partition(" ")[0] for line in envelope] == ["MAIL", "RCPT", "RCPT", "DATA", ""]
    # DSN and SMTPUTF8
    mail, first, second = envelope[:3]
    assert mail.startswith("MAIL FROM:<frédéric@truc.fr> SIZE=")
    assert all(word in mail.split(" ") for word in ("BODY=8BITMIME", "SMTPUTF8", "RET=HDRS", "ENVID=q1"))
    assert first.startswith("RCPT TO:<a@far.example> ORCPT=")
    assert second.startswith("RCPT TO:<zoë@far.example> ORCPT=")
    assert first.endswith("NOTIFY=SUCCESS,FAILURE")
    assert (one["sender"], one["recipients"]) == ("frédéric@truc.fr", ["a@far.example", "zoë@far.example"])
    # XFORWARD: its client is ours in the event, and not in the Received line
    words = [word for line in wire.commands if line.startswith("XFORWARD ") for word in line.split()[1:]]
    told = dict(word.split("=", 1) for word in words)
    assert told.items() >= {
        "ADDR": "198.51.100.7", "PORT": "4711", "NAME": "behind.example", "HELO": "inner.example", "PROTO": "ESMTP",
        "SOURCE": "LOCAL",
    }.items()  # fmt: skip
    assert one["client"] == "198.51.100.7"
    assert wait_for(lambda: place.far.messages)
    content = place.far.messages.pop()
    assert b"Received: from relay.test ([127.0.0.1])\r\n\tby smtp.machin.com with UTF8SMTP id " in content
    # and what Postfix's client does not know, so that Exim and swaks are asked below and elsewhere
    assert not [line for line in wire.commands if line.startswith(("BDAT", "XCLIENT"))]


def test_postfix_by_lmtp_on_a_unix_socket(place: House) -> None:
    needs("postfix")
    before = len(place.gateway.events("accepted"))
    place.lmtp.chmod(0o666)  # Postfix has a user of its own
    with postfix(f"default_transport = lmtp:unix:{place.lmtp}\nlmtp_tls_security_level = none") as port:
        _sent(port, [MARC, "postmaster@machin.com"])
        _accepted(place, before + 1)
    assert wait_for(lambda: place.gateway.events("delivered"))


def test_exim_in_chunks(place: House) -> None:
    needs("exim4", "exim4-daemon-light")
    before = len(place.gateway.events("accepted"))
    with exim(place.smtp) as (port, log):
        asked = {"mail": ["RET=FULL", "ENVID=q2"], "rcpt": ["NOTIFY=FAILURE"]}
        _sent(port, ["a@far.example", "b@far.example"], **asked)
        assert _accepted(place, before + 1)["recipients"] == ["a@far.example", "b@far.example"]
        assert wait_for(lambda: place.far.messages)
        content = place.far.messages.pop()
        assert b" with ESMTPS id " in content
        assert content.endswith(b"\r\n" + TEXT.partition(b"\r\n\r\n")[2])
        assert any("RET=FULL" in line and "ENVID=q2" in line for line in place.far.commands)
        assert wait_for(lambda: " K C=" in log())  # that is how Exim notes BDAT
        assert "TLS error" not in log()
