"""what is built from this checkout: the same every time, installs, works, and goes away without mail being lost

The Debian package, and the wheel by pipx and uv, are installed in a fresh Debian 12 made by debootstrap: minutes, so
`long`; needs root, debootstrap, Debian's mirror and a package index. test_machine.py has the package under systemd.
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

from support.debian import Tree, build_package
from support.gateways import free_port, wait_for
from support.sinks import Sink

ROOT = pathlib.Path(__file__).parents[2]
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


# --- pipx, uv ---


def as_user(tree: Tree, *words: str) -> list[str]:
    """In the tree, as somebody without privileges."""
    environment = {
        "HOME": "/home/op",
        "PATH": "/home/op/.local/bin:/usr/bin:/bin",
        "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt",
        "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
    }
    setting = [f"{key}={value}" for key, value in environment.items()]
    return ["chroot", "--userspec=op:op", str(tree.root), "env", "-C", "/home/op", "-i", *setting, *words]


def run_as_user(tree: Tree, *words: str) -> str:
    done = subprocess.run(as_user(tree, *words), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_pipx_and_uv(debian: Tree, tmp_path: pathlib.Path) -> None:
    """Debian's pipx, and uv, install the wheel for a user of a fresh Debian; init and start give a relay; what was
    queued when the one was uninstalled is delivered by the other."""
    debian.run("apt-get", "-qq", "update")
    debian.install("pipx")
    debian.run("useradd", "-m", "op")
    build(tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    shutil.copy(wheel, debian.root / "home/op")
    port, behind = free_port(), free_port()

    assert "tripost" in run_as_user(debian, "pipx", "install", f"./{wheel.name}")
    words = ["--hostname", "mx.machin.com", "--listen", f"127.0.0.1:{port}", "--smart-host", f"127.0.0.1:{behind}"]
    run_as_user(debian, "tripost", "init", "--yes", *words, "--state", "state", "-o", "tripost.toml")
    relays(debian, port, behind)
    send_and_stop(debian, port)
    run_as_user(debian, "pipx", "uninstall", "tripost")
    assert not (debian.root / "home/op/.local/bin/tripost").is_symlink()
    assert debian.processes == []

    run_as_user(debian, "pipx", "install", "uv")
    run_as_user(debian, "uv", "tool", "install", "-q", f"./{wheel.name}")
    with served(debian, port):
        sink = Sink(behind)
        words = ["tripost", "queue", "retry", "--id", "*", "--yes", "--config", "tripost.toml"]
        subprocess.run(as_user(debian, *words), check=False, timeout=60)  # it may be under way already
        assert wait_for(lambda: any(b"Subject: waits" in one for one in sink.messages))
        sink.close()
    relays(debian, port, behind)
    run_as_user(debian, "uv", "tool", "uninstall", "-q", "tripost")
    assert not (debian.root / "home/op/.local/bin/tripost").exists()
    assert (debian.root / "home/op/state/spool/log").is_dir()


@contextlib.contextmanager
def served(tree: Tree, port: int) -> Iterator[None]:
    child = subprocess.Popen(as_user(tree, "tripost", "serve", "tripost.toml"), stderr=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: answers(port))
        yield
    finally:
        run_as_user(tree, "tripost", "drain", "--config", "tripost.toml")
        assert child.wait(40) == 0


def relays(tree: Tree, port: int, behind: int) -> None:
    with served(tree, port), contextlib.closing(Sink(behind)) as sink:
        send(port, "relayed")
        assert wait_for(lambda: sink.messages)


def send_and_stop(tree: Tree, port: int) -> None:
    with served(tree, port):
        send(port, "waits")


# --- Debian ---


@pytest.mark.long
def test_the_debian_package(debian: Tree, package: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Built twice alike; installs on a fresh Debian 12, init and start give a relay as the user tripost; removing it
    leaves no process and no file but the mail, which a new installation delivers."""
    assert package.read_bytes() == build_package(tmp_path / "again").read_bytes()
    shutil.copy(package, debian.root / "tripost.deb")
    before = debian.files()
    debian.run("dpkg", "-i", "/tripost.deb")
    port, behind = free_port(), free_port()
    words = ["--hostname", "mx.machin.com", "--listen", f"127.0.0.1:{port}", "--smart-host", f"127.0.0.1:{behind}"]
    debian.run("tripost", "init", "--yes", *words, "-o", "/etc/tripost/tripost.toml")
    sink = Sink(behind)
    child = serve(debian)
    assert wait_for(lambda: answers(port))
    send(port, "relayed")
    assert wait_for(lambda: sink.messages)
    sink.close()
    send(port, "waits")
    status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
    user = (debian.root / "etc/passwd").read_text().split("tripost:x:")[1].split(":")[0]
    assert f"Uid:\t{user}\t{user}\t{user}\t{user}" in status
    debian.run("apt-get", "-y", "remove", "tripost")
    assert child.wait(60) in (0, 1)  # 1: a delivery was cut
    assert debian.processes == []
    left = {
        name
        for name in debian.files() - before
        if not name.startswith(("var/lib/dpkg", "var/lib/apt", "var/log", "var/cache"))
    }
    assert {name for name in left if not name.startswith("var/lib/tripost/")} <= {
        *("etc/tripost/tripost.toml", "etc/logrotate.d/tripost", "etc/passwd-", "etc/group-", "etc/shadow-"),
        *("etc/gshadow-", "etc/subuid-", "etc/subgid-"),
    }, left
    debian.run("dpkg", "-i", "/tripost.deb")
    sink = Sink(behind)
    child = serve(debian)
    try:
        assert wait_for(lambda: answers(port))
        words = ["queue", "retry", "--id", "*", "--config", "/etc/tripost/tripost.toml"]
        debian.run("tripost", *words, code=None)  # it may be under way already
        assert wait_for(lambda: any(b"Subject: waits" in one for one in sink.messages))
    finally:
        debian.run("tripost", "drain", "--config", "/etc/tripost/tripost.toml")
        child.wait(60)
        sink.close()
    said = debian.run("dpkg", "-P", "tripost")
    assert "mail and accounts are still in /var/lib/tripost" in said
    assert (debian.root / "var/lib/tripost/spool").is_dir()


def serve(tree: Tree) -> subprocess.Popen[bytes]:
    return subprocess.Popen(tree.command("tripost", "serve", "/etc/tripost/tripost.toml"), stderr=subprocess.DEVNULL)
