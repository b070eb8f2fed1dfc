"""our package on a Debian 12 whose first process is systemd: the units as they are, in their whole sandbox

Socket activation on port 25, keys by LoadCredential, reload, restart, watchdog, a wrong configuration, removal and what
comes back. The machine is made of namespaces (support/debian.py); minutes, so `long`.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import pathlib
import re
import shutil
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
import trustme

from support.debian import Machine, Tree, copy
from support.gateways import wait_for
from support.sinks import Sink

pytestmark = pytest.mark.long
TOML = "etc/tripost/tripost.toml"


@pytest.fixture(scope="module")
def machine(fresh: Tree, package: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """With the package, configured as the installation says."""
    with copy(fresh, tmp_path_factory.mktemp("machine") / "debian") as tree:
        tree.run("apt-get", "-qq", "update")
        tree.install("systemd", "systemd-sysv", "dbus", "procps", "swaks", "logrotate")
        shutil.copy(package, tree.root / "root/tripost.deb")
        with Machine(tree.root).running() as machine:
            said = machine.run("apt-get", "install", "-y", "/root/tripost.deb")
            first, then = re.findall(r"^tripost: (?:first|then): *(.*)$", said, re.MULTILINE)
            machine.run(*first.replace("tripost init", "tripost init --yes --smart-host 127.0.0.1:2526").split())
            machine.run(*then.split())
            yield machine


@pytest.fixture
def sink(machine: Machine) -> Iterator[Sink]:
    """The smart host."""
    with machine.network():
        one = Sink(2526)
    yield one
    one.close()


def send(machine: Machine, subject: str) -> None:
    with machine.network(), smtplib.SMTP("127.0.0.1", 25, timeout=20) as client:
        client.sendmail("fred@truc.fr", ["u@far.example"], f"Subject: {subject}\r\n\r\nx\r\n".encode())


def arrived(sink: Sink, subject: str) -> bool:
    return any(f"Subject: {subject}".encode() in one for one in sink.messages)


def status(machine: Machine) -> dict[str, str]:
    """/proc of the main process."""
    text = machine.run("cat", f"/proc/{machine.show('tripost.service', 'MainPID')}/status")
    return dict(re.findall(r"^(\w+):\s+(.*)$", text, re.MULTILINE))


@contextlib.contextmanager
def more(machine: Machine, text: str) -> Iterator[None]:
    """The configuration with `text` at its end."""
    before = machine.read(TOML)
    machine.write(TOML, before + text)
    try:
        yield
    finally:
        machine.write(TOML, before)


def test_a_relay(machine: Machine, sink: Sink) -> None:
    """swaks in, the smart host out; as nobody special, without a capability, below system call filters."""
    said = machine.run(
        "swaks", "--server", "127.0.0.1", "--from", "fred@truc.fr", "--to", "u@far.example", "--h-Subject", "one"
    )
    assert "250 2.0.0 queued" in said
    assert wait_for(lambda: arrived(sink, "one"))
    assert machine.show("tripost.service", "StatusText") == "serving"
    found = status(machine)
    user = machine.run("id", "-u", "tripost").strip()
    assert found["Uid"].split() == [user] * 4
    assert {int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"
    assert int(found["Seccomp_filters"]) >= 10


def test_activated_by_a_connection(machine: Machine, sink: Sink) -> None:
    machine.run("systemctl", "stop", "tripost.service")
    assert machine.run("pgrep", "-u", "tripost", code=1) == ""
    send(machine, "wakes")
    assert machine.show("tripost.service", "ActiveState") == "active"
    assert wait_for(lambda: arrived(sink, "wakes"))


def test_keys_of_root(machine: Machine, sink: Sink) -> None:
    """A key that only root can read serves STARTTLS."""
    authority = trustme.CA()
    made = authority.issue_cert("mx.machin.com")
    made.cert_chain_pems[0].write_to_path(machine.root / "etc/tripost/credentials/cert.pem")
    made.private_key_pem.write_to_path(machine.root / "etc/tripost/credentials/key.pem")
    (machine.root / "etc/tripost/credentials/key.pem").chmod(0o600)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.check_hostname = False  # the address is asked for
    folder = "${CREDENTIALS_DIRECTORY}/credentials_"
    with more(machine, f'[tls]\ncertificate = "{folder}cert.pem"\nkey = "{folder}key.pem"\n'):
        machine.run("systemctl", "restart", "tripost")
        with machine.network(), smtplib.SMTP("127.0.0.1", 25, timeout=20) as client:
            client.starttls(context=context)
            client.sendmail("fred@truc.fr", ["u@far.example"], b"Subject: secret\r\n\r\nx\r\n")
        machine.run("systemctl", "reload", "tripost")
    assert wait_for(lambda: arrived(sink, "secret"))
    machine.run("systemctl", "restart", "tripost")


def test_reload(machine: Machine) -> None:
    before = machine.show("tripost.service", "MainPID")
    with more(machine, '[limits]\nmessage_size = "20MiB"\n'):
        machine.run("systemctl", "reload", "tripost")
        with machine.network(), smtplib.SMTP("127.0.0.1", 25, timeout=20) as client:
            client.ehlo()
            assert client.esmtp_features["size"] == str(20 << 20)
    with more(machine, "[limits]\nmesage_size = 1\n"):
        machine.run("systemctl", "reload", "tripost", code=1)
        assert 'did you mean "message_size"?' in machine.journal("-u", "tripost")
    machine.run("systemctl", "reload", "tripost")
    assert machine.show("tripost.service", "MainPID") == before


def test_hanging(machine: Machine, sink: Sink) -> None:
    """The watchdog kills a process that stands still; another takes over what was queued."""
    machine.write("etc/systemd/system/tripost.service.d/watchdog.conf", "[Service]\nWatchdogSec=2\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "tripost")
    time.sleep(3)  # it is fed: nothing happens
    assert machine.show("tripost.service", "NRestarts") == "0"
    machine.run("kill", "-STOP", machine.show("tripost.service", "MainPID"))
    send(machine, "patient")  # the port is systemd's: nobody is refused
    assert machine.show("tripost.service", "NRestarts") == "1"
    assert "watchdog" in machine.journal("_PID=1").lower()
    assert wait_for(lambda: arrived(sink, "patient"))
    (machine.root / "etc/systemd/system/tripost.service.d/watchdog.conf").unlink()
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "tripost")


class Callers(threading.Thread):
    """Connections one after the other until `stop`: how many were greeted, the longest wait, and what went wrong."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine
        self._stop_it = threading.Event()
        self.greeted = 0
        self.longest = 0.0
        self.wrong: list[object] = []
        self.start()

    def run(self) -> None:
        with self._machine.network():
            while not self._stop_it.wait(0.01):
                start = time.monotonic()
                try:
                    with socket.create_connection(("127.0.0.1", 25), 60) as one:
                        said = one.recv(100)
                    if said[:4] == b"220 ":
                        self.greeted += 1
                    else:
                        self.wrong.append(said)
                except OSError as wrong:
                    self.wrong.append(wrong)
                self.longest = max(self.longest, time.monotonic() - start)

    def end(self) -> None:
        self._stop_it.set()
        self.join()


