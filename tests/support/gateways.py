"""whole gateways as child processes, as a user would run them"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

TOML = """\
hostname = "smtp.machin.com"
state = "state"
[[listen]]
service = "smtp"
address = "127.0.0.1:{smtp}"
[[listen]]
service = "pop3"
address = "127.0.0.1:{pop3}"
[[listen]]
service = "imap"
address = "127.0.0.1:{imap}"
[[listen]]
service = "monitor"
address = "127.0.0.1:{monitor}"
[auth]
file = "accounts"
[local]
domains = ["machin.com"]
postmaster = "marc@machin.com"
[spool]
min_free = "1MiB"
[events]
file = "events.log"
format = "json"
[lifecycle]
drain = "3s"
"""

LOOK = 2.0  # seconds


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(what: Callable[[], Any], patience: float = 20.0) -> Any:
    """Poll a real process's outside until `what` is true; the last value is returned. Between two looks at most LOOK
    seconds of the patience are used up, so that one who was stopped for a while still waits."""
    left, last = patience, time.monotonic()
    while True:
        value = what()
        now = time.monotonic()
        left -= min(now - last, LOOK)
        if value or left < 0:
            return value
        last = now
        time.sleep(0.02)


def ended(child: subprocess.Popen[bytes], patience: float = 20.0) -> int:
    """Its exit code. Raises TimeoutExpired."""
    wait_for(lambda: child.poll() is not None, patience)
    return child.wait(0)


@contextmanager
def common_folder() -> Iterator[pathlib.Path]:
    """A temporary folder that other users may enter. pytest's own is closed to them again whenever another pytest of
    the same user starts."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tripost-common-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # its processes may be at work there to the last


class Running:
    """A gateway in a child process, its ports, its folder and its event log."""

    def __init__(self, folder: pathlib.Path, extra: str = "", user: str = "marc@machin.com", toml: str = TOML) -> None:
        self.folder = folder
        self.smtp, self.pop3, self.imap, self.monitor = free_port(), free_port(), free_port(), free_port()
        self.file = folder / "tripost.toml"
        self.file.write_text(toml.format(smtp=self.smtp, pop3=self.pop3, imap=self.imap, monitor=self.monitor) + extra)
        self.child: subprocess.Popen[bytes] | None = None
        if user and not (folder / "accounts").exists():
            self.command("user", "add", user, "--password-stdin", input="secret\n")

    def command(self, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        """Run `tripost WORDS --config FILE`."""
        return subprocess.run(
            [sys.executable, "-m", "tripost", *words, "--config", str(self.file)],
            input=input,
            text=True,
            capture_output=True,
            timeout=200,  # it may be stopped for a while
            check=False,
        )

    def start(self) -> None:
        self.child = subprocess.Popen([sys.executable, "-m", "tripost", "serve", str(self.file)], cwd=self.folder)
        assert wait_for(self._answers), "the gateway did not start"

    def _answers(self) -> bool:
        assert self.child is not None
        assert self.child.poll() is None, "the gateway ended at its start"
        try:
            with socket.create_connection(("127.0.0.1", self.smtp), 1) as one:
                return one.recv(3) == b"220"
        except OSError:
            return False

    def kill(self) -> None:
        assert self.child is not None
        self.child.kill()
        self.child.wait()

    def stop(self) -> int:
        assert self.child is not None
        self.child.send_signal(signal.SIGTERM)
        return ended(self.child)

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """What the log has once it stands still: it is written a moment after what it tells."""
        path = self.folder / "events.log"
        size, end = -1, time.monotonic() + 2
        while path.exists() and path.stat().st_size != size and time.monotonic() < end:
            size = path.stat().st_size
            time.sleep(0.12)
        if not path.exists():
            return []
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        return [row for row in rows if not name or row["event"] == name]


G = TypeVar("G", bound=Running)


@contextmanager
def running(folder: pathlib.Path, extra: str = "", *, kind: type[G] = Running, **more: Any) -> Iterator[G]:
    gateway = kind(folder, extra, **more)
    gateway.start()
    try:
        yield gateway
    finally:
        if gateway.child is not None and gateway.child.poll() is None:
            gateway.child.send_signal(signal.SIGTERM)
            try:
                ended(gateway.child)
            except subprocess.TimeoutExpired:
                gateway.kill()
                raise
        os.sync()
