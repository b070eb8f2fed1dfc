"""what is built from this checkout: the same every time, installs, works, and goes away without mail being lost

The Debian package is installed in a fresh Debian 12 made by debootstrap: minutes, so `long`; needs root, debootstrap,
and Debian's mirror.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import smtplib
import socket
import subprocess
import zipfile
from collections.abc import Iterator

import pytest

from support.gateways import free_port, wait_for
from support.sinks import Sink

ROOT = pathlib.Path(__file__).resolve().parent.parent
UV = str(ROOT / "deploy" / "uv")


def build(folder: pathlib.Path) -> dict[str, str]:
    """Name → SHA-256 of wheel and sdist."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run([UV, "build", "-q", "-o", str(folder)], cwd=ROOT, check=True, timeout=120, env=environment)
    made = [one for one in folder.iterdir() if one.suffix in (".whl", ".gz")]
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in made}


def test_wheel_and_sdist_are_reproducible(tmp_path: pathlib.Path) -> None:
    first = build(tmp_path / "a")
    assert sorted(name.rpartition(".")[2] for name in first) == ["gz", "whl"]
    assert build(tmp_path / "b") == first
    (wheel,) = (tmp_path / "a").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "tripost/gateway/monitor/web/index.html" in names
    assert not [name for name in names if name.endswith("tripost/__init__.py")], "it is a namespace"
    assert not [name for name in names if name.startswith(("tests/", "gateway/", "queue/", "delivery/"))]


def send(port: int, subject: str) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.sendmail("fred@truc.fr", ["u@far.example"], f"Subject: {subject}\r\n\r\nx\r\n".encode())


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as one:
        return one.recv(4) == b"220 "
    return False


@pytest.mark.long
def test_uv_tool(tmp_path: pathlib.Path) -> None:
    """`uv tool install`, as pipx does it: an environment of its own, one command; init, start, a relay."""
    build(tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    environment = os.environ | {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    subprocess.run([UV, "tool", "install", "-q", str(wheel)], check=True, timeout=300, env=environment, cwd=tmp_path)
    relay_works(str(tmp_path / "bin" / "tripost"), tmp_path, tmp_path / "t.toml")
    subprocess.run([UV, "tool", "uninstall", "-q", "tripost"], check=True, timeout=60, env=environment, cwd=tmp_path)
    assert not (tmp_path / "bin" / "tripost").exists()


def relay_works(program: str, folder: pathlib.Path, config: pathlib.Path) -> None:
    port, behind = free_port(), free_port()
    words = ["--listen", f"127.0.0.1:{port}", "--smart-host", f"127.0.0.1:{behind}", "--state", str(folder / "state")]
    subprocess.run([program, "init", "--yes", "--hostname", "mx.machin.com", *words, "-o", str(config)], check=True)
    sink = Sink(behind)
    with subprocess.Popen([program, "serve", str(config)], cwd=folder, stderr=subprocess.DEVNULL) as child:
        try:
            assert wait_for(lambda: answers(port))
            send(port, "relayed")
            assert wait_for(lambda: sink.messages)
        finally:
            subprocess.run([program, "drain", "--config", str(config)], check=False, timeout=60)
            assert child.wait(30) == 0
            sink.close()


# --- Debian ---


class Tree:
    """A Debian of its own."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            ["chroot", str(self.root), *words], capture_output=True, text=True, timeout=300, check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def serve(self) -> subprocess.Popen[bytes]:
        words = ["chroot", str(self.root), "tripost", "serve", "/etc/tripost/tripost.toml"]
        return subprocess.Popen(words, stderr=subprocess.DEVNULL)

    @property
    def processes(self) -> list[str]:
        found: list[str] = []
        for one in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(one / "root") == str(self.root):
                    found.append((one / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found


@pytest.fixture
def debian(tmp_path: pathlib.Path) -> Iterator[Tree]:
    program = shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        pytest.skip("needs root, and Debian's debootstrap")
    root = tmp_path / "debian"
    words = ["--variant=minbase", "--include=python3,ca-certificates", "bookworm", str(root)]
    made = subprocess.run(
        [program, *words, "http://deb.debian.org/debian"], capture_output=True, text=True, timeout=600, check=False
    )
    if made.returncode:
        pytest.skip(f"debootstrap: {made.stdout.splitlines()[-1:]}")
    subprocess.run(["mount", "-t", "proc", "proc", str(root / "proc")], check=True)
    try:
        yield Tree(root)
    finally:
        subprocess.run(["umount", str(root / "proc")], check=True)
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.long
def test_the_debian_package(debian: Tree, tmp_path: pathlib.Path) -> None:
    """Built twice alike; installs on a fresh Debian 12, init and start give a relay as the user tripost; removing it
    leaves no process and no file but the mail, which a new installation delivers."""
    script = str(ROOT / "deploy" / "debian" / "build.sh")
    made = [
        pathlib.Path(subprocess.check_output([script, str(tmp_path / name)], text=True, timeout=300).strip())
        for name in ("a", "b")
    ]
    assert made[0].read_bytes() == made[1].read_bytes()
    shutil.copy(made[0], debian.root / "tripost.deb")
    before = files(debian.root)
    debian.run("dpkg", "-i", "/tripost.deb")
    port, behind = free_port(), free_port()
    words = ["--hostname", "mx.machin.com", "--listen", f"127.0.0.1:{port}", "--smart-host", f"127.0.0.1:{behind}"]
    debian.run("tripost", "init", "--yes", *words, "-o", "/etc/tripost/tripost.toml")
    sink = Sink(behind)
    child = debian.serve()
    assert wait_for(lambda: answers(port))
    send(port, "relayed")
    assert wait_for(lambda: sink.messages)
    sink.close()
    send(port, "waits")
    status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
    user = (debian.root / "etc/passwd").read_text().split("tripost:x:")[1].split(":")[0]
    assert f"Uid:\t{user}\t{user}\t{user}\t{user}" in status
    debian.run("dpkg", "-r", "tripost")
    assert child.wait(60) in (0, 1)  # 1: a delivery was cut
    assert debian.processes == []
    left = {
        name for name in files(debian.root) - before if not name.startswith(("var/lib/dpkg", "var/log", "var/cache"))
    }
    assert {name for name in left if not name.startswith("var/lib/tripost/")} <= {
        *("etc/tripost/tripost.toml", "etc/logrotate.d/tripost", "etc/passwd-", "etc/group-", "etc/shadow-"),
        *("etc/gshadow-", "etc/subuid-", "etc/subgid-"),
    }, left
    debian.run("dpkg", "-i", "/tripost.deb")
    sink = Sink(behind)
    child = debian.serve()
    try:
        assert wait_for(lambda: answers(port))
        debian.run("tripost", "queue", "retry", "--id", "*", "--config", "/etc/tripost/tripost.toml")
        assert wait_for(lambda: any(b"Subject: waits" in one for one in sink.messages))
    finally:
        debian.run("tripost", "drain", "--config", "/etc/tripost/tripost.toml")
        child.wait(60)
        sink.close()
    said = debian.run("dpkg", "-P", "tripost")
    assert "mail and accounts are still in /var/lib/tripost" in said
    assert (debian.root / "var/lib/tripost/spool").is_dir()


def files(root: pathlib.Path) -> set[str]:
    done = subprocess.check_output(["find", ".", "-xdev", "-type", "f", "-printf", "%P\\n"], cwd=root, text=True)
    return set(done.splitlines())
