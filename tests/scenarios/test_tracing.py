"""tripost trace: live dialogues of all kinds, and never a secret, neither here nor in events nor in the history"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pathlib
import poplib
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.gateways import TOML, Running, free_port, running, wait_for

PASSWORD, REMOTE = "s3cret-Pa55word", "rem0te-Pa55word"
BODY, HEADER = "MARK-in-the-body", "MARK-in-the-header"
SUBMISSION = """\
[[listen]]
service = "submission"
address = "127.0.0.1:{submission}"
"""
MORE = """\
[[route]]
domain = "far.example"
to = "smtp://127.0.0.1:{sink}"
auth_file = "auth"
"""


class House(Running):
    """Takes submitted mail in plain text, and relays it to a host that wants a password."""

    def __init__(self, folder: pathlib.Path, extra: str = "") -> None:
        self.submission, self.sink = free_port(), free_port()
        toml = TOML.replace("[auth]", SUBMISSION.replace("{submission}", str(self.submission)) + "[auth]")
        toml = toml.replace('file = "accounts"', 'file = "accounts"\ncleartext = "always"')
        super().__init__(folder, MORE.format(sink=self.sink), user="", toml=toml)
        self.command("user", "add", "marc@machin.com", "--password-stdin", input=f"{PASSWORD}\n")
        (folder / "auth").write_text(f"gateway:{REMOTE}\n")


class Demanding:
    """An SMTP server that takes mail after AUTH LOGIN."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.got: list[str] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock, sock.makefile("rwb", buffering=0) as file, contextlib.suppress(OSError):
                self._talk(file)

    def _talk(self, file: Any) -> None:
        def say(text: str) -> None:
            file.write(f"{text}\r\n".encode())

        say("220 demanding")
        while line := file.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                say("250-demanding\r\n250 AUTH LOGIN")
            elif verb == b"AUTH":
                for prompt in ("Username:", "Password:"):
                    say(f"334 {base64.b64encode(prompt.encode()).decode()}")
                    self.got.append(base64.b64decode(file.readline()).decode())
                say("235 2.7.0 welcome")
            elif verb == b"DATA":
                say("354 go")
                while file.readline() != b".\r\n":
                    pass
                self.got.append("a message")
                say("250 2.0.0 taken")
            elif verb == b"QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def tracing(gateway: Running, *words: str) -> Iterator[pathlib.Path]:
    """Where the trace is written."""
    out, err = gateway.folder / "trace.out", gateway.folder / "trace.err"
    with open(out, "wb") as to, open(err, "wb") as talk:
        command = [sys.executable, "-m", "tripost", "trace", *words, "--config", str(gateway.file)]
        # a shell that runs the tests in the background has it ignored, and so would the child
        child = subprocess.Popen(command, stdout=to, stderr=talk, preexec_fn=_interruptible)
    try:
        assert wait_for(lambda: b"tracing" in err.read_bytes()), err.read_bytes()
        yield out
    finally:
        child.send_signal(signal.SIGCONT)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0


