"""the same mailbox in our hands and in Dovecot's"""

from __future__ import annotations

import pathlib
import poplib
import smtplib
import subprocess
from collections.abc import Iterator

import pytest

from conftest import needs
from support.dovecot import Dovecot, dovecot
from support.gateways import Running, common_folder, running, wait_for
from tripost.gateway import schemes

MARC = "marc@machin.com"


@pytest.fixture
def both() -> Iterator[tuple[Running, Dovecot]]:
    needs("/usr/lib/dovecot/pop3", "dovecot-pop3d")
    needs("/usr/lib/dovecot/lmtp", "dovecot-lmtpd")
    with common_folder() as folder, running(folder) as gateway:
        mail = folder / "state" / "mail"
        folder.joinpath("state").chmod(0o755)
        for n in range(20):
            _submit(gateway, n)
        assert wait_for(lambda: len(gateway.events("delivered")) == 20)
        with dovecot(folder, mail, {MARC: "secret"}) as other:
            other.own()
            yield gateway, other


def _letter(n: int) -> str:
    return f"Subject: number {n}\r\nFrom: fred@truc.fr\r\n\r\nline\r\n.dot\r\n" + "x\r\n" * n


def _submit(gateway: Running, n: int) -> None:
    with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
        client.sendmail("fred@truc.fr", [MARC], _letter(n))


class Seen:
    """A mailbox by POP3: contents, sizes and UIDs."""

    def __init__(self, port: int, delete: tuple[int, ...] = ()) -> None:
        client = poplib.POP3("127.0.0.1", port, timeout=60)
        client.user(MARC)
        client.pass_("secret")
        count = client.stat()[0]
        self.messages = [b"".join(line + b"\r\n" for line in client.retr(n + 1)[1]) for n in range(count)]
        self.sizes = [int(row.split()[1]) for row in client.list()[1]]
        self.uids = [row.split()[1].decode() for row in client.uidl()[1]]
        for number in delete:
            client.dele(number)
        client.quit()


def test_the_same_messages_in_the_same_order(both: tuple[Running, Dovecot]) -> None:
    gateway, other = both
    ours, theirs = Seen(gateway.pop3), Seen(other.pop3)
    assert len(ours.messages) == 20
    assert ours.sizes == [len(one) for one in ours.messages]
    assert sorted(theirs.messages) == sorted(ours.messages)
    assert sorted(theirs.sizes) == sorted(ours.sizes)
    again = Seen(gateway.pop3)  # Dovecot has moved them from new to cur, and given them flags
    assert list((other.mail / MARC / "new").iterdir()) == []
    assert again.uids == ours.uids
    assert again.messages == ours.messages


def test_what_dovecot_delivers_and_removes(both: tuple[Running, Dovecot]) -> None:
    gateway, other = both
    before = Seen(gateway.pop3)
    with smtplib.LMTP("127.0.0.1", other.lmtp) as client:
        client.sendmail("fred@truc.fr", [MARC], "Subject: by Dovecot\r\n\r\nhello\r\n.\r\n")
    after = Seen(gateway.pop3)
    assert after.uids[:20] == before.uids
    assert len(after.uids) == 21
    assert b"Subject: by Dovecot" in after.messages[20]
    assert after.sizes[20] == len(after.messages[20])  # Dovecot has written LF
    there = Seen(other.pop3, delete=(3, 4))
    gone = [n for n, one in enumerate(after.messages) if one in there.messages[2:4]]
    assert len(gone) == 2
    left = Seen(gateway.pop3, delete=(1,))
    assert left.uids == [uid for n, uid in enumerate(after.uids) if n not in gone]
    assert sorted(Seen(other.pop3).messages) == sorted(left.messages[1:])
    gateway.stop()
    for index in (other.mail / MARC).glob("tripost-index*"):
        index.unlink()
    gateway.start()
    assert Seen(gateway.pop3).uids == left.uids[1:]  # they do not hang on the index


@pytest.mark.parametrize("scheme", schemes.MADE)
def test_dovecot_reads_our_verifiers(scheme: str, tmp_path: pathlib.Path) -> None:
    needs("doveadm", "dovecot-core")
    config = tmp_path / "dovecot.conf"
    config.write_text("ssl = no\n")
    verifier = schemes.make(scheme, "pässword")
    for password, code in (("pässword", 0), ("password", 1)):
        words = ["doveadm", "-c", str(config), "pw", "-t", verifier, "-p", password]
        done = subprocess.run(words, capture_output=True, timeout=60, check=False)
        assert bool(done.returncode) == bool(code), done