def test_restarts_and_upgrade_refuse_nobody(machine: Machine) -> None:
    """The socket outlives the service: `systemctl restart`, and the package put over itself."""
    callers = Callers(machine)
    for _ in range(3):
        machine.run("systemctl", "restart", "tripost")
        time.sleep(0.3)
    before = machine.show("tripost.service", "MainPID")
    machine.run("dpkg", "-i", "/root/tripost.deb")
    assert machine.show("tripost.service", "MainPID") != before
    time.sleep(0.3)
    callers.end()
    print(f"{callers.greeted} connections greeted, the longest wait {callers.longest:.2f} s")
    assert callers.wrong == []
    assert callers.greeted > 100


def test_a_new_image(machine: Machine) -> None:
    """`tripost restart` under Type=notify: systemd keeps its main process and counts no restart; nobody is refused."""
    before = machine.show("tripost.service", "MainPID")
    callers = Callers(machine)
    for _ in range(3):
        machine.run("tripost", "restart")
        time.sleep(0.5)
    callers.end()
    print(f"{callers.greeted} connections greeted, the longest wait {callers.longest:.2f} s")
    assert callers.wrong == []
    assert callers.greeted > 50
    assert machine.show("tripost.service", "MainPID") == before
    assert machine.show("tripost.service", "NRestarts") == "0"
    assert machine.show("tripost.service", "ActiveState") == "active"
    machine.run("systemctl", "reload", "tripost")


