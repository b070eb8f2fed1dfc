"""mail servers of other people send us mail: Postfix and Exim"""

from __future__ import annotations

import smtplib
from collections.abc import Iterator

import pytest

from conftest import needs
from support.gateways import common_folder, wait_for
from support.relays import exim, postfix
from support.submitting import MARC, House, house

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
