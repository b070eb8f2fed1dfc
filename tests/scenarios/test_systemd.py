"""under systemd, as far as it can be had without one: sockets that are handed over, readiness, the watchdog, and root
that becomes somebody else"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from support.gateways import common_folder, free_port, wait_for

TOML = """\
hostname = "smtp.machin.com"
state = "state"
[[listen]]
service = "smtp"
address = "{address}"
[spool]
min_free = "1MiB"
[events]
file = "events.log"
"""
# as systemd does: descriptors from 3 on, LISTEN_PID for whom they are
START = """\
import os, sys
fds = [int(one) for one in sys.argv[1].split(",") if one]
for at, fd in enumerate(fds):
    os.dup2(fd, 20 + at)
for at in range(len(fds)):
    os.dup2(20 + at, 3 + at)
    os.close(20 + at)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES="a:b")
os.execv(sys.executable, [sys.executable, "-m", "tripost", "serve", sys.argv[2]])
"""


@contextlib.contextmanager
def started(
    folder: pathlib.Path, address: str, handed: list[socket.socket], **environment: str
) -> Iterator[subprocess.Popen[str]]:
    (folder / "t.toml").write_text(TOML.format(address=address))
    fds = [one.fileno() for one in handed]
    child = subprocess.Popen(
        [sys.executable, "-c", START, ",".join(map(str, fds)), str(folder / "t.toml")],
        cwd=folder, pass_fds=fds, env=os.environ | environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)


def greeted(address: tuple[str, int] | str) -> bool:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family) as one:
        one.settimeout(5)
        one.connect(address)
        return one.recv(4) == b"220 "
    return False


def test_handed_over_and_told(tmp_path: pathlib.Path) -> None:
    """A connection that came before the start is answered; READY comes when connections are taken, WATCHDOG goes on."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        told.bind(str(tmp_path / "notify"))
        told.settimeout(30)
        address = listener.getsockname()
        with socket.create_connection(address, 30) as early:
            words = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
            with started(tmp_path, f"127.0.0.1:{address[1]}", [listener], **words) as child:
                said: list[str] = []
                while "READY=1" not in "\n".join(said):
                    said.append(told.recv(4096).decode())
                assert early.recv(4) == b"220 "
                assert greeted(address)
                for _ in range(3):
                    assert told.recv(4096) == b"WATCHDOG=1"
                child.send_signal(signal.SIGTERM)
                while not said[-1].startswith("STOPPING=1"):
                    said.append(told.recv(4096).decode())
                assert child.wait(30) == 0
        assert not greeted(("127.0.0.1", 1))


def test_a_restart_is_told_and_keeps_the_sockets(tmp_path: pathlib.Path) -> None:
    """RELOADING, then READY of the same process, and never STOPPING, which would end the service; a socket that the new
    configuration does not want refuses it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        told.bind(str(tmp_path / "notify"))
        told.settimeout(30)
        address = listener.getsockname()
        # seldom: the socket keeps ten words for a reader, and more would be lost
        words = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "16000000"}

        def until(word: str) -> list[str]:
            said = [told.recv(4096).decode()]
            while not said[-1].startswith(word):
                said.append(told.recv(4096).decode())
                assert len(said) < 10, said
            return said

        with started(tmp_path, f"127.0.0.1:{address[1]}", [listener], **words) as child:
            until("READY=1")
            text = (tmp_path / "t.toml").read_text()
            (tmp_path / "t.toml").write_text(text.replace(str(address[1]), str(free_port())))
            done = command(tmp_path, "restart")
            assert done.returncode == 2
            assert f"no [[listen]] has this address: 127.0.0.1:{address[1]}\n" in done.stderr
            (tmp_path / "t.toml").write_text(text)
            assert command(tmp_path, "restart").returncode == 0
            said = [*until("RELOADING=1\nMONOTONIC_USEC="), *until("READY=1"), *until("WATCHDOG=1")]
            assert "STOPPING=1" not in "".join(said)
            assert greeted(address)
            assert os.path.exists(f"/proc/{child.pid}")


def command(folder: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tripost", *words, "--config", str(folder / "t.toml")]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_a_unix_socket_stays(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "smtp.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with started(tmp_path, f"unix:{path}", [listener]):
            assert wait_for(lambda: greeted(path))
        assert os.path.exists(path), "it is systemd's"


def test_unmatched(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with started(tmp_path, f"127.0.0.1:{free_port()}", [listener]) as child:
            _, said = child.communicate(timeout=30)
        assert child.returncode == 2
        assert "handed over by LISTEN_FDS, but no [[listen]] has this address: 127.0.0.1" in said
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        with started(tmp_path, "127.0.0.1:0", [datagrams]) as child:
            _, said = child.communicate(timeout=30)
        assert child.returncode == 2
        assert "is no listening stream socket" in said


OURS = [one for one in sys.path if one and not one.startswith(sys.base_prefix)]  # not its standard library


def python_for_all() -> str:
    """An interpreter of this version that every user may read; modules are imported after the user has changed."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for one in (os.path.realpath(sys.executable), f"/usr/bin/python{version}"):
        path = pathlib.Path(one)
        if path.exists() and all(parent.stat().st_mode & 0o001 for parent in path.parents):
            return one
    pytest.skip(f"this Python can be read by root only, and there is no /usr/bin/python{version}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_somebody_else() -> None:
    with common_folder() as folder:
        port = free_port()
        text = f'user = "nobody"\n{TOML.format(address=f"127.0.0.1:{port}")}'.replace('file = "events.log"\n', "")
        text += '[[route]]\ndomain = "*"\nto = "discard"\n'
        (folder / "t.toml").write_text(text)
        words = [python_for_all(), "-m", "tripost", "serve", str(folder / "t.toml")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(OURS)}
        with subprocess.Popen(words, cwd=folder, stderr=subprocess.DEVNULL, env=environment) as child:
            try:
                assert wait_for(lambda: greeted(("127.0.0.1", port)))
                status = dict(
                    line.split(":\t", 1)
                    for line in pathlib.Path(f"/proc/{child.pid}/status").read_text().splitlines()
                    if ":\t" in line
                )
                nobody = pwd.getpwnam("nobody")
                assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
                assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
                assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
                with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
                    client.sendmail("fred@truc.fr", ["u@far.example"], b"Subject: x\r\n\r\nx\r\n")
                assert {one.stat().st_uid for one in (folder / "state").rglob("*")} == {nobody.pw_uid}
            finally:
                child.send_signal(signal.SIGTERM)
                assert child.wait(30) == 0
        (folder / "t.toml").write_text(text.replace("nobody", "nobody-at-all"))
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, timeout=30, check=False, env=environment
        )
        assert (done.returncode, done.stderr) == (2, 'tripost: there is no user "nobody-at-all"\n')
