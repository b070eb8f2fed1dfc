"""POP3 inside of TLS and out of it: STLS, TLS from the start, who may say a password where, and SCRAM"""

from __future__ import annotations

import base64
import pathlib
import poplib
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme

from support.gateways import Running, free_port, running, wait_for
from support.scram import client_final
from tripost.delivery.mailbox.session import open_mailbox

MARC = "marc@machin.com"
MORE = """\
[[listen]]
service = "pop3"
address = "127.0.0.1:{implicit}"
tls = "implicit"
[[listen]]
service = "pop3"
address = "127.0.0.1:{strict}"
require_tls = true
[tls]
certificate = "cert.pem"
key = "key.pem"
"""


class House(Running):
    implicit: int
    strict: int
    context: ssl.SSLContext


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder, authority = tmp_path_factory.mktemp("pop3"), trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "key.pem").chmod(0o600)
    implicit, strict = free_port(), free_port()
    with running(folder, MORE.format(implicit=implicit, strict=strict), kind=House) as one:
        one.implicit, one.strict = implicit, strict
        one.context = ssl.create_default_context()
        authority.configure_trust(one.context)
        scram = ("--scheme", "SCRAM-SHA-256", "--password-stdin")
        assert one.command("user", "add", "ann@machin.com", *scram, input="geheim\n").returncode == 0
        yield one