def rows(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def talk(port: int, *lines: str) -> None:
    """Say each line, and wait for an answer to it."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.recv(9999)
        for line in lines:
            sock.sendall(f"{line}\r\n".encode())
            sock.recv(9999)


def submit(port: int) -> None:
    message = f"Subject: {HEADER}\r\nFrom: marc@machin.com\r\n\r\n{BODY}\r\n.{BODY}\r\n"
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.login("marc@machin.com", PASSWORD)
        client.sendmail("marc@machin.com", ["u@far.example", "marc@machin.com"], message)
    plain = base64.b64encode(f"\0marc@machin.com\0{PASSWORD}".encode()).decode()
    talk(port, "EHLO x", f"AUTH PLAIN {plain}", "QUIT")
    talk(port, "EHLO x", "AUTH PLAIN", plain, f"PASS {PASSWORD}", PASSWORD, f"{BODY} {HEADER}", "QUIT")
    name, word = (base64.b64encode(one.encode()).decode() for one in ("marc@machin.com", PASSWORD))
    talk(port, "EHLO x", "AUTH LOGIN", name, word, "QUIT")
    talk(port, "EHLO x", f"auth  plain {plain}", f"AUTH LOGIN {name}", word + "x", "*", "QUIT")


def fetch(port: int) -> None:
    client = poplib.POP3("127.0.0.1", port, timeout=20)
    client.user("marc@machin.com")
    client.pass_(PASSWORD)
    client.retr(1)
    client.top(1, 3)
    client.uidl()
    client.quit()
    plain = base64.b64encode(f"\0marc@machin.com\0{PASSWORD}".encode()).decode()
    talk(port, "AUTH PLAIN", plain, "QUIT")
    talk(port, f"AUTH PLAIN {plain}", "QUIT")
    talk(port, f"USER {PASSWORD}", f"PASS {PASSWORD}x", PASSWORD, f"{BODY}", "QUIT")  # who mistakes the fields


def leaks(data: bytes) -> list[str]:
    """The secrets in it, plain or in base64 at any of its three alignments."""
    found: list[str] = []
    for secret in (PASSWORD, REMOTE, BODY, HEADER):
        forms = [secret.encode()]
        for shift in range(3):
            coded = base64.b64encode(b"\0" * shift + secret.encode())
            forms.append(coded[4:-4])  # the part that depends on nothing beside it
        found += [f"{secret} as {form!r}" for form in forms if form in data]
    return found


def test_a_leak_would_be_found() -> None:
    assert leaks(f"xx{PASSWORD}".encode())
    for name in ("", "m", "ma", "marc@machin.com"):
        assert leaks(base64.b64encode(f"\0{name}\0{PASSWORD}".encode()))
    assert leaks(b"nothing") == []


def test_a_whole_session_and_no_secret(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, kind=House) as gateway:
        far = Demanding(gateway.sink)
        try:
            with tracing(gateway, "--json") as out:
                submit(gateway.submission)
                assert wait_for(lambda: "a message" in far.got), far.got
                assert wait_for(lambda: list((tmp_path / "state" / "mail").rglob("new/*")))
                fetch(gateway.pop3)
                assert wait_for(lambda: [row for row in rows(out) if row["service"] == "delivery"][-2:])
                gateway.command("history", "marc@machin.com")
                assert wait_for(lambda: gateway.events("relayed"))
        finally:
            gateway.stop()
            far.close()
        assert far.got[:2] == ["gateway", REMOTE]
        said = rows(out)
        places = [out, tmp_path / "events.log", *(tmp_path / "state" / "history").iterdir()]
        assert {one.name for one in places} >= {"trace.out", "events.log", "history.db"}
        assert {one.name: leaks(one.read_bytes()) for one in places} == {one.name: [] for one in places}
        _look(said)


def _look(said: list[dict[str, Any]]) -> None:
    """The dialogue is there all the same."""
    assert {row["service"] for row in said} == {"submission", "pop3", "delivery"}
    texts = {service: [f"{row['direction']} {row['text']}" for row in said if row["service"] == service] for service in
             ("submission", "pop3", "delivery")}  # fmt: skip
    for line in ("* connected", "< AUTH PLAIN ***", "< ***", "> 334 ***", "< <15 octets that are no command>",
                 "< rcpt TO:<u@far.example>", "> 250 2.1.5 recipient ok", "< QUIT", "* closed"):  # fmt: skip
        assert line in texts["submission"], (line, texts["submission"])
    for line in ("< USER ***", "< PASS ***", "< RETR 1", "< TOP 1 3", "< AUTH PLAIN ***", "> + ***", "> +OK 1 messages",
                 "< <not taken: unknown command>"):  # fmt: skip
        assert line in texts["pop3"], (line, texts["pop3"])
    for line in ("< 220 demanding", "< 250 AUTH LOGIN", "> AUTH LOGIN", "< 334 ***", "> ***", "< 235 2.7.0 welcome",
                 "> RCPT TO:<u@far.example>", "> DATA", "< 250 2.0.0 taken"):  # fmt: skip
        assert line in texts["delivery"], (line, texts["delivery"])
    for service in texts:
        assert any("octets of data>" in line for line in texts[service]), service


def test_whose_dialogue(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, kind=House) as gateway:
        with tracing(gateway, "--client", "127.0.0.0/8", "--service", "smtp") as out:
            talk(gateway.smtp, "EHLO here", "QUIT")
            talk(gateway.pop3, "QUIT")
            assert wait_for(lambda: "* closed" in out.read_text())
        text = out.read_text()
        assert " smtp 127.0.0.1 < EHLO here\n" in text
        assert "pop3" not in text
        with tracing(gateway, "--client", "192.0.2.0/24") as out:
            talk(gateway.smtp, "EHLO here", "QUIT")
        assert out.read_text() == ""
        far = Demanding(gateway.sink)
        with tracing(gateway, "--destination", f"smtp://127.0.0.1:{gateway.sink}") as out:
            submit(gateway.submission)
            assert wait_for(lambda: "250 2.0.0 taken" in out.read_text())
        far.close()
        assert " delivery 127.0.0.1 > DATA\n" in out.read_text()
        assert "submission" not in out.read_text()
        ended = gateway.command("trace", "--for", "0.2s")
        assert (ended.returncode, ended.stdout) == (0, "")
        for words in (("--client", "nowhere"), ("--service", "imap2"), ("--for", "soon")):
            assert gateway.command("trace", *words).returncode == 2
    assert gateway.command("trace").returncode == 3


def test_a_tracer_that_does_not_read_holds_up_nobody(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway:
        out = tmp_path / "out"
        with open(out, "wb") as to:
            words = [sys.executable, "-m", "tripost", "trace", "--json", "--config", str(gateway.file)]
            child = subprocess.Popen(words, stdout=to, stderr=subprocess.PIPE, preexec_fn=_interruptible)
        assert child.stderr is not None
        assert child.stderr.readline().startswith(b"tracing")
        child.send_signal(signal.SIGSTOP)
        with smtplib.SMTP("127.0.0.1", gateway.smtp, timeout=20) as client:
            for _ in range(600):
                client.sendmail("fred@truc.fr", ["marc@machin.com"], b"Subject: x\r\n\r\nhi\r\n")
        assert wait_for(lambda: len(list((tmp_path / "state" / "mail").rglob("new/*"))) == 600)
        child.send_signal(signal.SIGCONT)
        assert wait_for(lambda: any("dropped" in row for row in rows(out)) or child.poll() is not None)
        child.send_signal(signal.SIGINT)
        child.wait(20)
        child.stderr.close()
        assert gateway.command("status").returncode == 0
        os.sync()
