"""programs of other people send us mail: swaks, curl, msmtp, Python's smtplib"""

from __future__ import annotations

import pathlib
import smtplib
import ssl
import subprocess
import time
from collections.abc import Iterator

import pytest

from conftest import needs
from support.gateways import wait_for
from support.submitting import MARC, PASSWORD, House, house, run

LETTER = b"Subject: x\r\nFrom: marc@machin.com\r\n\r\nhello\r\n..dots\r\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as one:
        yield one


def _arrived(place: House, count: int = 1) -> bytes:
    assert wait_for(lambda: len(place.far.messages) >= count), place.gateway.events()[-5:]
    last = place.far.messages[-1]
    place.far.messages.clear()
    return last


def _commands(place: House, verb: str) -> list[str]:
    found = [one for one in place.far.commands if one.startswith(verb)]
    place.far.commands.clear()
    return found


def needs_swaks_with_tls() -> None:
    needs("swaks")
    said = subprocess.run(["swaks", "--support"], capture_output=True, text=True, check=False)
    if "TLS not available" in said.stdout + said.stderr:
        needs("swaks-with-tls", "libnet-ssleay-perl")


def _trust(place: House) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=place.authority)
    context.check_hostname = False  # it is called by its address here
    return context


# --- swaks ---


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("way", ["--tls", "--tls-on-connect"])
def test_swaks_submits(place: House, mechanism: str, way: str) -> None:
    needs_swaks_with_tls()
    port = place.submission if way == "--tls" else place.submissions
    said = run(
        "swaks", "--server", f"127.0.0.1:{port}", way, "--auth", mechanism, "--auth-user", MARC, "--auth-password",
        PASSWORD, "--from", MARC, "--to", "a@far.example", "--body", "from swaks",
    )  # fmt: skip
    before, _, after = said.partition("~> EHLO")
    assert ("STARTTLS" in before) == (way == "--tls")
    assert "STARTTLS" not in after.partition("~> AUTH")[0]
    content = _arrived(place)
    assert b" with ESMTPSA id " in content
    assert b"\r\n\t(TLSv1.3 TLS_" in content
    assert b"from swaks" in content


def test_swaks_without_tls_or_with_another_name(place: House) -> None:
    needs_swaks_with_tls()
    auth = ("--auth", "PLAIN", "--auth-user", MARC, "--auth-password", PASSWORD, "--to", "a@far.example")
    said = run("swaks", "--server", f"127.0.0.1:{place.submission}", *auth, "--from", MARC, fails=True)
    assert "AUTH" not in said.replace("no authentication type", "").partition("*** ")[0]
    said = run("swaks", "--server", f"127.0.0.1:{place.submission}", "--tls", *auth, "--from", "x@y.z", fails=True)
    assert "<~* 550 5.7.1 you may not send as this address" in said


def test_swaks_lmtp_on_a_unix_socket(place: House) -> None:
    needs("swaks")
    said = run(
        "swaks", "--socket", str(place.lmtp), "--protocol", "LMTP", "--from", "f@far.example",
        "--to", f"{MARC},nobody@machin.com,postmaster@machin.com", "--body", "by lmtp", "--pipeline",
    )  # fmt: skip
    assert "LHLO" in said
    assert said.count("250 2.0.0 queued as") == 2
    assert "550 5.1.1" in said


def test_swaks_xclient(place: House) -> None:
    needs("swaks")
    words = ("--from", "f@far.example", "--to", "a@far.example", "--xclient-delim", "--xclient")
    server = ("swaks", "--server", f"127.0.0.1:{place.proxied}")
    said = run(*server, *words, "ADDR=198.51.100.9 NAME=c.example", fails=True)
    assert "<** 550 5.7.1" in said  # the client behind the proxy may not relay
    run(*server, *words, "ADDR=127.0.0.5 NAME=c.example HELO=inner", "--body", "by proxy")
    assert b"(c.example [127.0.0.5])" in _arrived(place)
    said = run("swaks", "--server", f"127.0.0.1:{place.smtp}", *words, "ADDR=127.0.0.5", fails=True)
    assert "XCLIENT" not in said.partition("***")[0]


# --- curl ---


@pytest.mark.parametrize(("scheme", "mechanism"), [("smtp", "PLAIN"), ("smtp", "LOGIN"), ("smtps", "PLAIN")])
def test_curl_submits(place: House, tmp_path: pathlib.Path, scheme: str, mechanism: str) -> None:
    needs("curl")
    file = tmp_path / "letter.eml"
    file.write_bytes(LETTER)
    port = place.submission if scheme == "smtp" else place.submissions
    run(
        "curl", "-sS", f"{scheme}://smtp.machin.com:{port}/c.machin.com", "--connect-to", f"::127.0.0.1:{port}",
        "--ssl-reqd", "--cacert", place.authority, "-u", f"{MARC}:{PASSWORD}", "--login-options", f"AUTH={mechanism}",
        "--mail-from", MARC, "--mail-rcpt", "a@far.example", "-T", str(file),
    )  # fmt: skip
    content = _arrived(place)
    assert content.endswith(b"hello\r\n..dots\r\n")
    assert b"\r\nMessage-ID: <" in content
    assert b"\r\nDate: " in content


