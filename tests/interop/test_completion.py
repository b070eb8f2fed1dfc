"""what the shells themselves complete `tripost …` to: bash, zsh and fish"""

from __future__ import annotations

import os
import pathlib
import pty
import select
import subprocess
import time

import pytest

from conftest import needs
from tripost.gateway.cli.main import main, parser
from tripost.gateway.cli.tree import commands

# line → what is offered (of much: some of it), what is not
CASES = [
    ("tripost qu", {"queue"}, {"route"}),
    ("tripost queue ", {"list", "hold", "suspend", "undo"}, {"serve", "--json"}),
    ("tripost queue li", {"list"}, {"summary"}),
    ("tripost queue list --s", {"--sender", "--state"}, {"--json"}),
    ("tripost queue list --json --s", {"--sender", "--state"}, {"--json"}),
    ("tripost queue list --state de", {"deferred"}, {"held", "ready"}),
    ("tripost user add ann@x --scheme ", {"ARGON2ID", "SCRAM-SHA-256"}, {"--config"}),
    ("tripost completion ", {"bash", "zsh", "fish"}, {"tripost"}),
    ("tripost check my", {"my file.toml"}, {"other"}),
    ("tripost status --config my", {"my file.toml"}, {"other"}),
    ("tripost queue list --sender my", set[str](), {"my file.toml"}),
]


def script(shell: str, folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> pathlib.Path:
    assert main(["completion", shell]) == 0
    path = folder / "_tripost"
    path.write_text(capsys.readouterr().out)
    (folder / "my file.toml").touch()
    (folder / "other").touch()
    return path


def run(folder: pathlib.Path, *words: str) -> list[str]:
    done = subprocess.run(words, cwd=folder, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "yntax error" not in done.stderr, done.stderr
    return done.stdout.splitlines()


def check(got: list[str], line: str, wanted: set[str], unwanted: set[str]) -> None:
    assert wanted <= set(got), (line, got)
    assert not unwanted & set(got), (line, got)


def test_every_option_is_known_to_every_shell(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        text = capsys.readouterr().out
        for one in commands(parser()):
            assert one.name in text
            for option in one.options:
                assert all(flag.lstrip("-") in text for flag in option.flags), (shell, one.name, option.flags)


def test_bash(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("bash")
    source = script("bash", tmp_path, capsys)
    for line, wanted, unwanted in CASES:
        ask = (
            f'compopt() {{ :; }}; source {source}; COMP_WORDS=("$@"); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); '
            '_tripost; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        got = run(tmp_path, "bash", "--norc", "-c", ask, "bash", *line.split(" "))
        check(got, line, wanted, unwanted)


def test_bash_at_a_terminal(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own tab key."""
    needs("bash")
    source = script("bash", tmp_path, capsys)
    child, terminal = pty.fork()
    if not child:
        os.chdir(tmp_path)
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], os.environ | {"PS1": "$ ", "TERM": "dumb"})
    try:
        os.write(terminal, f"tripost() {{ printf '<%s>' \"$@\"; }}; source {source}; echo rea''dy\n".encode())
        _until(terminal, b"\nready\r\n")
        os.write(terminal, b"tripost que\tcoun\t--stat\tdef\t; tripost check my\t\n")
        said = _until(terminal, b"<my file.toml>")
        assert b"<queue><count><--state><deferred>" in said
    finally:
        os.write(terminal, b"\nexit\n")
        os.waitpid(child, 0)
        os.close(terminal)


def _until(terminal: int, end: bytes) -> bytes:
    said, stop = b"", time.monotonic() + 30
    while end not in said:
        assert time.monotonic() < stop, said
        if select.select([terminal], [], [], 1)[0]:
            said += os.read(terminal, 65_536)
    return said


def test_zsh(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its completion system is replaced by what tells its calls: it takes a terminal, and shows what it likes."""
    needs("zsh")
    source = script("zsh", tmp_path, capsys)
    ask = (
        "compdef() { :; }; _files() { print -l -- *; }; "
        'compadd() { shift; print -l -- "$@"; }; '
        "_describe() { for one in ${(P)2}; do print -- ${one%%:*}; done; }; "
        f'source {source}; words=("$@"); CURRENT=$#words; _tripost'
    )
    for line, wanted, unwanted in CASES:
        got = run(tmp_path, "zsh", "-f", "-c", ask, "zsh", *line.split(" "))
        begun = line.split(" ")[-1]
        check([one for one in got if one.startswith(begun)], line, wanted, unwanted)


def test_fish(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("fish")
    source = script("fish", tmp_path, capsys)
    for line, wanted, unwanted in CASES:
        got = run(tmp_path, "fish", "--no-config", "-c", f"source {source}; complete -C '{line}'")
        check([one.partition("\t")[0].replace("\\ ", " ") for one in got], line, wanted, unwanted)
