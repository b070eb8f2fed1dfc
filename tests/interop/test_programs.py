"""mail in by swaks and curl, out by curl, poplib and fetchmail"""

from __future__ import annotations

import os
import pathlib
import poplib
import re
import subprocess
from collections.abc import Iterator

import pytest

from conftest import needs
from support.gateways import Running, running, wait_for

BODY = "Subject: exact\r\nFrom: fred@truc.fr\r\n\r\nline\r\n.dot\r\n..dots\r\n\ttab and sp \xe9\r\nlast\r\n"


@pytest.fixture
def gateway(tmp_path: pathlib.Path) -> Iterator[Running]:
    with running(tmp_path) as one:
        yield one


def _run(*words: str, stdin: bytes = b"", **environment: str) -> bytes:
    done = subprocess.run(
        words, input=stdin, capture_output=True, timeout=60, check=False, env=os.environ | environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _stored(gateway: Running, count: int) -> list[bytes]:
    """The mailbox by poplib: the messages' octets as they came over the wire."""

    def fetch() -> list[bytes]:
        client = poplib.POP3("127.0.0.1", gateway.pop3, timeout=20)
        client.user("marc@machin.com")
        client.pass_("secret")
        have, octets = client.stat()
        found = [b"".join(line + b"\r\n" for line in client.retr(n + 1)[1]) for n in range(have)]
        sizes = [int(row.split()[1]) for row in client.list()[1]]
        client.quit()
        assert [len(one) for one in found] == sizes
        assert sum(sizes) == octets
        return found if have >= count else []

    got: list[bytes] = wait_for(fetch)
    assert len(got) == count
    return got


def _submitted(gateway: Running, message: bytes, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "letter.eml"
    file.write_bytes(message)
    _run(
        "curl",
        "-sS",
        f"smtp://127.0.0.1:{gateway.smtp}/fred.truc.fr",
        "--mail-from",
        "fred@truc.fr",
        "--mail-rcpt",
        "marc@machin.com",
        "-T",
        str(file),
    )


def test_curl_in_curl_and_poplib_out_byte_exact(gateway: Running, tmp_path: pathlib.Path) -> None:
    needs("curl")
    message = BODY.encode("latin-1")
    _submitted(gateway, message, tmp_path)
    stored = _stored(gateway, 1)[0]
    assert stored.endswith(b"\r\n" + message)
    assert b"Return-Path: <fred@truc.fr>" in stored
    by_curl = _run("curl", "-sS", "-u", "marc@machin.com:secret", f"pop3://127.0.0.1:{gateway.pop3}/1")
    assert by_curl == stored


def test_swaks_in(gateway: Running) -> None:
    needs("swaks")
    _run(
        "swaks",
        "--server",
        f"127.0.0.1:{gateway.smtp}",
        "--from",
        "fred@truc.fr",
        "--to",
        "marc@machin.com",
        "--body",
        "from swaks",
        "--header",
        "Subject: swaks",
        "--pipeline",
        "--hide-all",
    )
    assert b"from swaks" in _stored(gateway, 1)[0]


def test_fetchmail_out_equal_after_its_own_lines(gateway: Running, tmp_path: pathlib.Path) -> None:
    needs("fetchmail")
    message = BODY.encode("latin-1")
    _submitted(gateway, message, tmp_path)
    stored = _stored(gateway, 1)[0]
    out = tmp_path / "out"
    rc = tmp_path / "fetchmailrc"
    rc.write_text(
        f'poll 127.0.0.1 service {gateway.pop3} protocol pop3 auth password user "marc@machin.com" password "secret"'
        f' sslproto "" no sslcertck mda "cat > {out}"\n'
    )
    rc.chmod(0o600)
    _run(
        "fetchmail",
        "-f",
        str(rc),
        "--nosyslog",
        "--pidfile",
        str(tmp_path / "pid"),
        "-i",
        str(tmp_path / "ids"),
        FETCHMAILHOME=str(tmp_path),
        HOME=str(tmp_path),
    )
    got = out.read_bytes().replace(b"\r\n", b"\n")
    got = re.sub(rb"(?m)\AReturn-Path:[^\n]*\n", b"", got) if not stored.startswith(b"Return-Path") else got
    theirs = re.compile(rb"^(Received: from [^\n]*\n\tby [^\n]* with POP3 [^\n]*\n(\t[^\n]*\n)*)", re.M)
    assert theirs.sub(b"", got) == stored.replace(b"\r\n", b"\n")
    assert gateway.events("fetched")[-1]["deleted"] == 1
