"""the demo tells the story"""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("more", [(), ("--imap",)])
def test_the_demo_prints_six_steps_and_the_message(more: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tripost", "demo", *more], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line[0] for line in done.stdout.splitlines() if line[:2] in {f"{n}." for n in range(1, 10)}] == list(
        "123456"
    )
    assert done.stdout.count("Received: from") == 2
    assert "by smtp.truc.fr" in done.stdout
    assert "by smtp.machin.com" in done.stdout
    assert "The usual place at noon?" in done.stdout
    assert ("asks the IMAP server" in done.stdout) == bool(more)
    assert done.stderr == ""