# --- msmtp ---


@pytest.mark.parametrize("mechanism", ["plain", "login", "scram-sha-256"])
def test_msmtp_submits(place: House, tmp_path: pathlib.Path, mechanism: str) -> None:
    needs("msmtp")
    name = MARC
    if mechanism == "scram-sha-256":
        name = "scram@machin.com"
        scheme = ("--scheme", "SCRAM-SHA-256")
        added = place.gateway.command("user", "add", name, "--password-stdin", *scheme, input=f"{PASSWORD}\n")
        assert added.returncode == 0, added.stderr
    rc = tmp_path / "msmtprc"
    rc.write_text(
        f"account default\nhost 127.0.0.1\nport {place.submission}\ntls on\ntls_starttls on\n"
        f"tls_trust_file {place.authority}\ntls_host_override smtp.machin.com\n"
        f"auth {mechanism}\nuser {name}\npassword {PASSWORD}\nfrom {name}\n"
    )
    rc.chmod(0o600)
    run("msmtp", "-C", str(rc), "-N", "success,failure", "-R", "hdrs", "a@far.example", stdin=LETTER)
    content = _arrived(place)
    assert b" with ESMTPSA id " in content
    assert any("NOTIFY=SUCCESS,FAILURE" in one for one in _commands(place, "RCPT"))


# --- smtplib ---


def test_smtplib(place: House) -> None:
    with smtplib.SMTP("127.0.0.1", place.submission, timeout=20) as client:
        client.ehlo()
        assert "PLAIN" not in client.esmtp_features.get("auth", "")
        with pytest.raises(smtplib.SMTPSenderRefused, match=r"5\.7\.0"):
            client.sendmail(MARC, ["a@far.example"], LETTER)
        client.starttls(context=_trust(place))
        client.ehlo()
        assert not client.has_extn("starttls")
        with pytest.raises(smtplib.SMTPAuthenticationError, match=r"5\.7\.8"):
            client.login(MARC, "wrong")
        client.login(MARC, PASSWORD)
        options = ["BODY=8BITMIME", "RET=HDRS", "ENVID=q+2B1"]
        assert client.sendmail(MARC, ["a@far.example"], LETTER, options, ["NOTIFY=SUCCESS", "ORCPT=rfc822;o@x.y"]) == {}
    _arrived(place)
    commands = [one for one in place.far.commands if one.startswith(("MAIL", "RCPT"))]
    place.far.commands.clear()
    assert "RET=HDRS" in commands[0]
    assert "ENVID=q+2B1" in commands[0]
    assert "NOTIFY=SUCCESS ORCPT=rfc822;o@x.y" in commands[1]


def test_smtplib_asks_for_the_rest(place: House) -> None:
    with smtplib.SMTP("127.0.0.1", place.submission, timeout=20) as client:
        client.starttls(context=_trust(place))
        client.login(MARC, PASSWORD)
        client.ehlo()
        assert client.esmtp_features["limits"] == "RCPTMAX=1000"
        assert client.esmtp_features["futurerelease"].startswith("2592000 ")
        options = ["REQUIRETLS", "MT-PRIORITY=3", "BY=3600;NT", "HOLDFOR=1", "AUTH=<>"]
        before = len(place.gateway.events("accepted"))
        began = time.monotonic()
        assert client.sendmail(MARC, [MARC], LETTER, options) == {}
        assert wait_for(lambda: len(place.gateway.events("accepted")) > before)
        held = place.gateway.events("accepted")[-1]["id"]
        assert wait_for(lambda: any(one["id"] == held for one in place.gateway.events("delivered")))
        assert time.monotonic() - began > 1  # it was held for a second
        client.mail(MARC, ["BODY=BINARYMIME"])
        client.rcpt(MARC)
        client.send(b"BDAT 9 LAST\r\nS:\r\n\r\na\nb")
        assert client.getreply()[0] == 250


def test_smtplib_speaks_utf8(place: House) -> None:
    with smtplib.SMTP("127.0.0.1", place.smtp, timeout=20) as client:
        client.ehlo()
        text = "Subject: é\r\n\r\né\r\n".encode()
        client.sendmail("frédéric@truc.fr", ["zoë@far.example"], text, ["SMTPUTF8", "BODY=8BITMIME"])
        client.command_encoding = "utf-8"
        with pytest.raises(smtplib.SMTPSenderRefused, match="SMTPUTF8 was not asked for"):
            client.sendmail("frédéric@truc.fr", ["zoë@far.example"], text)
    assert b" with UTF8SMTP id " in _arrived(place)
    assert any("SMTPUTF8" in one for one in _commands(place, "MAIL"))


def test_smtplib_lmtp(place: House) -> None:
    with smtplib.LMTP(str(place.lmtp)) as client:
        client.ehlo()
        refused = client.sendmail("f@far.example", [MARC, "no@machin.com"], LETTER)
        assert {name: code for name, (code, _) in refused.items()} == {"no@machin.com": 550}