def test_a_wrong_configuration(machine: Machine) -> None:
    """It is not started again and again, the journal has the place, and the runbook's commands bring it back."""
    with more(machine, "[limits]\nmesage_size = 1\n"):
        machine.run("systemctl", "restart", "tripost", code=1)
        assert machine.show("tripost.service", "ExecMainStatus") == "2"
        assert machine.show("tripost.service", "NRestarts") == "0"
        assert ":1: limits.mesage_size: unknown key" in machine.journal("-u", "tripost")
        with contextlib.suppress(OSError):  # clients come: the socket starts it, until systemd has had enough
            send(machine, "too early")
        assert wait_for(lambda: machine.show("tripost.socket", "ActiveState") == "failed")
    page = (pathlib.Path(__file__).parents[2] / "deploy" / "runbook.md").read_text()
    (command,) = re.findall(r"`(systemctl reset-failed [^`]*)`", page)
    machine.run("sh", "-c", command)
    send(machine, "in time")


def test_dynamic_user(machine: Machine) -> None:
    """A user for each start is enough."""
    machine.run("systemctl", "stop", "tripost.service", "tripost.socket")
    kept = machine.root / "var/lib/tripost"
    kept.rename(machine.root / "var/lib/kept")
    drop = machine.root / "etc/systemd/system/tripost.service.d/user.conf"
    machine.write(str(drop.relative_to(machine.root)), "[Service]\nDynamicUser=yes\nUser=tripost-dynamic\nGroup=\n")
    before = machine.read(TOML)
    machine.write(TOML, before.replace('user = "tripost"', ""))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "tripost.socket", "tripost.service")
    send(machine, "dynamic")
    assert int(status(machine)["Uid"].split()[0]) > 60_000
    assert (machine.root / "var/lib/private/tripost/spool").is_dir()
    machine.run("systemctl", "stop", "tripost.service", "tripost.socket")
    drop.unlink()
    machine.write(TOML, before)
    (machine.root / "var/lib/tripost").unlink()
    (machine.root / "var/lib/kept").rename(kept)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "tripost.socket", "tripost.service")


def test_the_journal(machine: Machine) -> None:
    """What the runbook asks it."""
    send(machine, "told")
    assert wait_for(lambda: "accepted" in machine.journal("-t", "tripost", "TRIPOST_EVENT=accepted"))
    assert "fred@truc.fr" in machine.journal("-t", "tripost", "TRIPOST_SENDER=fred@truc.fr")
    machine.run("journalctl", "-u", "tripost", "-p", "warning", "--no-pager")


def test_logrotate(machine: Machine) -> None:
    """Debian's, with the package's file, while mail comes in: not one event is missing, in what is compressed too."""
    with more(machine, '[events]\nfile = "/var/log/tripost/events.log"\nformat = "json"\n'):
        machine.run("systemctl", "restart", "tripost")
        for number in range(120):
            send(machine, f"number {number}")
            if number % 30 == 29:
                machine.run("logrotate", "--force", "/etc/logrotate.d/tripost")
        machine.run("systemctl", "stop", "tripost.service")
    machine.run("systemctl", "restart", "tripost")
    logs = list((machine.root / "var/log/tripost").iterdir())
    assert sorted(one.name for one in logs) == [
        *("events.log", "events.log.1", "events.log.2.gz", "events.log.3.gz", "events.log.4.gz"),
    ]
    texts = [gzip.decompress(one.read_bytes()) if one.suffix == ".gz" else one.read_bytes() for one in logs]
    rows = [json.loads(line) for text in texts for line in text.splitlines()]
    numbers = sorted(row["seq"] for row in rows)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert sum(row["event"] == "accepted" for row in rows) == 120
    assert {"started", "stopped"} <= {row["event"] for row in rows}


def test_removed_and_installed_again(machine: Machine) -> None:
    """Nothing runs, nothing is enabled; mail that was queued is there, and is delivered by the next installation. It
    outlives a purge too."""
    send(machine, "waits")
    machine.run("apt-get", "remove", "-y", "tripost")
    assert machine.run("pgrep", "-u", "tripost", code=1) == ""
    assert "tripost" not in machine.run("systemctl", "list-unit-files", "--state=enabled")
    with machine.network(), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 25), 5).close()
    machine.run("apt-get", "install", "-y", "/root/tripost.deb")
    with machine.network():
        sink = Sink(2526)
    machine.run("systemctl", "enable", "--now", "tripost.socket", "tripost.service")
    machine.run("tripost", "queue", "retry", "--id", "*", "--yes", code=None)  # it may be under way already
    assert wait_for(lambda: arrived(sink, "waits"))
    sink.close()
    send(machine, "outlives")
    said = machine.run("apt-get", "purge", "-y", "tripost")
    assert "mail and accounts are still in /var/lib/tripost" in said
    assert machine.run("pgrep", "-u", "tripost", code=1) == ""
    assert list((machine.root / "var/lib/tripost/spool/log").iterdir())