class Talk:
    """A client that says lines and hears lines."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.lines = self.socket.makefile("rb")
        assert self.hear().startswith("+OK")

    def hear(self) -> str:
        return self.lines.readline().decode().rstrip("\r\n")

    def say(self, line: str) -> str:
        self.socket.sendall(f"{line}\r\n".encode())
        return self.hear()

    def rows(self, line: str) -> list[str]:
        assert self.say(line).startswith("+OK")
        return list(iter(self.hear, "."))

    def secure(self, context: ssl.SSLContext) -> None:
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.lines = self.socket.makefile("rb")

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


def test_stls(house: House) -> None:
    client = poplib.POP3("127.0.0.1", house.pop3, timeout=20)
    assert "STLS" in client.capa()
    client.stls(house.context)
    assert "STLS" not in client.capa()
    assert client.capa()["SASL"] == ["PLAIN", "LOGIN", "SCRAM-SHA-256"]
    client.user(MARC)
    client.pass_("secret")
    assert client.quit().startswith(b"+OK")


def test_what_came_behind_stls_is_dropped(house: House) -> None:
    one = Talk(house.pop3)
    one.socket.sendall(b"USER marc@machin.com\r\nSTLS\r\nCAPA\r\nUSER marc@machin.com\r\n")
    assert one.hear() == "+OK now the password"
    assert one.hear() == "+OK begin TLS now"
    one.secure(house.context)
    assert one.say("PASS secret") == "-ERR USER first"  # what was said before is forgotten too
    assert one.say("NOOP") == "-ERR NOOP only after the login"
    one.close()


def test_what_is_no_handshake(house: House) -> None:
    one = Talk(house.pop3)
    assert one.say("STLS").startswith("+OK")
    one.socket.sendall(b"CAPA\r\n")
    assert b"+OK" not in one.lines.read()
    one.close()
    refused = wait_for(lambda: house.events("refused"))
    assert [(row["service"], row["phase"]) for row in refused] == [("pop3", "stls")]


def test_tls_from_the_start(house: House) -> None:
    client = poplib.POP3_SSL("127.0.0.1", house.implicit, timeout=20, context=house.context)
    assert "STLS" not in client.capa()
    client.user(MARC)
    client.pass_("secret")
    client.quit()


def test_nothing_before_tls_where_it_is_required(house: House) -> None:
    one = Talk(house.strict)
    rows = one.rows("CAPA")
    assert "STLS" in rows
    assert not [row for row in rows if row == "USER" or row.startswith("SASL")]
    for line in (f"USER {MARC}", "PASS secret", "AUTH PLAIN", "UTF8"):
        assert one.say(line) == "-ERR [SYS/PERM] STLS first" or line.startswith("PASS")
    assert one.say("STLS").startswith("+OK")
    one.secure(house.context)
    assert one.say(f"USER {MARC}").startswith("+OK")
    assert one.say("PASS secret").startswith("+OK")
    one.close()


@pytest.mark.parametrize("initial", [True, False])
def test_scram(house: House, initial: bool) -> None:
    one = Talk(house.pop3)
    first = "n=ann@machin.com,r=abcdef"
    encoded = base64.b64encode(f"n,,{first}".encode()).decode()
    if initial:
        answer = one.say(f"AUTH SCRAM-SHA-256 {encoded}")
    else:
        assert one.say("AUTH SCRAM-SHA-256") == "+ "
        answer = one.say(encoded)
    second = base64.b64decode(answer.removeprefix("+ ")).decode()
    final, signature = client_final("geheim", first, second)
    answer = one.say(base64.b64encode(final.encode()).decode())
    assert base64.b64decode(answer.removeprefix("+ ")).decode() == f"v={signature}"
    assert one.say("") == "+OK 0 messages"
    one.close()
    wrong = Talk(house.pop3)
    answer = wrong.say(f"AUTH SCRAM-SHA-256 {encoded}")
    final, _ = client_final("falsch", first, base64.b64decode(answer.removeprefix("+ ")).decode())
    assert wrong.say(base64.b64encode(final.encode()).decode()).startswith("-ERR [AUTH]")
    assert wrong.say("AUTH PLAIN").startswith("+ ")
    assert wrong.say("*") == "-ERR cancelled"
    wrong.close()


def test_a_scram_account_by_password_and_a_disabled_one(house: House) -> None:
    client = poplib.POP3("127.0.0.1", house.pop3, timeout=20)
    client.user("Ann@machin.com")
    client.pass_("geheim")
    client.quit()
    assert house.command("user", "disable", "ann@machin.com").returncode == 0
    try:
        client = poplib.POP3("127.0.0.1", house.pop3, timeout=20)
        client.user("ann@machin.com")
        with pytest.raises(poplib.error_proto, match="SYS/PERM"):
            client.pass_("geheim")
        client.close()
    finally:
        assert house.command("user", "enable", "ann@machin.com").returncode == 0


def test_another_process_has_the_mailbox(house: House) -> None:
    box = open_mailbox(str(house.folder / "state" / "mail"), MARC)
    one = Talk(house.pop3)
    one.say(f"USER {MARC}")
    assert one.say("PASS secret").startswith("-ERR [IN-USE]")
    box.close()
    one.say(f"USER {MARC}")
    assert one.say("PASS secret") == "+OK 0 messages"
    other = Talk(house.pop3)
    other.say(f"USER {MARC}")
    assert other.say("PASS secret").startswith("-ERR [IN-USE]")
    one.close()
    other.close()


def test_last_logins_are_kept(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as one:
        client = poplib.POP3("127.0.0.1", one.pop3, timeout=20)
        client.user(MARC)
        client.pass_("secret")
        client.quit()
        assert one.stop() == 0
        assert " pop3 20" in one.command("user", "list").stdout
        assert "secret" not in (one.folder / "events.log").read_text()


def test_guessing_is_barred(tmp_path: pathlib.Path) -> None:
    more = '[limits]\nauth_failures = "2/10min"\nauth_ban = "1h"\nlogin_delay = "1h"\n'
    with running(tmp_path, more) as one:
        talk = Talk(one.pop3)
        assert "LOGIN-DELAY 3600" in talk.rows("CAPA")
        talk.say(f"USER {MARC}")
        assert talk.say("PASS secret").startswith("+OK")
        talk.say("QUIT")
        talk.close()
        talk = Talk(one.pop3)
        talk.say(f"USER {MARC}")
        assert talk.say("PASS secret").startswith("-ERR [LOGIN-DELAY]")
        for _ in range(2):
            talk.say(f"USER {MARC}")
            assert talk.say("PASS wrong").startswith("-ERR [AUTH]")
        talk.say(f"USER {MARC}")
        assert talk.say("PASS secret").startswith("-ERR [SYS/TEMP] too many failed logins, try again in 3")
        talk.close()
        reasons = [row["reason"] for row in one.events("loginfailed")]
        assert reasons == ["credentials", "credentials", "barred"]
