"""programs that hand their mail to a sendmail: mutt, two mailx, Python's subprocess"""

from __future__ import annotations

import email
import email.policy
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from conftest import needs
from support.gateways import Running, running, wait_for
from support.submitting import run

MARC, NORA = "marc@machin.com", "nora@machin.com"
BODY = "Hello\n.\n..\nfrom here\nFrom there\ncafé\n"


class Place:
    """`sendmail`: the path of a program like /usr/sbin/sendmail."""

    def __init__(self, folder: pathlib.Path, gateway: Running) -> None:
        self.folder = folder
        self._gateway = gateway
        self.sendmail = folder / "sendmail"
        self.sendmail.write_text(f'#!/bin/sh\nexec {sys.executable} -m tripost sendmail -C {gateway.file} "$@"\n')
        self.sendmail.chmod(0o755)

    def mail(self, account: str = MARC) -> EmailMessage:
        """The one that came, and it is taken away; it has only whole line ends."""
        new = self._gateway.folder / "state" / "mail" / account / "new"
        assert wait_for(lambda: new.is_dir() and any(new.iterdir())), self._gateway.events()[-5:]
        (path,) = new.iterdir()
        text = path.read_bytes()
        path.unlink()
        assert b"\n" not in text.replace(b"\r\n", b"")
        found = email.message_from_bytes(text, policy=email.policy.default)
        assert isinstance(found, EmailMessage)
        for name in ("From", "Date", "Message-ID"):
            assert len(found.get_all(name)) == 1, text
        assert found["Bcc"] is None
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("sendmail")
    with running(folder) as gateway:
        gateway.command("user", "add", NORA, "--password-stdin", input="secret\n")
        yield Place(folder, gateway)


def _text(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


def test_mutt(place: Place) -> None:
    needs("mutt")
    rc, attached = place.folder / "muttrc", place.folder / "data"
    attached.write_bytes(bytes(range(256)) * 300)
    rc.write_text(
        f'set sendmail="{place.sendmail} -oem -oi"\nset from="root@machin.com"\nset use_envelope_from=yes\n'
        f"set folder={place.folder}\nset send_charset=utf-8\nset charset=utf-8\nset copy=no\n"
    )
    run("mutt", "-n", "-F", str(rc), "-s", "Déjà vu", "-c", NORA, "-a", str(attached), "--", MARC, stdin=BODY.encode())
    for account in (MARC, NORA):
        message = place.mail(account)
        assert message["Subject"] == "Déjà vu"
        assert message["Cc"] == NORA
        assert _text(message) == BODY
        (part,) = message.iter_attachments()
        assert part.get_content() == attached.read_bytes()


def test_mutt_is_told_of_a_refusal(place: Place) -> None:
    needs("mutt")
    rc = place.folder / "muttrc2"
    rc.write_text(f'set sendmail="{place.sendmail} -oem -oi"\nset copy=no\nset folder={place.folder}\n')
    said = run("mutt", "-n", "-F", str(rc), "-s", "x", "--", "gone@machin.com", stdin=b"x\n", fails=True)
    assert "gone@machin.com: 550 5.1.1 no such user here" in said
    assert "67" in said


def test_s_nail(place: Place) -> None:
    needs("s-nail")
    options = ("-:/", "-S", "v15-compat", "-S", f"mta={place.sendmail}", "-S", "sendwait", "-S", "ttycharset=utf-8")
    run("s-nail", *options, "-s", "from s-nail", "-b", NORA, MARC, stdin=BODY.encode())
    for account in (MARC, NORA):
        message = place.mail(account)
        assert message["Subject"] == "from s-nail"
        assert _text(message) == BODY


def test_bsd_mailx(place: Place) -> None:
    needs("bsd-mailx")
    (place.folder / ".mailrc").write_text(f"set sendmail={place.sendmail}\nset dot\n")
    subprocess.run(
        ["bsd-mailx", "-s", "from mailx", "-b", NORA, MARC],
        input=BODY.replace(".\n..\n", "").encode(), check=True, timeout=60, capture_output=True,
        env=os.environ | {"HOME": str(place.folder), "MAILRC": str(place.folder / ".mailrc"), "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    for account in (MARC, NORA):
        message = place.mail(account)
        assert message["Subject"] == "from mailx"
        assert _text(message) == BODY.replace(".\n..\n", "")


@pytest.mark.parametrize("linesep", ["\n", "\r\n"])
def test_from_python(place: Place, linesep: str) -> None:
    """As Python's documentation has it, and as Django and others do."""
    message = EmailMessage(policy=email.policy.SMTP.clone(linesep=linesep))
    message["From"], message["To"], message["Bcc"] = "root@machin.com", f"Marc <{MARC}>", NORA
    message["Subject"] = "Grüße"
    message.set_content(BODY, cte="8bit")
    subprocess.run([str(place.sendmail), "-t", "-oi"], input=message.as_bytes(), check=True, timeout=60)
    for account in (MARC, NORA):
        found = place.mail(account)
        assert found["Subject"] == "Grüße"
        assert _text(found) == BODY
