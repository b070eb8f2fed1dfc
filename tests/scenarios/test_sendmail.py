"""tripost sendmail, with a gateway and without"""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from support.gateways import Running, common_folder, running, wait_for
from tripost.gateway.cli import queue, sendmail  # before a child lets go of what it may read
from tripost.gateway.control.frames import VERSION, Request, frame

assert queue
MARC = "marc@machin.com"
ROUTE = '[[route]]\ndomain = "far.example"\nto = "smtp://127.0.0.1:1"\n'  # nobody listens there
LETTER = "Subject: hello\n\none\n.\n..two\n"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="asks as several users: only root can")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Running]:
    with common_folder() as folder, running(folder, ROUTE) as one:
        one.command("user", "add", "nobody@machin.com", "--password-stdin", input="secret\n")
        yield one


def send(gateway: Running, *words: str, text: str | bytes = LETTER) -> subprocess.CompletedProcess[bytes]:
    data = text.encode() if isinstance(text, str) else text
    return subprocess.run(
        [sys.executable, "-m", "tripost", "sendmail", "--config", str(gateway.file), *words],
        input=data, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def mail_of(gateway: Running, account: str = "marc@machin.com") -> list[bytes]:
    """What came, and it is taken away."""
    new = gateway.folder / "state" / "mail" / account / "new"
    assert wait_for(lambda: new.is_dir() and any(new.iterdir())), gateway.events()[-5:]
    found = sorted(new.iterdir())
    texts = [one.read_bytes() for one in found]
    for one in found:
        one.unlink()
    return texts


def test_a_letter(gateway: Running) -> None:
    done = send(gateway, "-i", "-F", "Zoë Root", "marc@machin.com", "marc")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    (text,) = mail_of(gateway)
    header, _, body = text.partition(b"\r\n\r\n")
    assert body == b"one\r\n.\r\n..two\r\n"
    assert header.startswith(b"Return-Path: <root@machin.com>\r\n")
    assert b"\r\nFrom: =?utf-8?b?Wm/DqyBSb290?= <root@machin.com>\r\n" in header
    assert header.count(b"\r\nDate: ") == header.count(b"\r\nMessage-ID: <") == 1
    assert b"(Unix socket)\r\n" in header
    assert b" with ESMTPA id " in header
    assert b"\n" not in text.replace(b"\r\n", b"")
    assert gateway.events("accepted")[-1]["recipients"] == ["marc@machin.com"]


def test_the_input_may_end_by_a_dot(gateway: Running) -> None:
    assert send(gateway, "marc@machin.com", text="Subject: x\n\none\n.\ntwo\n").returncode == 0
    assert mail_of(gateway)[0].endswith(b"\r\n\r\none\r\n")


def test_recipients_from_the_header(gateway: Running) -> None:
    text = "From: me@elsewhere.example\nTo: Marc <marc@machin.com>\nBcc: nobody@machin.com\nDate: now\n\nx\r\n"
    assert send(gateway, "-t", "-f", "", text=text).returncode == 0
    for account in (MARC, "nobody@machin.com"):
        (copy,) = mail_of(gateway, account)
        assert b"bcc" not in copy.lower()
        assert copy.count(b"nobody") == (account != MARC)  # in Delivered-To
        assert copy.count(b"Date: now\r\n") == copy.count(b"From:") == 1


def test_eight_bits_and_utf8(gateway: Running) -> None:
    text = "To: marc@machin.com\nSubject: caf\u00e9\n\nZo\u00eb\n"
    assert send(gateway, "-t", text=text).returncode == 0
    assert text.partition("\n\n")[2].replace("\n", "\r\n").encode() in mail_of(gateway)[0]


@pytest.mark.parametrize(
    ("words", "text", "exit", "says"),
    [
        ((), LETTER, 64, "no recipients"),
        (("-t",), LETTER, 65, "no recipients: neither in the header"),
        (("-k", "a@x.y"), LETTER, 64, "-k is not known"),
        (("-bd",), LETTER, 64, "tripost serve is the daemon"),
        (("nobody-here@machin.com",), LETTER, 67, "nobody-here@machin.com: 550 5.1.1 no such user here"),
        (("marc", "gone@machin.com"), LETTER, 67, "nothing was sent"),
        (("a b@machin.com",), LETTER, 65, "a b@machin.com: "),
        (("marc",), "Subject: x\n\nbare\rCR\n", 65, "5.6.0 bare CR or LF"),
        (("marc",), "Subject: x\n" + "X: y\n" * 300_000, 65, "header is larger"),
    ],
)
def test_what_is_refused(gateway: Running, words: tuple[str, ...], text: str, exit: int, says: str) -> None:
    before = len(gateway.events("accepted"))
    done = send(gateway, *words, text=text)
    assert (done.returncode, says in done.stderr.decode()) == (exit, True), done.stderr
    assert len(gateway.events("accepted")) == before


def test_mail_waits_in_the_queue_and_is_listed(gateway: Running) -> None:
    assert send(gateway, "-bp").stdout == b"the queue is empty\n"
    assert send(gateway, "-q").returncode == 0
    assert send(gateway, "waits@far.example").returncode == 0
    assert wait_for(lambda: b"waits@far.example" in send(gateway, "-bp").stdout)
    assert _as_nobody(gateway, "-bp") == (0, "the queue is empty\n")
    assert _as_nobody(gateway, "mine@far.example")[0] == 0
    code, said = _as_nobody(gateway, "-bp")
    assert (code, "mine@far.example" in said, "waits@" in said) == (0, True, False)
    assert b"mine@far.example" in send(gateway, "-bp").stdout
    assert send(gateway, "-q").returncode == 0
    assert send(gateway, "-qRfar.example").returncode == 0
    assert _as_nobody(gateway, "-q")[0] == 77
    assert gateway.command("queue", "list", "--account", "nobody@machin.com", "--json").returncode == 0


def test_smtp_on_standard_input(gateway: Running) -> None:
    commands = ("EHLO me", "MAIL FROM:<root@machin.com>", f"RCPT TO:<{MARC}>", "DATA", "X: y", "", "z", ".", "QUIT", "")
    said = send(gateway, "-bs", text="\r\n".join(commands)).stdout
    assert [line[:3] for line in said.splitlines() if line[3:4] == b" "] == [
        b"220", b"250", b"250", b"250", b"354", b"250", b"221"]  # fmt: skip
    assert b"Message-ID: <" in mail_of(gateway)[0]


# --- who asks ---


def _as_nobody(gateway: Running, *words: str, text: str = LETTER) -> tuple[int, str]:
    """(exit code, what it says), from a child that is another user and may read none of our files."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        code = 99
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.dup2(theirs, 1)
            os.dup2(theirs, 2)
            given, giving = os.pipe()
            os.write(giving, text.encode())
            os.close(giving)
            sys.stdin = os.fdopen(given)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            code = sendmail.run("sendmail", ["--config", str(gateway.file), *words])
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


@pytest.mark.parametrize("sender", ["nobody@machin.com", "nobody", "nobody@smtp.machin.com", "nobody+x@machin.com", ""])
def test_another_user_sends_as_himself(gateway: Running, sender: str) -> None:
    assert _as_nobody(gateway, "-f", sender, "marc") == (0, "")
    (text,) = mail_of(gateway)
    who = f"{sender}@machin.com" if sender == "nobody" else sender
    assert text.startswith(f"Return-Path: <{who}>\r\n".encode())
    assert gateway.events("accepted")[-1]["sender"] == who


@pytest.mark.parametrize("sender", ["marc@machin.com", "root@machin.com", "nobody@elsewhere.example"])
def test_and_as_nobody_else(gateway: Running, sender: str) -> None:
    code, said = _as_nobody(gateway, "-f", sender, "marc")
    assert (code, "550 5.7.1 you may not send as this address" in said) == (77, True), said


def test_root_sends_as_anybody(gateway: Running) -> None:
    assert send(gateway, "-f", "list@elsewhere.example", "marc").returncode == 0
    assert mail_of(gateway)[0].startswith(b"Return-Path: <list@elsewhere.example>\r\n")


def test_the_socket_is_for_all_and_the_folder_shows_nothing(gateway: Running) -> None:
    state = gateway.folder / "state"
    assert oct(state.stat().st_mode)[-3:] == "711"
    assert oct((state / "submit.sock").stat().st_mode)[-3:] == "666"
    assert [one.name for one in state.iterdir() if one.is_dir() and one.stat().st_mode & 0o077] == []


def _is_refused(path: str) -> bool:
    """One connection more; connections are looked at in no order."""
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)
        one.settimeout(0.5)
        try:
            return b"connections already" in one.recv(1000)
        except TimeoutError:
            return False


def test_one_user_does_not_take_all_connections(gateway: Running) -> None:
    from tripost.gateway.config import load
    from tripost.gateway.submit import PER_USER, WAITING
    from tripost.gateway.submit_client import connect

    config = load(str(gateway.file))
    path = str(gateway.folder / "state" / "submit.sock")
    served = [connect(config)[0] for _ in range(PER_USER)]
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(WAITING)]
    try:
        for one in waiting:
            one.connect(path)
        assert wait_for(lambda: _is_refused(path))
        assert send(gateway, "marc").returncode == 75
        assert _as_nobody(gateway, "marc") == (0, "")
        mail_of(gateway)
        for one in waiting[1:]:
            one.close()
        served.pop().close()
        waiting[0].sendall(frame(Request(version=VERSION, verb="smtp")))  # its turn has come
        waiting[0].settimeout(20)
        assert b'"account":"root@machin.com"' in waiting[0].recv(1000)
    finally:
        for one in served + waiting:
            one.close()
    assert wait_for(lambda: send(gateway, "marc").returncode == 0)
    mail_of(gateway)


@pytest.mark.parametrize(
    "data",
    [b"\xff\xff\xff\xff", b"EHLO x\r\n", b"\0\0\0\2{}", b'\0\0\0\x25{"version":1,"verb":"queue.retry"}   '],
)
def test_what_is_no_request(gateway: Running, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(str(gateway.folder / "state" / "submit.sock"))
        one.sendall(data)
        one.settimeout(20)
        said = b""
        while piece := one.recv(1000):
            said += piece
    assert b'"frame":"error"' in said
    assert send(gateway, "marc").returncode == 0
    mail_of(gateway)


# --- no gateway ---


def test_no_gateway(tmp_path: pathlib.Path) -> None:
    gateway = Running(tmp_path, user="")
    began = time.monotonic()
    for words in (("marc",), ("-bp",), ("-q",), ("-bs",)):
        done = send(gateway, *words)
        assert (done.returncode, "no gateway answers" in done.stderr.decode()) == (75, True), done
    assert time.monotonic() - began < 30
    gateway.file.write_text("[limtis]\n")
    assert send(gateway, "marc").returncode == 78


def test_by_smtp_where_there_is_no_socket(gateway: Running) -> None:
    """A folder that is closed to the caller: the listener on loopback takes it, and checks nothing."""
    state = gateway.folder / "state"
    state.chmod(0o700)
    try:
        assert _as_nobody(gateway, "-f", "any@elsewhere.example", "marc") == (0, "")
    finally:
        state.chmod(0o711)
    (text,) = mail_of(gateway)
    assert text.startswith(b"Return-Path: <any@elsewhere.example>\r\n")
    for name in (b"From", b"Date", b"Message-ID"):
        assert text.count(b"\r\n" + name + b": ") == 1
    assert b"([127.0.0.1])" in text


@pytest.mark.parametrize("name", ["sendmail", "mailq", "newaliases"])
def test_by_another_name(gateway: Running, tmp_path: pathlib.Path, name: str) -> None:
    link = tmp_path / name
    link.symlink_to(pathlib.Path(sys.executable).with_name("tripost"))
    words = ["-C", str(gateway.file)] + (["marc"] if name == "sendmail" else [])
    done = subprocess.run([str(link), *words], input=LETTER, text=True, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    if name == "sendmail":
        mail_of(gateway)
