"""what keeps a gateway from starting is said in one line, exit code 2"""

from __future__ import annotations

import pathlib
import signal
import socket
import time

import pytest

from support.gateways import TOML, Running, running


def _refused(gateway: Running) -> str:
    done = gateway.command("serve")
    assert done.returncode == 2, done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_port_in_use(tmp_path: pathlib.Path) -> None:
    gateway = Running(tmp_path)
    with socket.create_server(("127.0.0.1", gateway.pop3)):
        assert f"cannot listen on 127.0.0.1:{gateway.pop3}: Address already in use" in _refused(gateway)


def test_a_second_gateway_on_the_same_state(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as first:
        second = Running(tmp_path)
        assert "in use by another gateway" in _refused(second)
        assert first.child is not None
        assert first.child.poll() is None


def test_state_that_cannot_be_made(tmp_path: pathlib.Path) -> None:
    gateway = Running(tmp_path)
    (tmp_path / "state").write_text("a file where a folder should be")
    assert "state" in _refused(gateway)


def test_misspelt_key(tmp_path: pathlib.Path) -> None:
    gateway = Running(tmp_path, extra="[limtis]\nerrors = 3\n", user="")
    line = _refused(gateway)
    assert "tripost.toml" in line
    assert "limtis" in line


def test_sigterm_is_a_clean_end(tmp_path: pathlib.Path) -> None:
    with running(tmp_path) as gateway:
        assert gateway.stop() == 0
        assert [row["event"] for row in gateway.events()][-2:] == ["stopping", "stopped"]


def test_idle_clients_do_not_delay_the_end(tmp_path: pathlib.Path) -> None:
    with running(tmp_path, extra="") as gateway:
        with (
            socket.create_connection(("127.0.0.1", gateway.smtp), 10) as smtp,
            socket.create_connection(("127.0.0.1", gateway.pop3), 10) as pop3,
        ):
            assert smtp.recv(999).startswith(b"220")
            assert pop3.recv(999).startswith(b"+OK")
            start = time.monotonic()
            assert gateway.stop() == 0
            assert time.monotonic() - start < 2
            assert smtp.recv(999).startswith(b"421 4.3.2")
            assert pop3.recv(999) == b""


def in_data(smtp: socket.socket) -> None:
    for line in ("", "EHLO x.example\r\n", "MAIL FROM:<>\r\n", "RCPT TO:<marc@machin.com>\r\n", "DATA\r\n"):
        smtp.sendall(line.encode())
        reply = smtp.recv(999)
    assert reply.startswith(b"354"), reply


@pytest.mark.parametrize("processes", [1, 2])
def test_what_the_drain_cuts_is_told_by_the_exit_code(processes: int, tmp_path: pathlib.Path) -> None:
    toml = TOML.replace('drain = "3s"', 'drain = "1s"')
    with running(tmp_path, toml=f"processes = {processes}\n{toml}") as gateway:
        with socket.create_connection(("127.0.0.1", gateway.smtp), 10) as smtp:
            in_data(smtp)
            assert gateway.stop() == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_signal_ends_at_once_what_the_first_waits_for(
    processes: int, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path, toml=f"processes = {processes}\n{TOML}") as gateway:
        with socket.create_connection(("127.0.0.1", gateway.smtp), 10) as smtp:
            in_data(smtp)
            child = gateway.child
            assert child is not None
            child.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert child.poll() is None, "DATA is waited for"
            start = time.monotonic()
            assert gateway.stop() == 1, "not all was let end"
            assert time.monotonic() - start < 5
    assert "Traceback" not in capfd.readouterr().err
