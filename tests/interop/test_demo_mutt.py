"""`tripost demo --keep` prints how to open Marc's mailbox with mutt, and mutt opens it"""

from __future__ import annotations

import os
import pathlib
import shlex
import signal
import subprocess
import sys

from conftest import needs
from support.pop3_clients import on_a_terminal


def test_mutt_opens_the_mailbox_of_the_story(tmp_path: pathlib.Path) -> None:
    needs("mutt")
    child = subprocess.Popen(
        [sys.executable, "-m", "tripost", "demo", "--keep"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert child.stdout is not None
    try:
        line = next(line for line in child.stdout if line.startswith("Marc's mailbox: "))
        command = shlex.split(line.removeprefix("Marc's mailbox: "))
        assert command[:2] == ["mutt", "-f"]
        out = tmp_path / "out"
        rc = tmp_path / "rc"
        keys = f"<pipe-message>cat > {out}<enter><quit>"
        rc.write_text(f"set quit=yes\nset wait_key=no\nset move=no\nset folder='{tmp_path}'\npush '{keys}'\n")
        on_a_terminal(*command, "-n", "-F", str(rc), HOME=str(tmp_path))
        assert "Lunch on Thursday" in out.read_text()
        assert "The usual place at noon?" in out.read_text()
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=30)
    assert child.returncode == 0
