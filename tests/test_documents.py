"""the documents say what the program says: pages made from it, links, and every command block of README and tutorial"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pty
import re
import shlex
import shutil
import signal
import smtplib
import subprocess
import sys
import textwrap

import pytest

from support.gateways import free_port, wait_for
from tripost.gateway.cli.main import parser
from tripost.gateway.cli.tree import commands

ROOT = pathlib.Path(__file__).resolve().parent.parent
UV = str(ROOT / "deploy" / "uv")
PAGES = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "deploy" / "runbook.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)", re.DOTALL)


def test_what_is_made_from_the_program_is_in_step() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- links ---


def text_of(path: pathlib.Path) -> str:
    """Without blocks of code, and what is in backquotes."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "``", text)


def anchors(path: pathlib.Path) -> set[str]:
    """As GitHub and the site make them of headings."""
    found = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in found}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(path: pathlib.Path) -> None:
    """Those to files of ours; others are not asked for here."""
    wrong: list[str] = []
    for match in LINK.finditer(text_of(path)):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


def test_a_wrong_link_is_found(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.md").write_text("# A title\n[x](b.md), [y](a.md#a-title) `[z](c.md)`\n")
    targets = [match[1] for match in LINK.finditer(text_of(tmp_path / "a.md"))]
    assert targets == ["b.md", "a.md#a-title"]
    assert anchors(tmp_path / "a.md") == {"a-title"}


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    listed = set(re.findall(r"^[a-z0-9/-]+$", index, re.MULTILINE))
    pages = {str(one.relative_to(ROOT / "docs").with_suffix("")) for one in (ROOT / "docs").rglob("*.md")}
    assert pages - {"index"} == listed, "docs/index.md lists the pages of the site"


@pytest.mark.long
def test_the_site_builds_without_warnings(tmp_path: pathlib.Path) -> None:
    """.ci/run does the same."""
    words = [
        "run",
        "-q",
        "--isolated",
        "--only-group",
        "docs",
        "sphinx-build",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
    ]
    done = subprocess.run([UV, *words, "docs", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tutorial.html").exists()


# --- commands ---


def blocks(path: pathlib.Path) -> list[str]:
    found = re.findall(r"^ *```sh\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(one) for one in found]


def test_tutorial(tmp_path: pathlib.Path) -> None:
    """All of it, in one shell, from a checkout, in a home of its own."""
    page = ROOT / "docs" / "tutorial.md"
    port = free_port()
    script = "set -euo pipefail\n" + "\n".join(blocks(page)).replace("127.0.0.1:2525", f"127.0.0.1:{port}")
    cache = os.environ.get("UV_CACHE_DIR") or str(pathlib.Path.home() / ".cache" / "uv")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "VIRTUAL_ENV"))}
    environment |= {"HOME": str(tmp_path), "UV_CACHE_DIR": cache}
    words = ["bash", "-c", script]
    with subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            out, err = child.communicate(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # a gateway that a failure has left running
    assert child.returncode == 0, out + err
    for expected in (
        "tripost 0.",
        "serving",
        "put into the mailbox",
        'limits.message_size = "20MiB"',
        "so it was not taken",
        "ended",
    ):
        assert expected in out, (expected, out)
    assert 'did you mean "message_size"?' in err


def test_readme(tmp_path: pathlib.Path) -> None:
    """Each command of its blocks: the demo and the tests have tests of their own; a user is added at a terminal, and
    the gateway of its TOML block runs."""
    lines = [line.partition(" #")[0].strip() for one in blocks(ROOT / "README.md") for line in one.splitlines()]
    commands = [shlex.split(line) for line in lines if line]
    known = {
        ("tripost", "demo"): None,
        ("pytest",): None,
        ("tripost", "user", "add", "marc@machin.com"): add_user,
        ("tripost", "serve", "tripost.toml"): serve,
    }
    (toml,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for port in ("2525", "2110", "2143"):
        toml = toml.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")
    (tmp_path / "tripost.toml").write_text(toml + '[spool]\nmin_free = "1MiB"\n')
    for words in commands:
        assert words[:2] == ["deploy/uv", "run"], words
        run = known[tuple(words[2:])]
        if run is not None:
            run([sys.executable, "-m", *words[2:]], tmp_path)


def add_user(words: list[str], folder: pathlib.Path) -> None:
    """getpass asks twice, at a terminal."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execv(words[0], words)
    for _ in range(2):
        said = b""
        while not said.rstrip(b" ").endswith(b":"):
            said += os.read(terminal, 1024)
        os.write(terminal, b"secret\n")
    assert os.waitpid(child, 0)[1] == 0
    os.close(terminal)
    assert "marc@machin.com" in (folder / "state" / "accounts").read_text()


def serve(words: list[str], folder: pathlib.Path) -> None:
    port = int(re.findall(r"127.0.0.1:(\d+)", (folder / "tripost.toml").read_text())[0])
    with subprocess.Popen(words, cwd=folder, stderr=subprocess.DEVNULL) as child:
        try:

            def sent() -> bool:
                try:
                    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
                        client.sendmail("fred@truc.fr", ["marc@machin.com"], b"Subject: x\r\n\r\nx\r\n")
                except OSError:
                    return False
                return True

            assert wait_for(sent)
            assert wait_for(lambda: list((folder / "state" / "mail").rglob("new/*")))
        finally:
            child.send_signal(signal.SIGTERM)
            assert child.wait(40) == 0
    shutil.rmtree(folder / "state")


# --- what is said of commands ---

TREE = {one.name: one for one in commands(parser())}
EVERYWHERE = ("--help", "--json", "--config", "--version")


def said_of_commands(path: pathlib.Path) -> list[str]:
    """`tripost …` in a line, and lines of sh blocks that begin so."""
    inline = re.findall(r"`tripost ([a-z][^`\n]*)`", path.read_text())
    lines = [line.strip() for one in blocks(path) for line in one.replace("\\\n", " ").splitlines()]
    return [*inline, *(line.removeprefix("tripost ") for line in lines if line.startswith("tripost "))]


def fault_in(text: str) -> str:
    """What the program does not have; "" for nothing."""
    words = re.sub(r" *(#|&&|\|\||[|>&]).*", "", text).split()
    name = ""
    while words and f"{name} {words[0]}".strip() in TREE:
        name = f"{name} {words.pop(0)}".strip()
    if not name and words[:1] != ["--version"]:
        return f"there is no command {text}"
    if name and TREE[name].below and words and re.fullmatch(r"[a-z]+", words[0]):
        return f"there is no {name} {words[0]}"
    if name == "sendmail":
        return ""  # its options are sendmail's
    for word in words:
        flag = word.partition("=")[0].rstrip("].,")
        if flag.startswith("--") and flag not in EVERYWHERE and TREE[name].option(flag) is None:
            below = [f"{name} {one}" for one in TREE[name].below]
            if not any(TREE[one].option(flag) for one in below):
                return f"{name} has no {flag}"
    return ""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_are_named_exist(path: pathlib.Path) -> None:
    assert [fault for text in said_of_commands(path) if (fault := fault_in(text))] == []


def test_a_command_that_is_not_there_is_found() -> None:
    assert [fault_in(text) for text in ("status", "queue list --sender 'x'", "queue retry --id '*' && x")] == [
        "",
        "",
        "",
    ]
    assert fault_in("qeue list") == "there is no command qeue list"
    assert fault_in("queue lsit") == "there is no queue lsit"
    assert fault_in("queue list --sendr x") == "queue list has no --sendr"
