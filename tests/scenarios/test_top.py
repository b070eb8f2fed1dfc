"""tripost top in a real terminal (tmux), against a real gateway"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import signal
import smtplib
import subprocess
import sys
from collections.abc import Iterator

import pytest
import trustme

from conftest import needs
from support.gateways import Running, free_port, running, wait_for

TOKEN = "a token that may act 0123456789".replace(" ", "-")
EXTRA = '[dns]\nnameservers = ["127.0.0.1:1"]\n[monitor]\ntoken_file = "token"\n'
TRIPOST = f"{shlex.quote(sys.executable)} -m tripost"
WAITING = "mx:far.example"


class Terminal:
    """A tmux of our own with one window, in which a shell runs."""

    def __init__(self, folder: pathlib.Path, columns: int, lines: int) -> None:
        self._socket = str(folder / "tmux.sock")
        environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8", "HOME": str(folder)}
        size = ["-x", str(columns), "-y", str(lines)]
        words = ["new-session", "-d", *size, "-c", str(folder), "env", "PS1=ready$ ", "bash", "--norc", "--noprofile"]
        subprocess.run(["tmux", "-S", self._socket, "-f", "/dev/null", *words], check=True, env=environment)
        assert wait_for(lambda: "ready$" in self.text())

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-S", self._socket, *words], check=True, capture_output=True, text=True)
        return done.stdout

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    def press(self, *names: str) -> None:
        self._tmux("send-keys", *names)

    def text(self) -> str:
        return self._tmux("capture-pane", "-p")

    def shows(self, wanted: str, patience: float = 20.0) -> bool:
        return bool(wait_for(lambda: re.search(wanted, self.text()), patience))

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def flags(self) -> str:
        """Whether the alternate screen is on, and the cursor shown."""
        return self._tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}").strip()

    def end(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False, capture_output=True)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    needs("tmux")
    folder = tmp_path_factory.mktemp("top")
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(f"{TOKEN}\n")
    with running(folder, EXTRA) as made:
        with smtplib.SMTP("127.0.0.1", made.smtp, timeout=20) as client:
            for _ in range(3):
                client.sendmail("fred@truc.fr", ["marc@far.example"], b"Subject: x\r\n\r\nx\r\n")
        yield made


@pytest.fixture
def terminal(gateway: Running, tmp_path: pathlib.Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path, 80, 24)
    try:
        yield made
    finally:
        made.end()


def start(gateway: Running, terminal: Terminal, *more: str) -> None:
    terminal.type(" ".join([TRIPOST, "top", *more, "--config", shlex.quote(str(gateway.file))]))
    terminal.press("Enter")


def _holds(path: pathlib.Path, wanted: bytes) -> bool:
    try:
        return wanted in path.read_bytes()
    except OSError:  # it ended meanwhile
        return False


def left(terminal: Terminal) -> bool:
    """The shell has its terminal back as it was."""
    return bool(wait_for(lambda: terminal.flags() == "0 1")) and terminal.shows(r"ready\$\s*$")


def test_it_shows_and_steers(gateway: Running, terminal: Terminal) -> None:
    start(gateway, terminal)
    assert terminal.shows(rf"{WAITING}\s+\w+\s+3\b"), terminal.text()
    assert terminal.shows("serving")
    assert terminal.flags() == "1 0"
    terminal.press("h")
    assert terminal.shows(rf"Hold 3 messages \(3 recipients\) for {WAITING}\?"), terminal.text()
    terminal.press("y")
    assert terminal.shows(f"hold {WAITING}: 3 messages; u takes it back"), terminal.text()
    assert json.loads(gateway.command("queue", "count", "--state", "held", "--json").stdout)["messages"] == 3
    assert terminal.shows("held 3")
    terminal.press("u")
    assert terminal.shows("Take back hold of 3 messages"), terminal.text()
    terminal.press("y")
    assert terminal.shows("taken back: 3 messages")
    assert json.loads(gateway.command("queue", "count", "--state", "held", "--json").stdout)["messages"] == 0
    terminal.press("z")
    assert terminal.shows("for .90s, 2h")
    terminal.type("2h")
    terminal.press("Enter")
    assert terminal.shows(rf"{WAITING}\s+suspended"), terminal.text()
    assert WAITING in gateway.command("queue", "suspensions").stdout
    terminal.press("w")
    assert wait_for(lambda: WAITING not in gateway.command("queue", "suspensions").stdout)
    terminal.press("e")
    assert terminal.shows("fred@truc.fr → marc@far.example"), terminal.text()
    terminal.press("q")
    terminal.type("/nothing like it")
    terminal.press("Enter")
    assert terminal.shows("nothing is queued that fits")
    terminal.press("Escape")
    assert terminal.shows(WAITING)
    terminal.press("q")
    assert left(terminal)


def test_it_follows_the_size_and_gives_the_terminal_back(gateway: Running, terminal: Terminal) -> None:
    start(gateway, terminal)
    assert terminal.shows("QUEUED")
    assert "FAILED" not in terminal.text()
    terminal.resize(200, 60)
    assert terminal.shows("FAILED"), terminal.text()
    assert terminal.shows("AGE →")
    terminal.resize(30, 5)
    assert terminal.shows("at least 40×8")
    terminal.resize(80, 24)
    assert terminal.shows(WAITING)
    terminal.press("C-z")
    assert left(terminal), terminal.text()
    terminal.type("fg")
    terminal.press("Enter")
    assert terminal.shows("serving")
    assert terminal.flags() == "1 0"
    terminal.press("C-c")
    assert left(terminal), terminal.text()
    terminal.type("stty -a | tr ' ' '\\n' | grep -x -e echo -e icanon")
    terminal.press("Enter")
    assert terminal.shows("icanon\necho|echo\nicanon"), terminal.text()


def test_it_outlives_the_gateway(gateway: Running, terminal: Terminal) -> None:
    start(gateway, terminal)
    assert terminal.shows("serving")
    gateway.kill()
    assert terminal.shows("lost the gateway"), terminal.text()
    terminal.press("h")
    assert terminal.shows("not connected")
    gateway.start()
    assert terminal.shows("serving"), terminal.text()
    assert terminal.shows(WAITING)
    wanted = f"top\0--config\0{gateway.file}\0".encode()
    (pid,) = [one.parent.name for one in pathlib.Path("/proc").glob("[0-9]*/cmdline") if _holds(one, wanted)]
    os.kill(int(pid), signal.SIGTERM)
    assert left(terminal), terminal.text()


def test_lines_and_what_is_refused(gateway: Running, tmp_path: pathlib.Path) -> None:
    def top(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tripost", "top", *words], capture_output=True, text=True, timeout=60, check=False
        )

    here = f"http://127.0.0.1:{gateway.monitor}"
    found = top("--url", here, "--lines", "2", "--interval", "200ms")
    assert (found.returncode, found.stderr) == (0, "")
    first, second = found.stdout.splitlines()
    assert "serving accepted=" in first
    assert f"fullest={WAITING}:3:" in second
    wrong = tmp_path / "wrong"
    wrong.write_text("not the token at all\n".replace(" ", "-"))
    refused = top("--url", here, "--token-file", str(wrong), "--lines", "1")
    assert refused.returncode == 1
    assert "wants a token" in refused.stderr
    assert "not-the-token" not in refused.stderr
    nobody = top("--url", f"http://127.0.0.1:{free_port()}", "--lines", "1")
    assert (nobody.returncode, "no gateway answers" in nobody.stderr) == (3, True)
    other = top("--url", f"http://127.0.0.1:{gateway.smtp}", "--lines", "1")
    assert (other.returncode, "no gateway answers" in other.stderr) == (3, True), "SMTP is no monitor"
    assert top("--url", "https://x/y").returncode == 2
    assert top("--url", here, "--token-file", str(tmp_path / "none")).returncode == 2


def test_without_rich_it_says_what_to_do(gateway: Running, terminal: Terminal, tmp_path: pathlib.Path) -> None:
    hidden = tmp_path / "hidden" / "rich"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not here')\n")
    terminal.type(f"export PYTHONPATH={shlex.quote(str(hidden.parent))}")
    terminal.press("Enter")
    start(gateway, terminal)
    assert terminal.shows("pip install 'tripost\\[tui\\]'"), terminal.text()
    start(gateway, terminal, "--lines", "1")
    assert terminal.shows("accepted="), terminal.text()


def test_over_tls_from_elsewhere(tmp_path: pathlib.Path) -> None:
    """As from another machine: by name, with a certificate that somebody else signed, and a token."""
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    pair.private_key_and_cert_chain_pem.write_to_path(tmp_path / "pair.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    port = free_port()
    extra = (
        f'[tls]\ncertificate = "pair.pem"\nkey = "pair.pem"\n[[listen]]\nservice = "monitor"\n'
        f'address = "127.0.0.1:{port}"\ntls = "implicit"\n{EXTRA}'
    )
    with running(tmp_path, extra):

        def top(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "tripost", "top", "--url", f"https://localhost:{port}", "--lines", "1"]
            return subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, check=False)

        found = top("--ca", str(tmp_path / "ca.pem"), "--token-file", str(tmp_path / "token"))
        assert (found.returncode, found.stderr) == (0, "")
        assert "serving accepted=" in found.stdout
        stranger = top()
        assert stranger.returncode == 3
        assert "its certificate" in stranger.stderr
